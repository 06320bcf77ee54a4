"""A sync without the engine: a sandbox, a migrated database, and the handler between them, one run at a time."""

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from conftest import Database
from queues import SESSION, open_pool
from sandbox.server import Client, order, serving

from listener.clients.shipstation.client import ShipStation
from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.events import Event
from listener.core.job import Job, Settlement, settlement
from listener.core.outcome import Outcome
from listener.core.retry import Backoff
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.sync_runs import SyncRuns
from listener.db.sync_state import SyncState
from listener.workflows.queues import SYNC
from listener.workflows.sync.calls import Client as ListClient
from listener.workflows.sync.handler import Sync

ACCOUNT = "default"
#: What sync brings back to a row of the inbox.
BROUGHT = ("fulfillment_status", "tracking_number", "carrier_code", "shipped_at")


class NoBudget:
    """A budget without a limit, which remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def take(self) -> Permit | Refusal:
        return Permit(window=1)

    async def give_back(self, permit: Permit) -> None:
        pass

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        self.told.append("ok")

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None:
        self.told.append(reason)


class Station:
    """`sync` runs the handler once, as the engine would. client: the handler's way out; tests put theirs around it."""

    def __init__(
        self, database: Database, api: Client, pool: Pool, shipstation: ShipStation, account: str = ACCOUNT
    ) -> None:
        self.account = account
        self.pool = pool
        self.database = database
        self.api = api
        self.client: ListClient = shipstation
        self.shipstation = shipstation
        self.budget: NoBudget
        self.events: list[Event] = []
        self.most_calls = 10_000
        self.runs = SyncRuns(pool, connector="shipstation", account=account)
        self.state = SyncState(pool, account=account)
        self.table = QueueTable(pool, SYNC)

    def upload(self, *numbers: str, **changes: Any) -> None:
        """Orders that were uploaded: in the inbox and at ShipStation."""
        self.insert(*numbers)
        for start in range(0, len(numbers), 100):
            self.api.create(*(order(number, **changes) for number in numbers[start : start + 100]))

    def insert(self, *numbers: str) -> None:
        """Orders of the inbox that count as uploaded."""
        self.database.execute(
            "INSERT INTO orders_inbox (source, order_number, payload, status)"
            " SELECT 'shop', n, '{}', 'Uploaded' FROM unnest(%s::text[]) AS n",
            [list(numbers)],
        )

    async def claim(self, reason: str = "manual", **params: Any) -> Job:
        """Insert a run, or take the one that waits, whenever it is due, and claim it."""
        self.database.execute(
            "INSERT INTO sync_runs (account, reason, params) VALUES (%s, %s, %s) ON CONFLICT (connector, account)"
            " WHERE status = 'Pending' DO UPDATE SET scheduled_at = now()",
            [self.account, reason, json.dumps(params)],
        )
        return (await self.table.claim(limit=1, session_key=SESSION)).jobs[0]

    def handler(self) -> Sync:
        return Sync(
            self.client,
            self.shipstation.account,
            self.runs,
            self.state,
            self.events.append,
            account=self.account,
            base_url=f"http://{self.api.address[0]}:{self.api.address[1]}",
            most_calls=lambda: self.most_calls,
        )

    async def settle(self, job: Job, outcome: Outcome) -> Settlement:
        written = settlement(job, outcome, max_attempts=10, backoff=Backoff(), jitter=0.0)
        await self.table.settle([written])
        return written

    async def run(self, reason: str = "manual", **params: Any) -> Outcome:
        """One run, from its row to its settle; how it came out."""
        job = await self.claim(reason, **params)
        (outcome,) = await self.handler()([job])
        await self.settle(job, outcome)
        return outcome

    async def sync(self, reason: str = "manual", **params: Any) -> Mapping[str, Any]:
        """A run that must succeed; its figures."""
        await self.run(reason, **params)
        [(status, stats, error)] = self.database.execute(
            "SELECT status, stats, last_error FROM sync_runs ORDER BY id DESC LIMIT 1"
        )
        assert status == "Succeeded", error
        return dict(stats)

    def row(self, number: str) -> dict[str, Any]:
        """What sync brought back to one row."""
        [values] = self.database.execute(
            f"SELECT {', '.join(BROUGHT)} FROM orders_inbox WHERE order_number = %s", [number]
        )
        return dict(zip(BROUGHT, values, strict=True))

    def read(self) -> set[str]:
        """The orders whose state has come back."""
        rows = self.database.execute("SELECT order_number FROM orders_inbox WHERE fulfillment_status IS NOT NULL")
        return {number for (number,) in rows}

    def marks(self) -> dict[str, Any]:
        """List → watermark."""
        rows = self.database.execute(
            "SELECT workflow, watermark FROM polling_state"
            " WHERE account = %s AND starts_with(workflow, 'shipstation ')",
            [self.account],
        )
        return {workflow.removeprefix("shipstation "): at for workflow, at in rows}

    def successor(self) -> "Station":
        """The same shop after its key was exchanged: another account, which knows nothing yet."""
        return Station(self.database, self.api, self.pool, self.shipstation, account=f"{self.account}, a new key")

    def calls(self) -> list[str]:
        """Method and path of each call so far."""
        requests: Sequence[Any] = self.api.control("GET", "requests?last=100000")["requests"]
        return [f"{each['method']} {each['path']}" for each in requests]


@asynccontextmanager
async def station(database: Database, api: Client) -> AsyncIterator[Station]:
    """A station of the test's own."""
    budget = NoBudget()
    shipstation = ShipStation(
        f"http://{api.address[0]}:{api.address[1]}",
        key="sandbox-key",
        secret="sandbox-secret",
        timeout_s=30.0,
        budget=budget,
        publish=lambda _event: None,
    )
    async with open_pool(database) as pool, shipstation as client:
        built = Station(database, api, pool, client)
        built.budget = budget
        yield built


@pytest.fixture
def api() -> Iterator[Client]:
    """A sandbox of the test's own; imported, with `shop`, by the modules that run a sync."""
    with serving(seed=1) as api:
        yield api


@pytest.fixture
async def shop(database: Database, api: Client) -> AsyncIterator[Station]:
    """A station between `database` and `api`."""
    async with station(database, api) as shop:
        yield shop
