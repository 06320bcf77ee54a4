"""Claims work for one queue: never more than its free slots, never before its gate allows a call."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from listener.core.budget import Gate, Refusal
from listener.core.errors import DatabaseError, Unreachable
from listener.core.events import Checked, LookSkipped, Publish, Trouble, Unannounced, Woke
from listener.core.job import Job
from listener.core.queue import Limits
from listener.db.queue import QueueTable
from listener.engine.bell import Bell
from listener.engine.executor import Executor
from listener.engine.slots import Slots
from listener.engine.wake import Wake

# After a failed look: 0.5, 1, 2 … 15 s, so that a broken table does not become a busy loop.
_TROUBLE_BASE_S, _TROUBLE_CAP_S = 0.5, 15.0
# One cut connection is nobody's alarm; this many failed looks in a row are.
_TROUBLE_SHOWN_AFTER = 3
# Rings in a row that fell into a claim or found no free slot: the writers are faster than we are. At 300 single
# INSERTs/s one in three does by chance.
_BUSY_AFTER = 3
# Every other wake is ours alone: a retry that came due, rows given back, a change of configuration.
_HEARD_BY_ALL = frozenset({"notify", "call", "slot", "armed"})
# A row that a poll finds sooner than this after it became due: its notification may be on the way.
_UNANNOUNCED_AFTER_S = 1.0
# A due row that somebody has locked: nobody tells us of the lock's end, so we look after about as long as it has
# lasted. Usually another listener is just claiming it.
_LOCKED_PAUSE_S, _LONGEST_LOCKED_PAUSE_S = 0.02, 5.0


class Found(Enum):
    """How a look ended: nothing more is due, every slot is taken, the gate refuses, the queue is switched off."""

    NOTHING = "nothing"
    NO_SLOT = "no slot"
    REFUSAL = "refusal"
    SWITCHED_OFF = "switched off"


class Dispatcher:
    """The main loop of one queue. `limits` and `poll_s` give the live configuration at each look.

    hears: do notifications count now (rolled-back mode ignores them). spares_writers: may the doorbell be off.
    """

    def __init__(
        self,
        table: QueueTable,
        executor: Executor,
        slots: Slots,
        wake: Wake,
        publish: Publish,
        *,
        gate: Gate | None,
        limits: Callable[[], Limits],
        poll_s: Callable[[], float],
        hears: Callable[[], bool] = lambda: True,
        spares_writers: Callable[[], bool] = lambda: True,
    ) -> None:
        self.table = table
        self.wake = wake
        self.hears = hears
        self._executor = executor
        self._slots = slots
        self._publish = publish
        self._gate = gate
        self._limits = limits
        self._poll_s = poll_s
        self._spares_writers = spares_writers
        self._bell: Bell | None = None
        self._unheeded_rings = 0
        self._locked_pause_s = _LOCKED_PAUSE_S
        self._held: Counter[int] = Counter()
        self._is_stopping = False
        self._has_strays = False
        self._strays_at = 0.0
        self._troubles = 0
        self._last_trouble = ""
        slots.on_freed(self._slot_freed)
        self._wants_slot = False

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.table.queue.name

    @property
    def trouble(self) -> str:
        """Why the last looks failed; empty while they do not."""
        return self._last_trouble if self._troubles >= _TROUBLE_SHOWN_AFTER else ""

    def stop(self) -> None:
        """Claim no more; `run` returns once a claim that is under way has been handed over."""
        self._is_stopping = True
        self.wake.ring("stop")

    def peers_changed(self) -> None:
        """A listener has come or gone: who sleeps may have lost its bell, so look, and ring on if there is no slot."""
        if self._bell is not None:
            self._bell.owes = True
        self.wake.ring("peer")

    async def run(self, session_key: int, executors: TaskGroup, bell: Bell) -> None:
        """Look at every wake until stopped. Handlers run in `executors`. Raises SessionLost."""
        self._bell = bell
        self._held.clear()  # rows of a former session are not ours any more
        self._strays_at = anyio.current_time() + self._poll_s()
        self.wake.ring("start")
        while not self._is_stopping:
            reasons = await self.wake.wait(self._poll_s)
            for reason in reasons:
                self._publish(Woke(queue=self.name, reason=reason))
            self._strays_at = min(self._strays_at, anyio.current_time() + self._poll_s())  # it may be shorter now
            try:
                # by the clock, not by the reason: a queue that is never quiet is never woken by the poll
                if self._has_strays or anyio.current_time() >= self._strays_at:
                    await self._release_strays(session_key, bell)
                found = await self._look(session_key, executors, bell, reasons)
                self._troubles = 0
                await self._rest(bell, found)
            except DatabaseError as error:
                self._has_strays = True  # the claim may have been committed although its reply was lost
                self._publish(Trouble(where=f"{self.name} claim", error=str(error)))
                self._troubles += 1
                self._last_trouble = str(error)
                if self._troubles == 1:
                    bell.owes = True  # they may be able to look; once, else they would tell us in turn, for ever
                self.wake.ring_in(min(_TROUBLE_CAP_S, _TROUBLE_BASE_S * 2.0 ** min(self._troubles - 1, 10)))
                await bell.call_others()
        bell.silence()
        bell.owes = True  # what only we knew of, a retry or the look after arming, is theirs from now on
        await bell.call_others()

    async def _rest(self, bell: Bell, found: Found) -> None:
        """Before we sleep: whoever commits from now on must wake somebody, unless we look again by ourselves."""
        if found is Found.SWITCHED_OFF or not self.hears():
            bell.silence()
            return
        if found is Found.NOTHING:
            bell.found_nothing()
        if not bell.is_on and (found is Found.NOTHING or not self._spares_writers()):
            pause_s = await bell.arm(has_looked=found is Found.NOTHING)
            if pause_s == 0.0:
                self.wake.ring("armed")
            elif pause_s is not None:
                self.wake.ring_in(pause_s)
        if found is Found.NO_SLOT:
            await bell.call_others(self.table.waiting)

    def _heed(self, bell: Bell, *, is_late: bool) -> None:
        """Turn the bell off when ring after ring comes while we are at it, or have no slot: writers pay for them."""
        self._unheeded_rings = self._unheeded_rings + 1 if is_late else 0
        if self._unheeded_rings >= _BUSY_AFTER and self._spares_writers():
            self._unheeded_rings = 0
            bell.silence()

    async def _look(self, session_key: int, executors: TaskGroup, bell: Bell, reasons: frozenset[str]) -> Found:
        """Claim until nothing is due, no slot is free or the gate refuses."""
        is_first = reasons != {"slot"}
        if reasons - _HEARD_BY_ALL:
            bell.has_news()
        if reasons != {"due"}:
            self._locked_pause_s = _LOCKED_PAUSE_S
        while not self._is_stopping:
            limits = self._limits()
            if not limits.enabled:
                self._publish(LookSkipped(queue=self.name, interval_s=self._poll_s()))
                self._wants_slot = False
                return Found.SWITCHED_OFF
            free = self._slots.free(self.name, limits.concurrency)
            self._wants_slot = free == 0
            if free == 0:
                if is_first and "notify" in reasons:
                    self._heed(bell, is_late=True)
                return Found.NO_SLOT
            refusal = await self._admit()
            if refusal is not None:
                self.wake.ring_in(refusal.wait_s)
                return Found.REFUSAL
            if self._limits() != limits:  # changed while the gate was asked
                await self._withdraw()
                continue
            most = limits.batch_size if limits.batch_size > 1 else free
            jobs = await self._claim(session_key, most, limits, executors, is_first=is_first)
            self._heed(bell, is_late=self.wake.is_rung("notify"))
            if jobs:
                bell.found_work()
            if is_first and reasons == {"poll"} and self.hears():
                self._tell_unannounced(jobs, bell)
            is_first = False
            if len(jobs) < most:
                return Found.NOTHING
        return Found.NO_SLOT

    def _tell_unannounced(self, jobs: Sequence[Job], bell: Bell) -> None:
        count = sum(job.due_for_s > _UNANNOUNCED_AFTER_S for job in jobs)
        if count:
            bell.silence()  # another table may have its name by now, and that one's bell is off: turn it on anew
            self._publish(Unannounced(queue=self.name, count=count))

    async def _claim(
        self, session_key: int, most: int, limits: Limits, executors: TaskGroup, *, is_first: bool
    ) -> Sequence[Job]:
        started = time.perf_counter()
        self.wake.forget_alarm()  # the claim tells the next due time; alarms set meanwhile are kept
        try:
            claim = await self.table.claim(limit=most, session_key=session_key)
        except DatabaseError:
            await self._withdraw()
            raise
        duration_s = time.perf_counter() - started
        # the rescue goes by the timeout of now, which may be another one than before the claim
        limits = replace(limits, timeout_s=self._limits().timeout_s)
        if claim.jobs and duration_s >= 1.0:
            # the operation's time runs from the claim; below a second the grace of the rescue covers it
            limits = replace(limits, timeout_s=limits.timeout_s - int(duration_s))
            if limits.timeout_s <= 0:  # we were stopped in between: the rows may be somebody else's by now
                await self._withdraw()
                raise Unreachable(
                    f"the claim took {duration_s:.1f} s, longer than its rows are ours; they are given back"
                )
        if not self._is_stopping:  # cancelled, but not by a shutdown: the session is lost, and these rows with it
            await anyio.lowlevel.checkpoint_if_cancelled()
        # From here to start_soon nothing awaits: what the claim returned is ours, also if we were cancelled meanwhile.
        if limits.batch_size > 1:
            self._start([claim.jobs] if claim.jobs else [], limits, executors)
        else:
            self._start([[job] for job in claim.jobs], limits, executors)
        if claim.next_due_s is not None:
            self.wake.ring_in(max(claim.next_due_s, 0.001))
        if claim.passed_over:
            self.wake.ring_in(self._locked_pause_s)
            self._locked_pause_s = min(self._locked_pause_s * 2, _LONGEST_LOCKED_PAUSE_S)
        if not claim.jobs:
            await self._withdraw()
        waiting = len(claim.jobs)
        if is_first and len(claim.jobs) == most:
            waiting += await self.table.waiting()
        is_counted = is_first or len(claim.jobs) < most
        self._publish(
            Checked(
                queue=self.name, claimed=len(claim.jobs), waiting=waiting if is_counted else None, duration_s=duration_s
            )
        )
        return claim.jobs

    def _start(self, batches: Sequence[Sequence[Job]], limits: Limits, executors: TaskGroup) -> None:
        for batch in batches:
            for job in batch:
                self._held[job.claim_id] += 1
            self._slots.take(self.name)
            self._executor.start(executors, batch, limits, self._let_go)

    def _let_go(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._held[job.claim_id] -= 1
            if self._held[job.claim_id] <= 0:
                del self._held[job.claim_id]

    def _slot_freed(self) -> None:
        if self._wants_slot:
            self.wake.ring("slot")

    async def _admit(self) -> Refusal | None:
        return None if self._gate is None else await self._gate.admit()

    async def _withdraw(self) -> None:
        if self._gate is not None:
            await self._gate.withdraw()

    async def _release_strays(self, session_key: int, bell: Bell) -> None:
        count = await self.table.release_strays(session_key=session_key, held=list(self._held))
        self._has_strays = False
        self._strays_at = anyio.current_time() + self._poll_s()
        if count:
            bell.owes = True
            self._publish(
                Trouble(where=f"{self.name} claim", error=f"gave back {count} rows whose claim or settle was cut")
            )
