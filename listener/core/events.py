"""What happens, as values. The engine and the clients publish; logs and metrics subscribe; neither knows the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from listener.core.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Woke:
    """A dispatcher woke. reason: notify, call, poll, due, slot, start, armed, peer, …"""

    queue: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """The session heard the bell of a queue. by: writer or listener."""

    queue: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BellArmed:
    """The doorbell is on, by us or by another listener. duration_s: since we first tried."""

    queue: str
    is_ours: bool
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unannounced:
    """The safety poll found rows that had been due for a while, and no bell had told of them."""

    queue: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One look at a queue. waiting: due rows seen, the claimed ones included (None = not counted this time)."""

    queue: str
    claimed: int
    waiting: int | None
    duration_s: float


# The next two come with every call: they are not frozen, which would make each 0.5 µs dearer (measured).
@dataclass(slots=True, kw_only=True)
class OperationStarted:
    """A handler call begins. active: calls under way in this process, with this one."""

    queue: str
    operation: str
    active: int
    jobs: Sequence[Job]


@dataclass(slots=True, kw_only=True)
class OperationEnded:
    """A handler call ended. result: completed, released, failed, timeout, cancelled. error: for a person, or None."""

    queue: str
    operation: str
    active: int
    result: str
    duration_s: float
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Outcomes were written. outcomes: settle word → rows. lost: results dropped because the claim was gone."""

    queue: str
    outcomes: dict[str, int]
    lost: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed:
    """A row went to `Failed`, or a retry was noted; one event a row so that a person finds it in the log."""

    queue: str
    id: str
    label: str | None = None
    outcome: str
    attempt: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """Rows were given back whose session is gone or whose time ran out."""

    queue: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileImported:
    """The orders of a file were committed. found: orders in it; the others: what became of them."""

    name: str
    found: int
    inserted: int
    updated: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerGone:
    """The session before ours in the ring has ended: its process has stopped, died or lost it."""

    session: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    """The lease is held. recovered_s: seconds since the former session was lost, None at the first one."""

    key: int
    backend_pid: int
    recovered_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed:
    """The lease is gone. retry_s: seconds until the next try to connect, None = we are stopping."""

    reason: str
    retry_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCalled:
    """One HTTP call to an outside API. status: the HTTP status or a word for the transport's failure."""

    connector: str
    account: str
    method: str
    path: str
    status: str
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorPaused:
    """The account is paused for all replicas. for_s: seconds until the probe."""

    connector: str
    account: str
    reason: str
    message: str
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorResumed:
    """The probe went well."""

    connector: str
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigLoaded:
    """Live configuration was read. version: number of the newest change. invalid, missing, unknown: key → a sentence.
    changes: key → the value in force before and now."""

    version: int
    invalid: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    changes: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMode:
    """How a queue works from now on: at the start, and after each change. interval_s: between polls."""

    queue: str
    is_enabled: bool
    fast_polling: bool
    interval_s: float
    is_start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LookSkipped:
    """A disabled queue was not looked at. interval_s: until the next time."""

    queue: str
    interval_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsCleaned:
    """Old rows of `polling_metrics` were deleted."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """Syncs are inserted by a schedule from now on, or by another one than before. interval_s: between two starts;
    None = none are, because the workflow is off."""

    queue: str
    interval_s: float | None
    is_start: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleEnded:
    """One sync has read what it was asked for, or as much as it may. stats: its figures."""

    connector: str
    account: str
    reason: str
    stats: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """Shutdown: stage 1 waits for running handlers, stage 2 cancels them."""

    stage: int
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something failed that the engine survives (a poll, a settle that is tried again).
    is_minor: no work waits for it."""

    where: str
    error: str
    is_minor: bool = False


Event: TypeAlias = (
    Woke
    | Rung
    | BellArmed
    | Unannounced
    | Checked
    | OperationStarted
    | OperationEnded
    | Settled
    | JobFailed
    | Rescued
    | FileImported
    | PeerGone
    | SessionOpened
    | SessionClosed
    | ApiCalled
    | ConnectorPaused
    | ConnectorResumed
    | ConfigLoaded
    | QueueMode
    | LookSkipped
    | MetricsCleaned
    | Scheduled
    | CycleEnded
    | Stopping
    | Trouble
)

Publish: TypeAlias = Callable[[Event], None]


class Bus:
    """Hands each event to its subscribers, in order, in the publisher's own task."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[Publish, tuple[type[Event], ...]]] = []
        self._of: dict[type[Event], list[Publish]] = {}

    def subscribe(self, subscriber: Publish, *kinds: type[Event]) -> None:
        """Add a subscriber for these kinds of events, without any for all; it must not raise and must not block."""
        self._subscribers.append((subscriber, kinds))
        self._of.clear()

    def publish(self, event: Event) -> None:
        """Tell the event's subscribers."""
        kind = type(event)
        if kind not in self._of:
            self._of[kind] = [tell for tell, kinds in self._subscribers if not kinds or kind in kinds]
        for subscriber in self._of[kind]:
            subscriber(event)
