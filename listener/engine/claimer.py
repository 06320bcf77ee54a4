"""Takes rows for one queue: by a claim that looks at all of them, by a quick one, or by one that goes on."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf

import anyio
import anyio.lowlevel

from listener.core.budget import Gate, Refusal
from listener.core.errors import DatabaseError, Unreachable
from listener.core.events import Checked, Publish, Trouble
from listener.core.job import Job
from listener.core.queue import Limits
from listener.core.trail import Trail
from listener.db.line import Reply
from listener.db.queue import Claim, QueueTable
from listener.engine.crew import Crew
from listener.engine.executor import Executor
from listener.engine.held import Held
from listener.engine.slots import Slots
from listener.engine.wake import Wake

# A due row that somebody has locked: nobody tells us of the lock's end, so we look after about as long as it has
# lasted. Usually another listener is just claiming it.
_LOCKED_PAUSE_S, _LONGEST_LOCKED_PAUSE_S = 0.02, 5.0
# A look at all rows visits every row that was claimed since VACUUM could last clean up (measured: 0.2 µs each, 36 ms
# after 200,000, seconds after an hour's pg_dump). One that took longer than this, and than this for each row that it
# found, is followed by claims that go on from where the claims before have been, less the last so many rows: for so
# many times as long, at most for five minutes. What comes in before that, as a row does that a person sets back to its
# old time or a writer that took minutes to commit, waits meanwhile. (At most for one minute: of looks of 10 s, after
# 10 minutes of load under a held horizon, a sixth of the throughput went there, where 20 times means a twentieth.)
_LONG_S, _ROW_S, _SHARE, _LONGEST_S = 0.005, 4e-5, 20, 300.0
_AGAIN_ROWS = 5_000
# Nor does who goes to sleep look at all rows first when that takes longer than this: it would be most of what we do.
_TOO_LONG_S = 0.02
# Who sleeps by its bell looks at all rows so long after a quick claim that found some, once for many of them.
_WHOLE_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one claim brought. is_full: there may be more. is_partial: it did not look at all rows."""

    jobs: Sequence[Job]
    is_full: bool
    is_partial: bool


@dataclass(frozen=True, slots=True)
class _Ask:
    """A claim of so many rows at most, with `slots` kept for them, `free` of them, by the limits that held then.
    reply: it is on its way already."""

    limits: Limits
    most: int
    slots: ExitStack
    free: int
    started_s: float
    reply: Reply | None


class Claimer:
    """One queue's claims. is_stopping: a cancellation from now on is a shutdown, and keeps what a claim brings.
    has_left_some: the last claim left rows that are due, locked by somebody or not among those that it looked at.
    has_postponed: an alarm is set for a look at all rows."""

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
    ) -> None:
        self.is_stopping = False
        self.has_left_some = False
        self._table = table
        self._slots = slots
        self._wake = wake
        self._publish = publish
        self._gate = gate
        self._limits = limits
        self._session_key = 0
        self._sent: _Ask | None = None
        self.held = Held(table.queue.name, executor, slots, limits)
        self._was_full = False
        self._locked_pause_s = _LOCKED_PAUSE_S
        self._trail = Trail(_AGAIN_ROWS)
        self._goes_on_until = 0.0
        self._took_too_long = False
        self._quick_from = inf if table.queue.concurrency_key else 0.0
        self._looks_at_all = True
        self.has_postponed = False

    def begin(self, session_key: int, crew: Crew) -> None:
        """Claim for this session from now on; handler calls join the `crew`."""
        self._session_key = session_key
        self.held.begin(crew)

    def forget_locked(self) -> None:
        """Something has changed: a row that is locked now may be another one than before."""
        self._locked_pause_s = _LOCKED_PAUSE_S

    def start_over(self, *, spares: bool = False) -> None:
        """Let the next claim look at all rows; spares: unless that takes so long that it has to wait."""
        if not (spares and self._sleeps_without):
            self._goes_on_until = 0.0
            self._looks_at_all, self.has_postponed = True, False

    def postpones(self, claimed: Claimed, *, is_asleep: bool) -> bool:
        """Tell whether the look at the rows that the last claim did not look at can wait for the alarm that is set
        here. Who is about to go to sleep must have seen them, and who was woken and found none looks for why; but not
        while that look takes so long that it would be all we do."""
        left_s = self._goes_on_for_s
        if not self._looks_at_all and (self._sleeps_without or (is_asleep and (claimed.jobs or left_s > 0))):
            self._wake.ring_in(max(left_s, _WHOLE_PAUSE_S))
            self.has_postponed = True
            return True
        self.start_over()
        return False

    @property
    def has_sent(self) -> bool:
        """A claim is on its way, and the next `claim` brings what it finds."""
        return self._sent is not None

    def send(self, free: int, limits: Limits) -> None:
        """Have a claim on its way at once, if a quick one will do and can be sent. For a dispatcher that sleeps, and is
        woken in the same moment: so it takes it, as nothing cancels a task that is about to run."""
        if self._gate is None and self._is_quick:
            most = self.most(free, limits)
            reply = self._table.send_quick(limit=most, session_key=self._session_key)
            if reply is not None:
                self._sent = self._ask_for(free, most, limits, reply)

    def most(self, free: int, limits: Limits) -> int:
        """How many rows to claim for so many free slots: one call's, or one for each slot, and while there are plenty
        and calls are short also what will have a slot in a moment. 0 = none now."""
        if limits.batch_size > 1:
            return limits.batch_size if free else 0
        return free + self.held.room(free, limits) if self._was_full and self._gate is None else free

    async def claim(self, free: int, most: int, limits: Limits, *, is_first: bool) -> Claimed | Refusal | None:
        """Claim so many rows at most, and start what comes; None = the limits have changed, ask again.

        is_first: of this look; then it counts what waits. Raises Unreachable, DatabaseError.
        """
        ask, self._sent = self._sent or self._ask_for(free, most, limits), None
        with ask.slots:
            return await self._claim(ask, is_first=is_first)

    async def release_strays(self) -> bool:
        """Give back rows that this session holds and nobody here works on; not while a claim is under way."""
        count = await self._table.release_strays(session_key=self._session_key, held=self.held.claims())
        if count:
            text = f"gave back {count} rows whose claim or settle was cut"
            self._publish(Trouble(where=f"{self._table.queue.name} claim", error=text))
        return count > 0

    def _ask_for(self, free: int, most: int, limits: Limits, reply: Reply | None = None) -> _Ask:
        free = min(free, 1) if limits.batch_size > 1 else free
        slots = ExitStack()
        slots.enter_context(self._slots.reserved(self._table.queue.name, free))
        if limits.batch_size == 1:
            slots.enter_context(self.held.coming(most - free))
        return _Ask(limits, most, slots, free, time.monotonic(), reply)

    async def _claim(self, ask: _Ask, *, is_first: bool) -> Claimed | Refusal | None:
        if self._gate is not None:
            if (refusal := await self._gate.admit()) is not None:
                return refusal
            if self._limits() != ask.limits:  # changed while the gate was asked
                await self._withdraw()
                return None
        try:
            claim, is_quick, is_onward = await self._ask(ask)
            duration_s = time.monotonic() - ask.started_s
            limits = self._limits_after(ask.limits, claim, duration_s)
        except DatabaseError:
            await self._withdraw()
            raise
        if not self.is_stopping:  # cancelled, but not by a shutdown: the session is lost, and these rows with it
            await anyio.lowlevel.checkpoint_if_cancelled()
        # From here to the crew nothing awaits: what the claim returned is ours, also if we were cancelled meanwhile.
        jobs = claim.jobs
        batches = [[job] for job in jobs] if limits.batch_size == 1 else [jobs] if jobs else []
        self.held.take(batches, limits, ask.limits, ask.free)
        if jobs:
            await asyncio.sleep(0)  # the calls begin; what follows is for the books, and would keep them 0.1 ms
        search_s = duration_s if claim.search_s is None else claim.search_s
        if not is_onward:
            self._spare(search_s - len(jobs) * _ROW_S, is_quick=is_quick)
        claimed = Claimed(jobs, len(jobs) == ask.most, is_quick or is_onward)
        self._trail.add(claim.last, len(jobs), is_full=claimed.is_full)
        self._set_alarms(claim)
        self._was_full = claimed.is_full
        self.has_left_some = claim.passed_over or claimed.is_partial
        if not jobs:
            await self._withdraw()
        waiting = len(jobs)
        counts = is_first and not self._took_too_long  # which visits them all
        if counts and claimed.is_full:
            waiting += await self._table.waiting()
        self._publish(
            Checked(
                queue=self._table.queue.name,
                claimed=len(jobs),
                waiting=waiting if counts or not claimed.is_full else None,
                duration_s=duration_s,
            )
        )
        return claimed

    async def _ask(self, ask: _Ask) -> tuple[Claim, bool, bool]:
        """Also tell whether it was a quick one, and whether it went on."""
        onward = self._trail.places() if ask.reply is None and self._goes_on_for_s > 0 else []
        is_quick = ask.reply is not None or self._is_quick
        try:
            if is_quick:
                claim = await self._table.claim_quick(limit=ask.most, session_key=self._session_key, sent=ask.reply)
            else:
                if not onward:
                    self._wake.forget_alarm()  # the claim tells the next due time; alarms set meanwhile are kept
                    self.has_postponed = False
                    if self._took_too_long:  # a claim beside it goes on: two such looks would find no more than one
                        self._goes_on_until = time.monotonic() + _LONGEST_S
                claim = await self._table.claim(limit=ask.most, session_key=self._session_key, onward=onward)
                self._looks_at_all = False
        except DatabaseError:
            if not onward:  # what it cannot do within the statement's time, it will not be able to do in a second
                self._spare(time.monotonic() - ask.started_s, is_quick=is_quick)
            raise
        return claim, is_quick, bool(onward)

    @property
    def _is_quick(self) -> bool:
        """Whether a quick claim will do now, rather than one that goes on or a look at all rows."""
        now_s = time.monotonic()
        is_due = self._looks_at_all or 0.0 < self._goes_on_until <= now_s
        return not is_due and self._goes_on_for_s <= 0 and now_s >= self._quick_from

    @property
    def _goes_on_for_s(self) -> float:
        return self._goes_on_until - time.monotonic() if self._trail else 0.0

    @property
    def _sleeps_without(self) -> bool:
        return self._took_too_long and self._goes_on_for_s > 0

    def _spare(self, search_s: float, *, is_quick: bool) -> None:
        """If a claim had to search for long, let the next ones do it in another way."""
        spared_s = min(_SHARE * search_s, _LONGEST_S) if search_s > _LONG_S else 0.0
        until_s = time.monotonic() + spared_s if spared_s else 0.0
        if is_quick:
            self._quick_from = until_s
        elif not self._table.queue.concurrency_key:  # a key's row is passed by
            self._goes_on_until, self._took_too_long = until_s, search_s > _TOO_LONG_S

    def _limits_after(self, limits: Limits, claim: Claim, duration_s: float) -> Limits:
        """The rescue goes by the timeout of now, which may be another one than before the claim, and the operation's
        time runs from the claim; below a second the grace of the rescue covers it."""
        timeout_s = self._limits().timeout_s
        if claim.jobs and duration_s >= 1.0:
            timeout_s -= int(duration_s)
            if timeout_s <= 0:  # we were stopped in between: the rows may be somebody else's by now
                raise Unreachable(
                    f"the claim took {duration_s:.1f} s, longer than its rows are ours; they are given back"
                )
        return limits if timeout_s == limits.timeout_s else replace(limits, timeout_s=timeout_s)

    def _set_alarms(self, claim: Claim) -> None:
        if claim.next_due_s is not None:
            self._wake.ring_in(max(claim.next_due_s, 0.001))
        if claim.passed_over:
            self._wake.ring_in(self._locked_pause_s)
            self._locked_pause_s = min(self._locked_pause_s * 2, _LONGEST_LOCKED_PAUSE_S)

    async def _withdraw(self) -> None:
        if self._gate is not None:
            await self._gate.withdraw()
