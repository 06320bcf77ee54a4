"""Forgets finished runs and webhooks after `retention_days`. Every replica does; two at once delete different rows."""

from collections.abc import Callable

import anyio
import anyio.lowlevel

from listener.core.errors import DatabaseError
from listener.core.events import Publish, Trouble
from listener.db.sync_runs import SyncRuns

LOOK_EVERY_S = 3_600.0


class Retention:
    """The clean-up of one account; a chore of the process. days: what the live configuration says."""

    def __init__(self, runs: SyncRuns, publish: Publish, *, days: Callable[[], int]) -> None:
        self._runs = runs
        self._days = days
        self._publish = publish

    async def run(self) -> None:
        """Clean at the start and every hour until cancelled."""
        while True:
            try:
                while await self._runs.clean(self._days()):
                    await anyio.lowlevel.checkpoint()
            except DatabaseError as error:
                self._publish(Trouble(where="sync clean-up", error=str(error)))
            await anyio.sleep(LOOK_EVERY_S)
