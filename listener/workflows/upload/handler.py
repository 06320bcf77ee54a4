"""Uploads claimed orders to ShipStation: one call for up to 100 of them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from listener.core.errors import Broken, Rejected, Unavailable
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Release, Retry
from listener.core.queue import Queue
from listener.workflows.order import OrderFaults, parse_order
from listener.workflows.upload import plan

UPLOAD = Queue(
    name="upload",
    table="orders_inbox",
    done_word="Uploaded",
    noun="orders",
    columns=("source", "order_number", "order_key", "payload", "shipstation_order_id"),
    results=(("shipstation_order_id", "text"), ("order_key", "text"), ("uploaded_at", "timestamptz")),
)
# ShipStation's cap for createorders.
MOST_ORDERS = 100


class Client(Protocol):
    """What the upload needs of `clients/shipstation`."""

    async def create_orders(self, content: bytes) -> Any:
        """Upsert orders."""

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
            reply = await self._client.create_orders(plan.encode([order.body for order in ready]))
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
        """HTTP 500 is the API's fault or one order's. One call with one order tells: if that fails too, it is down."""
        if len(ready) == 1:
            raise await self._client.report_down(error)
        witness = random.choice(ready)
        others = [order for order in ready if order is not witness]
        await self._send([witness], outcomes)
        await self._bisect_broken(others, outcomes)

    async def _bisect_broken(self, ready: list[_Ready], outcomes: dict[int, Outcome]) -> None:
        try:
            reply = await self._client.create_orders(plan.encode([order.body for order in ready]))
        except Rejected:
            await self._send_halves(ready, outcomes)
        except Broken as error:
            if len(ready) == 1:  # others went through: this order is what ShipStation stumbles over
                outcomes[ready[0].position] = Retry(str(error))
                return
            middle = len(ready) // 2
            await self._bisect_broken(ready[:middle], outcomes)
            await self._bisect_broken(ready[middle:], outcomes)
        else:
            await self._read(ready, reply, outcomes)

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
    number = job.row["order_number"]
    if not number:
        return Fail("order_number is missing; set it, ShipStation requires one")
    try:
        order = parse_order(job.row["payload"])
    except OrderFaults as faults:
        return Fail(str(faults))
    key = job.row["order_key"] or plan.order_key(job.row["source"], number)
    body = plan.to_shipstation(
        order, order_number=number, order_key=key, shipstation_order_id=job.row["shipstation_order_id"]
    )
    return _Ready(position, key, body)
