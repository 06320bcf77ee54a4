"""One account of a connector: reserves calls before rows are claimed, and tells the shared budget how they went.

A reservation that is not used at once lies in the pocket: a cancelled dispatcher or a database that is away must
neither lose a call nor, worse, the only probe of a paused connector.
"""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

import anyio

from listener.core.budget import Budget, Permit, RateHeaders, Refusal
from listener.core.errors import DatabaseError, Rejected, Unavailable
from listener.core.events import Publish, Trouble

# A permit belongs to its rate window; one that lay longer than this is exchanged for a fresh one.
FRESH_S = 1.0


class HasHeaders(Protocol):
    """A reply that knows what it said of the rate window."""

    @property
    def rate(self) -> RateHeaders:
        """The rate headers."""


R = TypeVar("R", bound=HasHeaders)


@dataclass(frozen=True, slots=True, eq=False)
class _Reserved:
    permit: Permit
    at_s: float


class Account:
    """A gate for the dispatcher and the way out for the client. Not for several tasks' probes at once: one pocket."""

    def __init__(self, budget: Budget, publish: Publish) -> None:
        self._budget = budget
        self._publish = publish
        self._pocket: deque[_Reserved] = deque()

    async def admit(self) -> Refusal | None:
        """Reserve one call; None = granted. Raises DatabaseError."""
        for held in [held for held in self._pocket if time.monotonic() - held.at_s > FRESH_S]:
            if held in self._pocket:  # no call took it while the one before was given back
                self._pocket.remove(held)
                await self._give_back(held)
        answer = await self._budget.take()
        if isinstance(answer, Refusal):
            return answer
        self._pocket.append(_Reserved(answer, time.monotonic()))
        return None

    async def withdraw(self) -> None:
        """Give one reservation back; if the database is away it stays in the pocket for later."""
        if self._pocket:
            with suppress(DatabaseError):
                await self._give_back(self._pocket.pop())

    async def close(self) -> None:
        """Give everything back, so that a probe is free for the other processes."""
        with anyio.CancelScope(shield=True), suppress(DatabaseError):
            while self._pocket:
                await self._give_back(self._pocket.popleft())

    async def _give_back(self, held: _Reserved) -> None:
        """Give back what the caller has taken out of the pocket: no call may use it meanwhile."""
        try:
            await self._budget.give_back(held.permit)
        except BaseException:  # cancelled before it was told, or the database is away
            self._pocket.append(held)
            raise

    async def call(self, send: Callable[[], Awaitable[R]], *, is_doubtful: bool = False) -> R:
        """Make one call with a reserved permit, or wait for one. is_doubtful: an outage may be this address's alone, so
        it is not reported; the caller finds out by another call.

        Raises Unavailable (the account is paused for everybody, or no call is left in time), Rejected, Broken (not
        reported: the caller finds out by another call whose fault it is, see `report_down`).
        """
        permit = await self._permit()
        try:
            reply = await send()
        except Unavailable as error:
            if is_doubtful and error.reason != "throttled":
                self._keep_probe(permit)
            else:
                await self._report_unavailable(permit, error)
            raise
        except Rejected:
            await self._report_ok(permit, RateHeaders())
            raise
        except BaseException:  # Broken: the call that follows is still the probe; cancelled: nobody knows yet
            self._keep_probe(permit)
            raise
        await self._report_ok(permit, reply.rate)
        return reply

    async def call_elsewhere(self, send: Callable[[], Awaitable[R]]) -> R:
        """Make one call to another host of the vendor: it is paid for, and however it ends says nothing of the
        account's own. Raises as `call` does; while the account is paused the probe is not for it.
        """
        permit = await self._permit()
        if permit.probe:
            self._keep_probe(permit)
            raise Unavailable("paused: the one call that finds out is for the account's own host", reason="outage")
        return await send()

    async def report_down(self, error: Exception) -> Unavailable:
        """The API as a whole is at fault: pause the account and return what to raise."""
        is_probing = bool(self._pocket) and self._pocket[0].permit.probe
        permit = self._pocket.popleft().permit if is_probing else Permit(window=-1)
        down = Unavailable(str(error), reason="outage")
        await self._report_unavailable(permit, down)
        return down

    # Shielded: a caller that is cancelled after the reply must not take the only probe with it.

    async def _report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._budget.report_ok(permit, headers)
        except DatabaseError as error:  # the API did answer: that result must not be lost over the book-keeping
            self._publish(Trouble(where="api budget", error=str(error)))
            self._keep_probe(permit)

    async def _report_unavailable(self, permit: Permit, why: Unavailable) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await self._budget.report_unavailable(permit, reason=why.reason, message=str(why), wait_s=why.wait_s)
        except DatabaseError as error:
            self._publish(Trouble(where="api budget", error=str(error)))
            self._keep_probe(permit)

    def _keep_probe(self, permit: Permit) -> None:
        if permit.probe:  # first in the pocket: the next call is the probe's second half
            self._pocket.appendleft(_Reserved(permit, time.monotonic()))

    async def _permit(self) -> Permit:
        if self._pocket:
            return self._pocket.popleft().permit
        while True:
            answer = await self._budget.take()
            if isinstance(answer, Permit):
                return answer
            if answer.reason != "budget":
                raise Unavailable(f"paused: {answer.reason}", reason=answer.reason, wait_s=answer.wait_s)
            if anyio.current_time() + answer.wait_s >= anyio.current_effective_deadline():
                raise Unavailable("no call is left in this rate window", reason="budget", wait_s=answer.wait_s)
            await anyio.sleep(answer.wait_s)
