"""What a handler may say about a job. Values, not exceptions: an exception is a surprise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Done:
    """The work is done; `values` are written to the row's own columns in the same UPDATE."""

    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retry:
    """Again later, and it counts as an attempt. delay_s: None = exponential with full jitter."""

    error: str
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """Again in `delay_s` seconds; counts no attempt."""

    delay_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """Never again until the row's content changes or a person retries it."""

    error: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give the row back now; counts no attempt (shutdown, an outage of the API)."""

    reason: str = ""


Outcome: TypeAlias = Done | Retry | Snooze | Fail | Release
