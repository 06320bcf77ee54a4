"""Claims work for one queue: never more than its free slots, never before its gate allows a call."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from listener.core.budget import Gate, Refusal
from listener.core.errors import DatabaseError, Unreachable
from listener.core.events import Checked, LookSkipped, Publish, Trouble, Woke
from listener.core.job import Job
from listener.core.queue import Limits
from listener.db.queue import QueueTable
from listener.engine.executor import Executor
from listener.engine.slots import Slots
from listener.engine.wake import Wake

# After a failed look: 0.5, 1, 2 … 15 s, so that a broken table does not become a busy loop.
_TROUBLE_BASE_S, _TROUBLE_CAP_S = 0.5, 15.0
# One cut connection is nobody's alarm; this many failed looks in a row are.
_TROUBLE_SHOWN_AFTER = 3


class Dispatcher:
    """The main loop of one queue. `limits` and `poll_s` give the live configuration at each look."""

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
    ) -> None:
        self.table = table
        self.wake = wake
        self._executor = executor
        self._slots = slots
        self._publish = publish
        self._gate = gate
        self._limits = limits
        self._poll_s = poll_s
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

    async def run(self, session_key: int, executors: TaskGroup) -> None:
        """Look at every wake until stopped. Handlers run in `executors`."""
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
                    await self._release_strays(session_key)
                await self._look(session_key, executors, is_slot_only=reasons == {"slot"})
                self._troubles = 0
            except DatabaseError as error:
                self._has_strays = True  # the claim may have been committed although its reply was lost
                self._publish(Trouble(where=f"{self.name} claim", error=str(error)))
                self._troubles += 1
                self._last_trouble = str(error)
                self.wake.ring_in(min(_TROUBLE_CAP_S, _TROUBLE_BASE_S * 2.0 ** min(self._troubles - 1, 10)))

    async def _look(self, session_key: int, executors: TaskGroup, *, is_slot_only: bool) -> None:
        """Claim until nothing is due, no slot is free or the gate refuses."""
        is_first = not is_slot_only
        while not self._is_stopping:
            limits = self._limits()
            if not limits.enabled:
                self._publish(LookSkipped(queue=self.name, interval_s=self._poll_s()))
            free = self._slots.free(self.name, limits.concurrency) if limits.enabled else 0
            self._wants_slot = limits.enabled and free == 0
            if free == 0:
                return
            refusal = await self._admit()
            if refusal is not None:
                self.wake.ring_in(refusal.wait_s)
                return
            if self._limits() != limits:  # changed while the gate was asked
                await self._withdraw()
                continue
            most = limits.batch_size if limits.batch_size > 1 else free
            jobs = await self._claim(session_key, most, limits, executors, is_first=is_first)
            is_first = False
            if len(jobs) < most:
                return

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

    async def _release_strays(self, session_key: int) -> None:
        count = await self.table.release_strays(session_key=session_key, held=list(self._held))
        self._has_strays = False
        self._strays_at = anyio.current_time() + self._poll_s()
        if count:
            self._publish(
                Trouble(where=f"{self.name} claim", error=f"gave back {count} rows whose claim or settle was cut")
            )
