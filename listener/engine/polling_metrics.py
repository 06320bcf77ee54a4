"""Writes each queue's checks to `polling_metrics`, summed per second or, while nothing is found, longer, and deletes
what is old.

Never in the way of work: what the database does not take is reported and given up.
"""

from collections.abc import Callable, Mapping

import anyio

from listener.core.errors import DatabaseError
from listener.core.events import Checked, Event, MetricsCleaned, Publish, Trouble
from listener.core.retry import Backoff
from listener.core.tally import Tally
from listener.db.polling_metrics import PollingLog

WRITE_EVERY_S = 1.0
# Checks that found nothing: a row for each would be most of what an idle process writes.
SKIPPED_EVERY_S = 30.0
CLEAN_EVERY_S = 3600.0
_AGAIN = Backoff(base_s=1.0, cap_s=30.0)


class PollingMetrics:
    """Subscribes to checks. names: queue → the workflow's name in the table; others keep their own. is_ending: the
    process stops in good order, so `run`, when it is cancelled, writes what it has."""

    def __init__(
        self,
        log: PollingLog,
        publish: Publish,
        *,
        is_enabled: Callable[[], bool],
        names: Mapping[str, str],
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log = log
        self._publish = publish
        self._is_enabled = is_enabled
        self._names = names
        self._is_ending = is_ending
        self._tallies: dict[str, Tally] = {}
        self._has_some, self._has_work = anyio.Event(), anyio.Event()

    def on_event(self, event: Event) -> None:
        """Count a check; never raises."""
        if isinstance(event, Checked) and self._is_enabled():
            self._tallies.setdefault(event.queue, Tally()).add(event)
            self._has_some.set()
            if event.claimed:
                self._has_work.set()

    async def run(self) -> None:
        """Write and clean until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._write_on)
                group.start_soon(self._clean_on)
        finally:
            if self._is_ending():
                await self.flush()

    async def flush(self) -> bool:
        """Write what was counted; False when the database did not take it. Those rows are given up, because they may
        have been written all the same, and must not count twice."""
        self._has_some, self._has_work = anyio.Event(), anyio.Event()
        tallies, self._tallies = self._tallies, {}
        try:
            if tallies:
                with anyio.CancelScope(shield=True):  # who is cancelled here would lose them; a few seconds at most
                    await self._log.write({self._names.get(queue, queue): tally for queue, tally in tallies.items()})
        except DatabaseError as error:
            self._publish(Trouble(where="polling metrics", error=str(error), is_minor=True))
            return False
        return True

    async def _write_on(self) -> None:
        failures = 0
        while True:
            await self._has_some.wait()
            with anyio.move_on_after(SKIPPED_EVERY_S):
                await self._has_work.wait()
            failures = 0 if await self.flush() else failures + 1
            await anyio.sleep(max(WRITE_EVERY_S, _AGAIN.ceiling_s(failures) if failures else 0.0))

    async def _clean_on(self) -> None:
        while True:
            try:
                if count := await self._log.clean():
                    self._publish(MetricsCleaned(count=count))
            except DatabaseError as error:
                self._publish(Trouble(where="polling metrics clean-up", error=str(error)))
            await anyio.sleep(CLEAN_EVERY_S)
