"""What a process is told to work on; `process.py` makes a dispatcher and its parts of each."""

from collections.abc import Callable
from dataclasses import dataclass

from listener.config.live import LiveConfig
from listener.core.budget import Gate
from listener.core.queue import Limits
from listener.db.queue import QueueTable
from listener.engine.executor import Handler


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A queue, and how this process works on it. limits: what the live configuration means for it."""

    table: QueueTable
    handler: Handler
    limits: Callable[[LiveConfig], Limits]
    gate: Gate | None = None
