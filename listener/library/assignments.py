"""From declarations to what a process works on: the tables as the database has them, the functions as handlers."""

from collections.abc import Callable, Sequence
from typing import Any

from listener.core.errors import ConfigError, ListenerError
from listener.core.job import Job
from listener.db.attached import read_attached
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.engine.assignment import Assignment
from listener.library.calls import Calls
from listener.library.declaration import Declaration
from listener.library.threads import Threads


async def assignments(
    pool: Pool, declarations: Sequence[Declaration], log: Any, *, gateway: Callable[..., QueueTable] = QueueTable
) -> list[Assignment]:
    """Find the declared tables in the database; each is reached through a `gateway` of its own.

    Raises ConfigError with every problem; Unreachable, DatabaseError.
    """
    found: list[Assignment] = []
    problems: list[str] = []
    for declaration in declarations:
        try:
            attached = await read_attached(pool, declaration.name)
            queue = declaration.queue(attached)
            table = gateway(pool, queue, key_type=attached.key_type, key_is_text=attached.key_is_text)
        except ConfigError as error:
            problems.append(str(error))
            continue
        found.append(Assignment(table=table, handler=_calls(declaration, log), limits=declaration.limits))
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _calls(declaration: Declaration, log: Any) -> Calls:
    def note(error: BaseException, jobs: Sequence[Job[Any]]) -> None:
        if not isinstance(error, ListenerError):
            ids, attempts = [job.id for job in jobs], [job.attempt for job in jobs]
            log.warning("Handler raised", queue=declaration.name, ids=ids, attempts=attempts, exc_info=error)

    return Calls(
        declaration.function,
        is_batch=declaration.batch_size is not None,
        model=declaration.model,
        results=frozenset(declaration.results),
        threads=None if declaration.is_async else Threads(declaration.concurrency),
        on_surprise=note,
    )
