"""Gives back the rows of sessions that are gone, and what a living one has held for longer than a call may take."""

from collections.abc import Callable, Collection

from listener.core.events import Publish, Rescued
from listener.db.queue import QueueTable


class Rescuer:
    """Looks over all queues that were added; idempotent, so any number of processes may do it at once."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._queues: list[tuple[QueueTable, Callable[[], float]]] = []

    def add(self, table: QueueTable, timeout_s: Callable[[], float]) -> None:
        """Look over this queue too; `timeout_s` gives the seconds that one of its handler calls may take now."""
        self._queues.append((table, timeout_s))

    async def rescue(self, names: Collection[str] | None = None) -> int:
        """Rescue the stranded rows of the named queues, of all if None; the database rings for them. Returns how many.

        Raises Unreachable, DatabaseError.
        """
        total = 0
        for table, timeout_s in self._queues:
            if names is not None and table.queue.name not in names:
                continue
            count = await table.rescue(stale_s=stale_s(timeout_s()))
            if count:
                self._publish(Rescued(queue=table.queue.name, count=count))
            total += count
        return total


def stale_s(operation_timeout_s: float) -> float:
    """Age at which a claim counts as stranded although its session lives: a handler is cancelled at the operation
    timeout and needs a moment to settle; a tenth of the timeout more, at least 2 s."""
    return operation_timeout_s + max(2.0, 0.1 * operation_timeout_s)
