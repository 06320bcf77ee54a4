"""What a check has found, and what every check is given."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from listener.config.environment import Environment
from listener.core.queue import Queue
from listener.db.doctor import Patient

#: unknown: the check itself could not be made; nobody may take that for ok.
Verdict = Literal["ok", "warn", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person. seen: what is the case. advice: what to do; empty when nothing is."""

    verdict: Verdict
    seen: str
    advice: str = ""
    check: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a check may look at.

    patient: the database, by the session's address. pool_end: the same by the pool's, one object where there is one
    address. queues: ours and the attached ones. long_s: seconds after which an open transaction or a waiting row is too
    old. replicas: processes that are meant to run. clock: seconds since 1970 on this machine.
    """

    env: Environment
    patient: Patient
    pool_end: Patient
    queues: Sequence[Queue] = ()
    long_s: float = 300.0
    replicas: int = 1
    clock: Callable[[], float] = field(default=time.time)


Check: TypeAlias = Callable[[Case], Awaitable[list[Finding]]]


def ok(seen: str) -> Finding:
    """Nothing to do."""
    return Finding("ok", seen)


def warn(seen: str, advice: str) -> Finding:
    """It works, and will cost somebody something."""
    return Finding("warn", seen, advice)


def fail(seen: str, advice: str) -> Finding:
    """It does not work, or orders wait for it."""
    return Finding("fail", seen, advice)


def several(count: int, noun: str) -> str:
    """Write a number with its noun: `1 row`, `2 rows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
