"""Runs handlers as the engine does, claim by claim, but without waiting, and with nothing left to chance."""

from collections.abc import Sequence
from typing import Any

import anyio

from listener.config.live import LiveConfig, read_live_config
from listener.core.errors import ConfigError
from listener.core.events import Event
from listener.core.job import Job, Settle, Settlement
from listener.db.configuration import read_configuration
from listener.db.pool import Pool
from listener.db.queue import QueueTable, Settled
from listener.db.session import Session
from listener.engine.assignment import Assignment
from listener.engine.completer import Completer
from listener.engine.crew import Crew
from listener.engine.executor import Executor
from listener.engine.slots import Slots
from listener.library.assignments import assignments
from listener.library.listener import Listener
from listener.obs import log


async def drain(app: Listener, url: str, schema: str, names: Sequence[str]) -> list[Settlement]:
    """Work until nothing is due in these queues (default: all); returns what was settled, in order.

    Raises ConfigError, DatabaseError.
    """
    env = app.settings(DATABASE_URL=url, LISTENER_DIRECT_URL="", LISTENER_SCHEMA=schema)
    declarations = {declaration.name: declaration for declaration in app.declarations(env)}
    for name in names:
        if name not in declarations:
            raise ConfigError(f"drain: {name!r} is no queue of this listener; known: {', '.join(declarations)}")
    chosen = [declarations[name] for name in names or declarations]
    settled: list[Settlement] = []
    tables: list[_Noting] = []

    def noting(*arguments: Any, **options: Any) -> QueueTable:
        tables.append(_Noting(settled, *arguments, **options))
        return tables[-1]

    async with Pool(url, schema=schema, is_pooled=False, min_size=1, max_size=2) as pool:
        live = read_live_config((await read_configuration(pool)).values, None).config
        found = await assignments(pool, chosen, log.borrowed(), gateway=noting)
        session = await Session.open(url, schema=schema)  # the lease of the rows, as in a process
        try:
            async with anyio.create_task_group() as group:
                queues = [_Queue(*each, live, session.key) for each in zip(found, tables, strict=True)]
                for queue in queues:
                    group.start_soon(queue.completer.run)
                while any([await queue.drain() for queue in queues]):
                    pass  # a handler may have made work for a queue that was empty
                for queue in queues:
                    await queue.give_back()
                group.cancel_scope.cancel("drained")
        finally:
            await session.close()
    return settled


class _Noting(QueueTable):
    """Notes what was really written in `settled`."""

    def __init__(self, settled: list[Settlement], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.settled = settled

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        result = await super().settle(settlements)
        lost = [job.claim_id for job in result.lost]
        self.settled += [one for one in settlements if one.job.claim_id not in lost]
        return result


class _Queue:
    def __init__(self, assignment: Assignment, table: _Noting, live: LiveConfig, session_key: int) -> None:
        self._table = table
        self._limits = assignment.limits(live)
        self._session_key = session_key
        self._slots = Slots(lambda: 1)
        self._again: list[Settlement] = []
        self.completer = Completer(table, _ignore, on_reopened=_nothing, on_delayed=lambda _: None, on_room=_nothing)
        self._executor = Executor(
            table.queue.name,
            assignment.handler,
            self.completer,
            self._slots,
            _ignore,
            is_gated=False,
            is_releasing=lambda: True,
        )

    async def drain(self) -> bool:
        """Run what is due; True when there was anything."""
        has_run = False
        while True:
            claim = await self._table.claim(limit=self._limits.batch_size, session_key=self._session_key)
            if not claim.jobs:
                return has_run
            if jobs := [job for job in claim.jobs if not self._is_again(job)]:
                has_run = True
                async with Crew.gathered() as crew:
                    deadline_s = anyio.current_time() + self._limits.timeout_s
                    call = self._executor.prepare(crew, jobs, self._limits, deadline_s, _nothing)
                    self._executor.begin(call)
                await self.completer.flush()

    def _is_again(self, job: Job) -> bool:
        """Tell whether the job was put off in this drain and has come due meanwhile, and then keep it to the end."""
        put_off = next(
            (
                one
                for one in reversed(self._table.settled)
                if one.kind in (Settle.RETRY, Settle.SNOOZE)
                and (one.job.queue, one.job.id, one.job.revision) == (job.queue, job.id, job.revision)
            ),
            None,
        )
        if put_off is not None:
            self._again.append(Settlement(job=job, kind=Settle.SNOOZE, delay_s=put_off.delay_s))
        return put_off is not None

    async def give_back(self) -> None:
        """Put off again what came due before the end."""
        if self._again:
            await QueueTable.settle(self._table, self._again)


def _ignore(event: Event) -> None:
    """Nobody listens."""


def _nothing() -> None:
    """Nobody waits."""
