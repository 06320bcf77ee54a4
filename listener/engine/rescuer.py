"""Gives back the rows of sessions that are gone."""

from collections.abc import Callable

from listener.core.events import Publish, Rescued
from listener.db.queue import QueueTable


def stale_s(operation_timeout_s: float) -> float:
    """Age at which a claim counts as stranded although its session lives: a handler is cancelled at the operation
    timeout and needs a moment to settle; a tenth of the timeout more, at least 2 s."""
    return operation_timeout_s + max(2.0, 0.1 * operation_timeout_s)


class Rescuer:
    """Looks over all queues that were added; idempotent, so any number of processes may do it at once."""

    def __init__(self, publish: Publish) -> None:
        self._tables: list[tuple[QueueTable, Callable[[], float]]] = []
        self._publish = publish

    def add(self, table: QueueTable, timeout_s: Callable[[], float]) -> None:
        """Look over this queue too; `timeout_s` gives the seconds that one of its handler calls may take now."""
        self._tables.append((table, timeout_s))

    async def run_once(self) -> int:
        """Rescue every queue's stranded rows; the database rings for them. Returns how many.

        Raises Unreachable, DatabaseError.
        """
        total = 0
        for table, timeout_s in self._tables:
            count = await table.rescue(stale_s=stale_s(timeout_s()))
            if count:
                self._publish(Rescued(queue=table.queue.name, count=count))
            total += count
        return total
