"""The rows of one queue that this process holds: most in a call, some ready for the next slot that becomes free."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf

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


class Held:
    """Begins what is claimed, in order, as slots become free. For one event loop."""

    def __init__(self, queue: str, executor: Executor, slots: Slots) -> None:
        self._queue = queue
        self._executor = executor
        self._slots = slots
        self._crew = Crew()
        self._claims: Counter[int] = Counter()
        self._ready: deque[tuple[float, Call]] = deque()
        self._coming = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, crew: Crew) -> None:
        """Calls join the `crew` from now on. Rows of a former session are not ours any more."""
        self.give_back()  # not written where the crew was cancelled
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
        """How many rows more than the `free` slots a claim may ask for, while there are more rows than slots."""
        if self._executor.mean_s > _SHORT_S or not self.is_short_of:
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

    def take(self, batches: Sequence[Sequence[Job]], limits: Limits, deadline_s: float, slots: int) -> None:
        """Hold rows, one batch a call: as many calls as there are free `slots` begin now, the others when they can."""
        now_s = asyncio.get_running_loop().time()
        for batch in batches:
            claim_id = batch[0].claim_id
            self._claims[claim_id] += 1
            call = self._executor.prepare(self._crew, batch, limits, deadline_s, partial(self._let_go, claim_id))
            self._ready.append((now_s, call))
        self._start(slots)
        self.slot_freed()
        self._await_patiently()

    def slot_freed(self) -> None:
        """Begin what is ready and has a slot now."""
        if self._ready:
            limits = self._ready[0][1].limits
            self._start(self._slots.ask(self._queue, 0 if self._executor.is_behind else limits.concurrency))

    def heed(self, limits: Limits) -> None:
        """By other limits than it was claimed by nothing begins that has not begun."""
        if self._ready and self._ready[0][1].limits != limits:
            self.give_back()

    def give_back(self, *, before_s: float = inf) -> None:
        """Let others have what was ready before that time, by the loop's clock; it counts no attempt."""
        while self._ready and self._ready[0][0] <= before_s:
            self._executor.give_back(self._ready.popleft()[1])

    def _start(self, slots: int) -> None:
        while self._ready and slots > 0:
            _, call = self._ready.popleft()
            if call.crew.is_cancelled:
                self._executor.give_back(call)
            else:
                self._executor.begin(call)
                slots -= 1

    def _await_patiently(self) -> None:
        if self._ready and self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._ready[0][0] + _PATIENCE_S, self._lose_patience)

    def _lose_patience(self) -> None:
        self._timer = None
        before_s, count = asyncio.get_running_loop().time() - _PATIENCE_S, len(self._ready)
        self.give_back(before_s=before_s)
        if len(self._ready) < count:
            self._executor.mean_s = UNKNOWN_S  # else the next claim would bring them again
        self._await_patiently()

    def _let_go(self, claim_id: int) -> None:
        self._claims[claim_id] -= 1
        if self._claims[claim_id] <= 0:
            del self._claims[claim_id]
