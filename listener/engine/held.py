"""The rows of one queue that this process holds: most in a call, some ready for the next slot that becomes free."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf

import anyio

from listener.core.job import Job
from listener.core.queue import Limits
from listener.engine.crew import Crew
from listener.engine.executor import UNKNOWN_S, Call, Executor
from listener.engine.slots import Slots

# While calls last less than this on average, as many rows as there are slots are kept ready: each begins within about
# as long, and no slot stands empty for the 2 ms of a claim (measured, 100 calls of 5 ms at a time: 1.2 times the jobs).
_SHORT_S = 0.02
# What has waited so long for a slot is given back: the calls have become longer, and another listener may have room.
_PATIENCE_S = 0.1
# An operation's time runs from the claim; one with less than this would begin with too little of it left.
_LEAST_TIMEOUT_S = 10 * _PATIENCE_S
# At a stop, seconds to write that.
_WRITE_S = 2.0


class Held:
    """Begins what is claimed, in order, as slots become free. For one event loop."""

    def __init__(self, queue: str, executor: Executor, slots: Slots, limits: Callable[[], Limits]) -> None:
        self._queue = queue
        self._executor = executor
        self._slots = slots
        self._limits = limits
        self._crew = Crew()
        self._claims: dict[int, int] = {}
        self._ready: deque[tuple[float, Call]] = deque()
        self._claimed_by = Limits()
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, crew: Crew) -> None:
        """Calls join the `crew` from now on. Rows of a former session are not ours any more."""
        self._leave()
        self._crew = crew
        self._claims.clear()

    def claims(self) -> list[int]:
        """Return the claims whose rows are held."""
        return list(self._claims)

    @property
    def is_short_of(self) -> bool:
        """Whether less than half of what may be kept ready is ready, or about to be; true when nothing is kept."""
        return 2 * (len(self._ready) + self._coming) <= self._slots.active_of(self._queue)

    def room(self, free: int, limits: Limits) -> int:
        """How many rows more than the `free` slots a claim may ask for, while there are more rows than slots. None when
        queues wait for each other's slots, and none that could begin with most of their time gone."""
        is_short = self._executor.mean_s <= _SHORT_S and limits.timeout_s >= _LEAST_TIMEOUT_S
        if not is_short or not self.is_short_of or self._executor.is_behind or self._slots.has_line:
            return 0
        slots = min(free + self._slots.active_of(self._queue), limits.concurrency)
        return max(0, slots - len(self._ready) - self._coming)

    @contextmanager
    def coming(self, rows: int) -> Iterator[None]:
        """A claim is under way for so many rows without a slot."""
        self._coming += rows
        try:
            yield
        finally:
            self._coming -= rows

    def take(self, batches: Sequence[Sequence[Job]], limits: Limits, claimed_by: Limits, slots: int) -> None:
        """Hold rows, one batch a call: as many calls as there are free `slots` begin now, the others when they can.
        claimed_by: the limits of when they were asked for."""
        now_s = asyncio.get_running_loop().time()
        for batch in batches:
            claim_id = batch[0].claim_id
            self._claims[claim_id] = self._claims.get(claim_id, 0) + 1
            let_go = partial(self._let_go, claim_id)
            call = self._executor.prepare(self._crew, batch, limits, now_s + limits.timeout_s, let_go)
            self._ready.append((now_s, call))
        self._start(slots)
        if self._ready:
            self._claimed_by = claimed_by
            self.heed_limits()
            self.slot_freed()
            self._await_patiently()

    def slot_freed(self) -> None:
        """Begin what is ready and has a slot now."""
        if self._ready:
            most = 0 if self._executor.is_behind else self._claimed_by.concurrency
            self._start(self._slots.ask(self._queue, most, joins=False))

    def heed_limits(self) -> None:
        """They may have changed: what has not begun does not begin by others than it was claimed by."""
        if self._ready and self._limits() != self._claimed_by:
            self._give_back()

    async def end(self) -> None:
        """Give back what is ready, and have that written, for others are about to look; unless somebody's lock is in
        the way for long."""
        if self._ready:
            self._give_back()
            with anyio.move_on_after(_WRITE_S):
                await self._executor.flush()

    def _give_back(self, *, before_s: float = inf) -> None:
        """Let others have what was ready before that time; it counts no attempt."""
        while self._ready and self._ready[0][0] <= before_s:
            self._executor.drop(self._ready.popleft()[1], gives_back=True)

    def _leave(self) -> None:
        """The session is over: what is ready is left to the rescue."""
        while self._ready:
            self._executor.drop(self._ready.popleft()[1], gives_back=False)

    def _start(self, slots: int) -> None:
        if self._crew.is_cancelled:
            self._leave()
        for _ in range(min(slots, len(self._ready))):
            self._executor.begin(self._ready.popleft()[1])

    def _await_patiently(self) -> None:
        if self._ready and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._ready[0][0] + _PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        before_s, count = asyncio.get_running_loop().time() - _PATIENCE_S, len(self._ready)
        self._give_back(before_s=before_s)
        if len(self._ready) < count:
            self._executor.mean_s = UNKNOWN_S  # else the next claim would bring them again
        self._await_patiently()

    def _let_go(self, claim_id: int) -> None:
        if (calls := self._claims.pop(claim_id, 0)) > 1:
            self._claims[claim_id] = calls - 1
