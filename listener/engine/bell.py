"""The doorbell of one queue: writers notify only while it is on, that is while some session holds its exclusive lock.

Whoever goes to sleep turns it on first, and looks once more before it sleeps. Whoever is kept busy turns it off, and
has to look again by itself, or, when it has no free slot, to ring once for the others. `tests/model/doorbell.py` walks
through every interleaving of these rules.
"""

from collections.abc import Awaitable, Callable

import anyio

from listener.core.events import BellArmed, Publish
from listener.db.queue import QueueTable
from listener.db.session import Session

# Writers in flight keep the lock from us; their commits are milliseconds away, or minutes.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.25


class Bell:
    """One queue's bell, for the life of one session. is_alone: there is no other listener that could help.

    is_on: we hold it. owes: the others may sleep without a bell because of us.
    """

    def __init__(self, table: QueueTable, session: Session, publish: Publish, *, is_alone: Callable[[], bool]) -> None:
        self.is_on = False
        self.owes = False
        self._table = table
        self._session = session
        self._publish = publish
        self._is_alone = is_alone
        self._has_rung = False
        self._pause_s = _FIRST_PAUSE_S
        self._arming_since: float | None = None

    async def arm(self, *, has_looked: bool) -> float | None:
        """Turn it on after a look that found nothing; returns the seconds until the next look, None = sleep.

        0.0 = it is on from now on, and what was committed before is found by one more look. Not has_looked = we have
        no slot: that look is the others', so they are owed a ring. Raises SessionLost.
        """
        if self._arming_since is None:
            self._arming_since = anyio.current_time()
        state = await self._table.arm(self._session)
        if state == "busy":
            pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
            return pause_s
        self.is_on = state == "held"
        if self.is_on or has_looked:
            self.owes = not has_looked
        self._publish(
            BellArmed(
                queue=self._table.queue.name, is_ours=self.is_on, duration_s=anyio.current_time() - self._arming_since
            )
        )
        self._arming_since = None
        self._pause_s = _FIRST_PAUSE_S
        return 0.0 if self.is_on else None

    def found_nothing(self) -> None:
        """A look found nothing that is due: the next time that we have no slot, the others are told anew."""
        self._has_rung = False

    def has_news(self) -> None:
        """We were woken by what the others did not hear: should we have no slot, they are told anew."""
        self._has_rung = False

    def found_work(self) -> None:
        """A look found rows: writers who are in flight commit soon."""
        self._pause_s = _FIRST_PAUSE_S

    def silence(self) -> None:
        """Turn it off: we are kept busy and look by ourselves."""
        if self.is_on:
            self._table.silence(self._session)
            self.is_on = False
            self.owes = True

    async def call_others(self, has_more: Callable[[], Awaitable[int]] | None = None) -> None:
        """We cannot look, or have no slot: ring once, if we owe it or if `has_more` says that rows wait.
        Raises SessionLost."""
        if self._is_alone():
            return
        if self.owes or (has_more is not None and not self._has_rung and await has_more()):
            self.owes, self._has_rung = False, True
            await self._table.ring(self._session)
