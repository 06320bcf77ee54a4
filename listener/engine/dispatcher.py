"""Claims work for one queue: never more than has a slot or will in a moment, never before its gate allows a call."""

from collections.abc import Callable, Sequence
from enum import Enum

import anyio

from listener.core.budget import Gate, Refusal
from listener.core.errors import DatabaseError
from listener.core.events import Checked, LookSkipped, Publish, Trouble, Unannounced, Woke
from listener.core.job import Job
from listener.core.queue import Limits
from listener.db.queue import QueueTable
from listener.engine.bell import Bell
from listener.engine.claimer import Claimer
from listener.engine.crew import Crew
from listener.engine.executor import Executor
from listener.engine.slots import Slots
from listener.engine.survey import Survey
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
# These tell of rows that most likely stand behind the last claim's.
_MOSTLY_NEW = frozenset({"notify", "slot"})
# After these all rows are looked at unless that takes long; after any other wake, as when rows of the dead were given
# back, however long it takes.
_MAYBE_NEW = _MOSTLY_NEW | {"armed", "due", "poll"}
_BY_SLOT = frozenset({"slot"})
# After a full claim of so many rows this many are under way at once: while we read the reply of one, the server works
# on another (measured, no-op batches of 500: 1.15 times the jobs; claims of 30 rows only become smaller: 0.9 times).
_PLENTY, _AT_ONCE = 100, 2
# A row that a poll finds sooner than this after it became due: its notification may be on the way.
_UNANNOUNCED_AFTER_S = 1.0


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
        survey: Survey,
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
        self._survey = survey
        self._executor = executor
        self._slots = slots
        self._publish = publish
        self._gate = gate
        self._limits = limits
        self._poll_s = poll_s
        self._spares_writers = spares_writers
        self._bell: Bell | None = None
        self._claimer = Claimer(table, executor, slots, wake, publish, gate=gate, limits=limits)
        self._has_strays = self._was_quiet = self._wants_slot = self._has_plenty = False
        self._found: Found | None = None
        self._troubles = self._unheeded_rings = 0
        self._last_trouble = ""
        slots.on_freed(self.name, self.slot_freed)

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
        self._claimer.is_stopping = True
        self.wake.ring("stop")

    def hear(self) -> None:
        """A writer has rung: look. If we sleep by our bell, a claim is on its way before the loop has woken us."""
        is_calm = self._found is Found.NOTHING and not self._troubles and not self._has_strays
        if is_calm and self._bell is not None and self._bell.is_on and self.wake.is_asleep:
            limits = self._limits()
            if limits.enabled and (free := self._free(limits)):
                self._claimer.send(free, limits)
        self.wake.ring("notify")

    def reconfigured(self) -> None:
        """Our limits may have changed: look by the new ones."""
        self._claimer.held.heed_limits()
        self.wake.ring("config")

    def peers_changed(self) -> None:
        """A listener has come or gone: who sleeps may have lost its bell, so look, and ring on if there is no slot."""
        if self._bell is not None:
            self._bell.owes = True
        self.wake.ring("peer")

    def held(self) -> list[int]:
        """Claims whose rows are worked on here."""
        return self._claimer.held.claims()

    def asks_bell(self) -> bool:
        """Whether we sleep by another one's bell, or by none."""
        return self._bell is not None and not self._bell.is_on and self.hears()

    def suspect_strays(self) -> None:
        """Our session may hold rows that nobody here works on: ask with the next look. A poll wakes who is quiet."""
        self._has_strays = True

    async def run(self, session_key: int, crew: Crew, bell: Bell) -> None:
        """Look at every wake until stopped. Handler calls join the `crew`. Raises SessionLost."""
        self._bell, self._found = bell, None
        self._claimer.begin(session_key, crew)
        self.wake.ring("start")
        while not self._claimer.is_stopping:
            reasons = await self.wake.wait(self._poll_s)
            for reason in reasons:
                self._publish(Woke(queue=self.name, reason=reason))
            if reasons == {"poll"} and await self._has_nothing_to_do():
                continue
            try:
                # also in a queue that is never quiet, and so is never woken by the poll
                if self._has_strays and not self._claimer.has_sent:
                    bell.owes |= await self._claimer.release_strays()
                    self._has_strays = False
                self._found = await self._look(bell, reasons)
                self._troubles = 0
                await self._rest(bell, self._found)
            except DatabaseError as error:
                self._has_strays = True  # the claim may have been committed although its reply was lost
                self._publish(Trouble(where=f"{self.name} claim", error=str(error)))
                self._troubles, self._last_trouble = self._troubles + 1, str(error)
                if self._troubles == 1:
                    bell.owes = True  # they may be able to look; once, else they would tell us in turn, for ever
                self.wake.ring_in(min(_TROUBLE_CAP_S, _TROUBLE_BASE_S * 2.0 ** min(self._troubles - 1, 10)))
                await bell.call_others()
        bell.silence()
        await self._claimer.held.end()
        bell.owes = True  # what only we knew of, a retry or the look after arming, is theirs from now on
        await bell.call_others()

    async def _has_nothing_to_do(self) -> bool:
        """Ask the survey, at a poll, whether a look would find or mend anything; only then it is worth its statements.
        Whoever had work that it could not take, or trouble, looks for itself."""
        if self._found is not Found.NOTHING or self._troubles or not self._limits().enabled:
            return False
        try:
            todo, duration_s = await self._survey.ask(self.name, every_s=self._poll_s())
        except DatabaseError:  # told by the safety poll; whether it is this queue's own our look will show
            return False
        if todo.next_due_s == 0 or self._has_strays or (self.asks_bell() and not todo.has_bell):
            return False
        if todo.next_due_s is not None:
            self.wake.ring_in(max(todo.next_due_s, 0.001))
        self._publish(Checked(queue=self.name, claimed=0, waiting=0, duration_s=duration_s))
        return True

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

    async def _look(self, bell: Bell, reasons: frozenset[str]) -> Found:
        """Claim until nothing is due, no slot is free or the gate refuses."""
        self._was_quiet = self._found is Found.NOTHING and not self._claimer.has_left_some
        if reasons - _HEARD_BY_ALL and not (reasons == {"due"} and self._claimer.has_postponed):
            bell.has_news()
        if reasons != {"due"}:
            self._claimer.forget_locked()
        if reasons - _MOSTLY_NEW or ("notify" in reasons and not bell.is_on):
            # woken by another one's bell: the row is probably gone, and one claim must do
            self._claimer.start_over(spares=reasons <= _MAYBE_NEW)
        found: Found | None = None
        while found is None:
            found = await self._step(bell, reasons)
            reasons = _BY_SLOT
            if found is None and self._has_plenty:
                await self._rush(bell)
        return found

    async def _rush(self, bell: Bell) -> None:
        """Have several claims under way for as long as they come back full. How the look ends is not theirs to tell."""
        troubles: list[DatabaseError] = []
        is_over = False

        async def claims() -> None:
            nonlocal is_over
            while not is_over:
                try:
                    found = await self._step(bell, _BY_SLOT)
                except DatabaseError as error:  # the other claims end by themselves: cut, they would leave rows lying
                    troubles.append(error)
                    is_over = True
                else:
                    is_over = is_over or found is not None or not self._has_plenty

        async with anyio.create_task_group() as group:
            for _ in range(_AT_ONCE):
                group.start_soon(claims)
        self._has_plenty = False
        if troubles:
            raise troubles[0]

    async def _step(self, bell: Bell, reasons: frozenset[str]) -> Found | None:
        """Claim once; None = it was full, there may be more."""
        is_first = reasons != _BY_SLOT
        limits, free, most = self._limits(), 0, 0
        if not self._claimer.has_sent:  # what is on its way has its slots, and is ours whatever has changed
            if self._claimer.is_stopping:
                return Found.NO_SLOT
            if not limits.enabled:
                self._publish(LookSkipped(queue=self.name, interval_s=self._poll_s()))
                self._wants_slot = False
                self._slots.leave(self.name)
                return Found.SWITCHED_OFF
            free = self._free(limits)
            most = self._claimer.most(free, limits)
            self._wants_slot = most == 0
            if most == 0:
                if is_first and "notify" in reasons:
                    self._heed(bell, is_late=True)
                return Found.NO_SLOT
        claimed = await self._claimer.claim(free, most, limits, is_first=is_first)
        if isinstance(claimed, Refusal):
            self.wake.ring_in(claimed.wait_s)
            return Found.REFUSAL
        if claimed is None:
            return None
        self._heed(bell, is_late=self.wake.is_rung("notify"))
        self._has_plenty = claimed.is_full and len(claimed.jobs) >= _PLENTY and self._gate is None
        if claimed.jobs:
            bell.found_work()
        if is_first and reasons == {"poll"} and self.hears() and self._was_quiet:
            self._tell_unannounced(claimed.jobs, bell)
        if claimed.is_full or (claimed.is_partial and not self._claimer.postpones(claimed, is_asleep=bell.is_on)):
            return None
        return Found.NOTHING

    def _free(self, limits: Limits) -> int:
        return self._slots.ask(self.name, 0 if self._executor.is_behind else limits.concurrency)

    def _tell_unannounced(self, jobs: Sequence[Job], bell: Bell) -> None:
        if count := sum(job.due_for_s > _UNANNOUNCED_AFTER_S for job in jobs):
            bell.silence()  # another table may have its name by now, and that one's bell is off: turn it on anew
            self._publish(Unannounced(queue=self.name, count=count))

    def slot_freed(self) -> None:
        """There may be room for a call: a handler has ended, or its outcomes are written."""
        self._claimer.held.slot_freed()
        if self._wants_slot and self._claimer.held.is_short_of:
            self.wake.ring("slot")
