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
    """Follows the engine's events."""

    def __init__(self) -> None:
        self._running: dict[str, Operation] = {}

    def on_event(self, event: e.Event) -> None:
        """Note a start or an end; never raises."""
        match event:
            case e.OperationStarted(operation=operation, queue=queue, jobs=jobs):
                self._running[operation] = Operation(operation, queue, jobs, time.monotonic())
            case e.OperationEnded(operation=operation):
                self._running.pop(operation, None)
            case _:
                pass

    def running(self) -> list[Operation]:
        """Return what runs now, oldest first."""
        return list(self._running.values())
