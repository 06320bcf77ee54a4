"""Keeps the schedule: inserts the next run when it is due. Every replica does, and one run comes of it; no leader."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import anyio

from listener.config.live import LiveConfig
from listener.core.errors import DatabaseError
from listener.core.events import Publish, Scheduled, Trouble
from listener.db.sync_runs import SyncRuns
from listener.workflows.sync.plan import DAILY_LOOKBACK_MINUTES

# A run that somebody else started moves the next one; and a look that failed is made again.
LOOK_EVERY_S, AGAIN_S = 60.0, 5.0


class Follows(Protocol):
    """The live configuration, as its holder gives it."""

    @property
    def live(self) -> LiveConfig:
        """What is in force."""

    def pause(self, seconds: Callable[[], float]) -> Awaitable[None]:
        """Wait for `seconds()`, by the value in force: a change counts at once."""


class Schedule:
    """The schedule of one account; a chore of the process."""

    def __init__(self, runs: SyncRuns, configuration: Follows, publish: Publish, *, queue: str) -> None:
        self._runs = runs
        self._configuration = configuration
        self._publish = publish
        self._queue = queue
        self._told: float | None = -1.0

    async def run(self) -> None:
        """Insert runs until cancelled."""
        while True:
            age_s = 0.0
            self._tell()
            try:
                if self._interval_s() is not None:
                    age_s = await self._look()
            except DatabaseError as error:
                self._publish(Trouble(where="sync schedule", error=str(error)))
                await anyio.sleep(AGAIN_S)
                continue
            await self._configuration.pause(partial(self._wait_s, age_s))

    async def _look(self) -> float:
        """Insert what is due; seconds since the last start."""
        interval_s = self._configuration.live.sync_interval
        due = await self._runs.schedule(interval_s=interval_s, wide_minutes=DAILY_LOOKBACK_MINUTES)
        for stray in due.strays:
            self._say(f"sync run {stray} was set to Processing by hand and nobody worked on it; it is Failed now")
        if due.planned_for is not None:
            self._say(f"sync run {due.run_id} was planned for {due.planned_for} and kept all others away; it runs now")
        # a run that is due and waits: it starts when it can, and its start is what counts then
        return 0.0 if due.age_s is None or due.age_s >= interval_s else due.age_s

    def _say(self, text: str) -> None:
        self._publish(Trouble(where="sync schedule", error=text))

    def _wait_s(self, age_s: float) -> float:
        """Zero ends the wait: the interval is over, or it is another one, or the workflow was switched."""
        interval_s = self._interval_s()
        if interval_s != self._told:
            return 0.0
        return LOOK_EVERY_S if interval_s is None else min(max(interval_s - age_s, 0.0), LOOK_EVERY_S)

    def _interval_s(self) -> float | None:
        live = self._configuration.live
        return float(live.sync_interval) if live.is_enabled(self._queue) else None

    def _tell(self) -> None:
        interval_s = self._interval_s()
        if interval_s != self._told:
            self._publish(Scheduled(queue=self._queue, interval_s=interval_s, is_start=self._told == -1.0))
            self._told = interval_s
