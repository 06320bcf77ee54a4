"""A wake says "look now". Wakes coalesce: ten of them while nobody looks are one look."""

from collections.abc import Callable
from math import inf

import anyio


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
        self._event = anyio.Event()
        self._due_at = inf

    def ring(self, reason: str) -> None:
        """Look now, because of `reason` (notify, poll, slot, start, config, …)."""
        self._reasons.add(reason)
        self._event.set()

    def is_rung(self, reason: str) -> bool:
        """Whether somebody has rung for that reason since the last `wait`."""
        return reason in self._reasons

    def ring_in(self, delay_s: float) -> None:
        """Look in `delay_s` seconds at the latest; an earlier alarm stays."""
        due_at = anyio.current_time() + delay_s
        if due_at < self._due_at:
            self._due_at = due_at
            self._event.set()  # whoever sleeps must sleep less

    def retime(self) -> None:
        """The interval between polls may have changed: whoever sleeps asks for it again."""
        self._event.set()

    def forget_alarm(self) -> None:
        """Drop the alarm: the caller is about to look and will be told the next due time."""
        self._due_at = inf

    async def wait(self, poll_s: Callable[[], float]) -> frozenset[str]:
        """Sleep until a ring, the alarm or the next poll, `poll_s()` seconds from now at the latest; return why."""
        started_at = anyio.current_time()
        while not self._reasons:
            self._event = anyio.Event()
            poll_at = self._poll_at(started_at, poll_s())
            until = min(self._due_at, poll_at)
            with anyio.move_on_at(until) as scope:
                await self._event.wait()
            if scope.cancelled_caught and not self._reasons:
                self._reasons.add("due" if self._due_at <= poll_at else "poll")
                if "due" in self._reasons:
                    # an alarm goes off once: a look that finds no free slot or a closed gate sets no new one, and
                    # one that stayed in the past would make it look again and again without a pause
                    self._due_at = inf
        reasons = frozenset(self._reasons)
        self._reasons.clear()
        return reasons
