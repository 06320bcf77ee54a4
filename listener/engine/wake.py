"""A wake says "look now". Wakes coalesce: ten of them while nobody looks are one look."""

import asyncio
from collections.abc import Callable
from math import inf

import anyio
import anyio.lowlevel


def in_full(started_at: float, poll_s: float) -> float:
    """Return when the poll is due of who has been asleep since `started_at`."""
    return started_at + poll_s


class Wake:
    """The alarm clock of one dispatcher. Times are the event loop's monotonic seconds.

    poll_at: when the poll is due, from the sleep's start and the seconds between two polls.
    """

    def __init__(self, poll_at: Callable[[float, float], float] = in_full) -> None:
        self._poll_at = poll_at
        self._reasons: set[str] = set()
        self._sleep: asyncio.Future[None] | None = None
        self._due_at = inf

    @property
    def is_asleep(self) -> bool:
        """Whether somebody sleeps whom nothing has stirred yet."""
        return self._sleep is not None and not self._sleep.done()

    def ring(self, reason: str) -> None:
        """Look now, because of `reason` (notify, poll, slot, start, config, …)."""
        self._reasons.add(reason)
        self._stir()

    def is_rung(self, reason: str) -> bool:
        """Whether somebody has rung for that reason since the last `wait`."""
        return reason in self._reasons

    def ring_in(self, delay_s: float) -> None:
        """Look in `delay_s` seconds at the latest; an earlier alarm stays."""
        due_at = anyio.current_time() + delay_s
        if due_at < self._due_at:
            self._due_at = due_at
            self._stir()  # whoever sleeps must sleep less

    def retime(self) -> None:
        """The interval between polls may have changed: whoever sleeps asks for it again."""
        self._stir()

    def forget_alarm(self) -> None:
        """Drop the alarm: the caller is about to look and will be told the next due time."""
        self._due_at = inf

    async def wait(self, poll_s: Callable[[], float]) -> frozenset[str]:
        """Sleep until a ring, the alarm or the next poll, `poll_s()` seconds from now at the latest; return why."""
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._reasons:
            poll_at = self._poll_at(started_at, poll_s())
            until = min(self._due_at, poll_at)
            self._sleep = loop.create_future()
            timer = loop.call_at(until, self._stir)  # a cancel scope would cost a handler's start 0.03 ms
            try:
                await self._sleep
            finally:
                timer.cancel()
            if not self._reasons and loop.time() >= until:
                self._reasons.add("due" if self._due_at <= poll_at else "poll")
                if "due" in self._reasons:
                    # an alarm goes off once: a look that finds no free slot or a closed gate sets no new one, and
                    # one that stayed in the past would make it look again and again without a pause
                    self._due_at = inf
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        return reasons

    def _stir(self) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)
