"""The handler calls under way in this process, for `/api/v1/operations`."""

import time
from dataclasses import dataclass

from listener.core import events as e


@dataclass(frozen=True, slots=True)
class Operation:
    """A running handler call. started_s: monotonic seconds."""

    id: str
    queue: str
    jobs: int
    started_s: float

    @property
    def running_s(self) -> float:
        """How long it has been running, in seconds."""
        return time.monotonic() - self.started_s


class Operations:
    """Follows the engine's events. Thousands a second begin and end between two questions, so a start is only kept."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[e.OperationStarted, float]] = {}

    def on_event(self, event: e.Event) -> None:
        """Note a start or an end; never raises."""
        if isinstance(event, e.OperationStarted):
            self._running[event.operation] = (event, time.monotonic())
        elif isinstance(event, e.OperationEnded):
            self._running.pop(event.operation, None)

    def running(self) -> list[Operation]:
        """Return what runs now, oldest first."""
        return [
            Operation(event.operation, event.queue, len(event.jobs), started_s)
            for event, started_s in self._running.values()
        ]
