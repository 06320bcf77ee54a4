"""Calls left for one API account, shared by all replicas. The account's row in `api_budgets` is the truth."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The right to make one call.

    window: number of the rate window it was taken from; a reply is only compared with its own window.
    probe: the connector is paused and this call finds out whether it is back; only one such permit exists at a time.
    """

    window: int
    probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No call now: look again in `wait_s` seconds, because of `reason` (``budget``, ``outage``, ``throttled``, …)."""

    wait_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateHeaders:
    """What a reply said of the rate window; None = the header was not there. reset_s: seconds until the next window."""

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None


class Budget(Protocol):
    """One account's budget; implemented over Postgres by `db/budgets.py`."""

    async def take(self) -> Permit | Refusal:
        """Reserve one call."""

    async def give_back(self, permit: Permit) -> None:
        """The reserved call was not made."""

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        """The API answered: correct the window by its headers and end a pause."""

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None:
        """The API as a whole failed: pause the account for all replicas."""


class Gate(Protocol):
    """What the dispatcher asks before it claims a batch; an account of a connector is one."""

    async def admit(self) -> Refusal | None:
        """Reserve what one batch needs; None = go on."""

    async def withdraw(self) -> None:
        """The batch did not come about: give the reservation back."""
