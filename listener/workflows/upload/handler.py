"""Uploads claimed orders to ShipStation: one call for up to 100 of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from listener.core.errors import Broken, Rejected, Unavailable
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Release, Retry
from listener.workflows.order import OrderFaults, parse_order
from listener.workflows.upload import plan

# ShipStation's cap for createorders.
MOST_ORDERS = 100


class Client(Protocol):
    """What the upload needs of `clients/shipstation`."""

    async def create_orders(self, content: bytes) -> Any:
        """Upsert orders."""

    async def accepts_orders(self) -> bool:
        """Ask with a call that creates nothing."""

    async def report_down(self, error: Exception) -> Unavailable:
        """Blame the API as a whole; returns what to raise."""


class WithdrawsPermit(Protocol):
    """The gate, for a batch that needs no call after all."""

    async def withdraw(self) -> None:
        """Give the reserved call back."""


@dataclass(frozen=True, slots=True)
class _Ready:
    position: int
    key: str
    body: dict[str, object]
    attempt: int


class Upload:
    """The handler of queue `upload`."""

    def __init__(self, client: Client, gate: WithdrawsPermit) -> None:
        self._client = client
        self._gate = gate

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Return one outcome per job. Raises nothing that a batch could not survive."""
        outcomes: dict[int, Outcome] = {}
        ready: dict[str, _Ready] = {}
        for position, job in enumerate(jobs):
            prepared = _prepare(position, job)
            if not isinstance(prepared, _Ready):
                outcomes[position] = prepared
            elif prepared.key in ready:  # only an adopted table can hold one order twice
                other = jobs[ready[prepared.key].position].id
                outcomes[position] = Fail(
                    f"order_key {prepared.key!r} is also that of row {other}; change order_number"
                )
            else:
                ready[prepared.key] = prepared
        if not ready:
            await self._gate.withdraw()
        try:
            await self._send(list(ready.values()), outcomes)
        except Unavailable as error:
            # what was answered before stays answered; the rest waits for the API, at no order's cost
            for position in range(len(jobs)):
                outcomes.setdefault(position, Release(str(error)))
        return [outcomes[position] for position in range(len(jobs))]

    async def _send(self, ready: list[_Ready], outcomes: dict[int, Outcome]) -> None:
        if not ready:
            return
        try:
            reply = await self._call(ready)
        except Rejected as error:
            if len(ready) == 1:
                outcomes[ready[0].position] = Fail(str(error))
                return
            await self._send_halves(ready, outcomes)
        except Broken as error:
            await self._find_broken(ready, outcomes, error)
        else:
            await self._read(ready, reply, outcomes)

    async def _find_broken(self, ready: list[_Ready], outcomes: dict[int, Outcome], error: Broken) -> None:
        """HTTP 500 is the API's fault or one order's: another call that goes through tells.

        Only orders that are tried again: a call without orders must tell, or they would pause the account for ever.
        Both kinds: the new ones first, so that an order that breaks every call costs two calls and not fifteen.
        New ones alone: one of them, drawn by lot. If that fails too, the API is down, and no order pays for it.
        """
        new = [order for order in ready if order.attempt <= 1]
        tried = [order for order in ready if order.attempt > 1]
        if len(ready) == 1 or not new:
            if not await self._client.accepts_orders():
                raise await self._client.report_down(error)
            await self._bisect_broken(ready, outcomes, error)
        elif tried:
            await self._send(new, outcomes)
            await self._bisect_broken(tried, outcomes)
        else:
            witness = random.choice(ready)
            try:
                await self._read([witness], await self._call([witness]), outcomes)
            except Rejected as refused:
                outcomes[witness.position] = Fail(str(refused))
            except Broken as again:
                raise await self._client.report_down(again) from again
            await self._bisect_broken([order for order in ready if order is not witness], outcomes)

    async def _bisect_broken(
        self, ready: list[_Ready], outcomes: dict[int, Outcome], error: Broken | None = None
    ) -> None:
        """The API works: find the orders that it stumbles over. error: what it answered to just these, if known."""
        if error is None:
            try:
                await self._read(ready, await self._call(ready), outcomes)
            except Rejected as refused:
                if len(ready) == 1:
                    outcomes[ready[0].position] = Fail(str(refused))
                else:
                    await self._send_halves(ready, outcomes)
            except Broken as broken:
                error = broken
        if error is None:
            return
        if len(ready) == 1:
            outcomes[ready[0].position] = Retry(str(error))
            return
        middle = len(ready) // 2
        await self._bisect_broken(ready[:middle], outcomes)
        await self._bisect_broken(ready[middle:], outcomes)

    async def _call(self, ready: list[_Ready]) -> Any:
        return await self._client.create_orders(plan.encode([order.body for order in ready]))

    async def _read(self, ready: list[_Ready], reply: Any, outcomes: dict[int, Outcome]) -> None:
        try:
            results = plan.read_results({order.key: order for order in ready}, reply)
        except plan.MalformedReply as error:  # JSON, but not theirs: the API as a whole talks nonsense
            raise await self._client.report_down(error) from error
        for order in ready:
            outcome = results[order.key]
            if isinstance(outcome, Done):  # 'now' is read by Postgres: the database's clock, not ours
                outcome = Done({**outcome.values, "uploaded_at": "now"})
            outcomes[order.position] = outcome

    async def _send_halves(self, ready: list[_Ready], outcomes: dict[int, Outcome]) -> None:
        middle = len(ready) // 2
        await self._send(ready[:middle], outcomes)
        await self._send(ready[middle:], outcomes)


def _prepare(position: int, job: Job) -> _Ready | Fail:
    number = (job.row["order_number"] or "").strip()
    faults = [] if number else ["order_number is missing; set it, ShipStation requires one"]
    try:
        order = parse_order(job.row["payload"])
    except OrderFaults as wrong:
        return Fail("\n".join([*faults, str(wrong)]))
    if faults:
        return Fail(faults[0])
    key = job.row["order_key"] or plan.order_key(job.row["source"], number)
    body = plan.to_shipstation(order, order_number=number, order_key=key)
    return _Ready(position, key, body, job.attempt)
