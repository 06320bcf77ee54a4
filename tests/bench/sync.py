"""How fast a sync brings back many changed orders, what limits it, and how long a webhook takes.

    .venv/bin/python -m bench.sync              (from the folder tests/)

A private PostgreSQL with fsync on and the sandbox in a process of its own. A tenth of the orders first, then all: time,
statements and memory by their number. Beside it the least that a script would do in the same run: read the same pages
and write each one's states with one UPDATE, without links, parcels, watermark or fence. Prints a table and writes it as
JSON to the file given by --json.
"""

import argparse
import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, Self
from urllib.parse import urlencode

import anyio
import psycopg
import uvicorn

from bench.upload import environ, serving
from listener.clients.http import Raw
from listener.clients.shipstation.client import ShipStation
from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.outcome import Done
from listener.db.embedded import Cluster
from listener.db.migrate import migrate
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.sync_runs import SyncRuns
from listener.db.sync_state import Stored, SyncState
from listener.sandbox.shipstation import SandboxSettings, build
from listener.workflows.queues import SYNC
from listener.workflows.sync.handler import Sync

KEY, SECRET, WEBHOOK = "sandbox-key", "sandbox-secret", "bench-webhook-secret"
FILL = """INSERT INTO orders_inbox (source, order_number, payload, status)
SELECT 'shop', n::text, '{}', 'Uploaded' FROM generate_series(1, %s) AS n"""
BARE = """UPDATE orders_inbox AS q SET fulfillment_status = told.word
FROM jsonb_to_recordset(%s::jsonb) AS told (key text, word text) WHERE q.order_key = told.key"""
#: Records a second that ShipStation gives at most: 40 calls a minute, 500 of them a page.
ALLOWED = 40 * 500 / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--orders", type=int, default=100_000, help="changed orders")
    parser.add_argument("--webhooks", type=int, default=100, help="webhooks, one at a time")
    parser.add_argument("--serve", type=int, metavar="PORT", help="(internal) be the sandbox")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.orders)
        return
    figures: dict[str, Any] = {}
    few = max(options.orders // 10, 1)
    with (
        tempfile.TemporaryDirectory(prefix="listener-bench-") as folder,
        Cluster(bin_dir=options.postgres, data_dir=Path(folder) / "data") as cluster,
    ):
        with sandbox(few) as address, database(cluster, "few", few) as url:
            figures["few"] = anyio.run(measure_sync, url, address)
        with sandbox(options.orders) as address:
            with database(cluster, "many", options.orders) as url:
                figures["many"] = anyio.run(measure_sync, url, address)
            with database(cluster, "bare", options.orders) as url:
                figures["bare"] = measure_bare(url, address)
        with sandbox(options.webhooks) as address, database(cluster, "hooks", options.webhooks) as url:
            figures["webhook_ms"] = measure_webhooks(url, address, options.webhooks)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


class Unlimited:
    """A budget without a limit and without a database."""

    async def take(self) -> Permit | Refusal:
        return Permit(window=1)

    async def give_back(self, permit: Permit) -> None: ...

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None: ...

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None: ...


class Counted(SyncState):
    """Counts the statements and watches the memory."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.statements = 0
        self.first_mib = 0.0
        self.stored_at: list[float] = []

    async def store(self, *args: Any, **more: Any) -> Stored:
        stored = await super().store(*args, **more)
        self.first_mib = self.first_mib or peak_mib()
        self.stored_at.append(time.perf_counter())
        return stored

    async def _ask(self, *args: Any) -> list[dict[str, Any]]:
        self.statements += 1
        return await super()._ask(*args)


class Clocked(ShipStation):
    """Adds up the time that the API takes: from the request to the last byte of the reply."""

    away_s = 0.0

    async def __aenter__(self) -> Self:
        request = self._http.request

        async def timed(*args: Any, **more: Any) -> Raw:
            started = time.perf_counter()
            try:
                return await request(*args, **more)
            finally:
                self.away_s += time.perf_counter() - started

        self._http.request = timed  # type: ignore[method-assign]
        return await super().__aenter__()


async def measure_sync(url: str, address: str) -> dict[str, float]:
    """One whole run: rows per second, and the same without the time that the API took."""
    client = Clocked(address, key=KEY, secret=SECRET, timeout_s=60.0, budget=Unlimited(), publish=lambda _event: None)
    async with client, Pool(url, schema="public", is_pooled=False, min_size=1, max_size=2) as pool:
        state, queue = Counted(pool, account="default"), QueueTable(pool, SYNC)
        runs = SyncRuns(pool, connector="shipstation", account="default")
        sync = Sync(
            client, client.account, runs, state, lambda _event: None, account="default", base_url=address,
            most_calls=lambda: 10**6,
        )  # fmt: skip
        await runs.request({})
        (job,) = (await queue.claim(limit=1, session_key=7)).jobs
        started = time.perf_counter()
        (outcome,) = await sync([job])
        whole_s = time.perf_counter() - started
    assert isinstance(outcome, Done), outcome
    stats, tenth = outcome.values["stats"], max(len(state.stored_at) // 10, 1)
    assert stats["complete"], stats
    return {
        "orders": stats["rows"], "calls": stats["calls"], "rows_per_s": stats["rows"] / whole_s,
        "own_rows_per_s": stats["rows"] / (whole_s - client.away_s),
        "own_ms_a_page": 1000 * (whole_s - client.away_s) / stats["calls"],
        "away_ms_a_page": 1000 * client.away_s / stats["calls"],
        "statements": state.statements, "statements_a_page": state.statements / stats["calls"],
        "first_tenth_s": state.stored_at[tenth - 1] - started,
        "last_tenth_s": state.stored_at[-1] - state.stored_at[-1 - tenth],
        "first_page_mib": state.first_mib, "peak_mib": peak_mib(),
    }  # fmt: skip


def measure_bare(url: str, address: str) -> dict[str, float]:
    """The least that a script would do: each page, one UPDATE, one commit."""
    login = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
    query = urlencode({"modifyDateStart": "2000-01-01 00:00:00", "sortBy": "CreateDate", "pageSize": 500})
    rows, page, pages, away_s = 0, 0, 1, 0.0
    started = time.perf_counter()
    with psycopg.connect(url) as conn:
        while page < pages:
            page += 1
            request = urllib.request.Request(
                f"{address}/orders?{query}&page={page}", headers={"authorization": f"Basic {login}"}
            )
            asked = time.perf_counter()
            with urllib.request.urlopen(request, timeout=60) as reply:
                content = reply.read()
            away_s += time.perf_counter() - asked
            document = json.loads(content)
            pages = document["pages"]
            states = [{"key": each["orderKey"], "word": each["orderStatus"]} for each in document["orders"]]
            rows += conn.execute(BARE, [json.dumps(states)]).rowcount
            conn.commit()
    whole_s = time.perf_counter() - started
    return {
        "orders": rows, "rows_per_s": rows / whole_s, "own_rows_per_s": rows / (whole_s - away_s),
        "own_ms_a_page": 1000 * (whole_s - away_s) / pages, "away_ms_a_page": 1000 * away_s / pages,
    }  # fmt: skip


def measure_webhooks(url: str, address: str, count: int) -> dict[str, float]:
    """Milliseconds from the POST to the row's update, by the time that the update itself carries."""
    settings = {"LISTENER_QUEUES": "sync", "SHIPSTATION_WEBHOOK_SECRET": WEBHOOK}
    with tempfile.NamedTemporaryFile() as log, psycopg.connect(url, autocommit=True) as conn:
        conn.execute("UPDATE configuration_params SET param_value = '86400' WHERE param_key = 'sync_interval'")
        command = [sys.executable, "-m", "listener", "run"]
        process = subprocess.Popen(command, env={**environ(url, address), **settings}, stderr=log, stdout=log)
        try:
            while not scalar(conn, "SELECT count(*) FROM sync_runs WHERE status = 'Succeeded'"):
                time.sleep(0.05)
            lines = [json.loads(line) for line in Path(log.name).read_text().splitlines() if line.startswith("{")]
            service = next(line["address"] for line in lines if line["event"] == "HTTP interface")
            waits = [webhook(conn, service, address, number) for number in range(1, count + 1)]
        finally:
            process.kill()
            process.wait(10)
    cuts = quantiles(waits, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98], "count": len(waits)}


def webhook(conn: psycopg.Connection[Any], service: str, address: str, number: int) -> float:
    shipment = post(f"{address}/sandbox/ship", {"orderNumber": str(number)})
    body = {"resource_url": f"{address}/shipments?orderId={shipment['orderId']}", "resource_type": "SHIP_NOTIFY"}
    at = time.time()
    post(f"{service}/webhooks/shipstation/{WEBHOOK}", body)
    text = (
        "SELECT extract(epoch FROM updated_at)::float8 FROM orders_inbox"
        " WHERE order_number = %s AND tracking_number IS NOT NULL"
    )
    while (done_at := scalar(conn, text, [str(number)])) is None:
        time.sleep(0.005)
    return 1000 * (done_at - at)


def scalar(conn: psycopg.Connection[Any], text: str, params: Any = None) -> Any:
    row = conn.execute(text, params).fetchone()
    return row[0] if row else None


def post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)


def serve(port: int, count: int) -> None:
    """Be a sandbox that holds `count` orders."""
    app = build(SandboxSettings(limit=0, log_size=1))
    for number in range(1, count + 1):
        app.state.sandbox.store.write(
            {
                "orderNumber": str(number), "orderKey": f"shop-{number}", "orderDate": "2026-01-01T00:00:00.0000000",
                "orderStatus": "on_hold", "billTo": {"name": "A Buyer"},
                "shipTo": {"name": "A Buyer", "street1": "1 Main St", "city": "Austin", "country": "US"},
                "items": [{"sku": "ABC", "name": "Thing", "quantity": 2, "unitPrice": 9.99}],
            }
        )  # fmt: skip
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, lifespan="off")


@contextmanager
def sandbox(count: int) -> Iterator[str]:
    port = 19_090 + (os.getpid() + count) % 1000
    with serving([sys.executable, "-m", "bench.sync", "--serve", str(port), "--orders", str(count)], port) as address:
        yield address


@contextmanager
def database(cluster: Cluster, name: str, count: int) -> Iterator[str]:
    with psycopg.connect(cluster.url(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        url = cluster.url(name)
        migrate(url, "public")
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(FILL, [count])
        yield url
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(figures: dict[str, Any]) -> str:
    few, many, bare, hook = (figures[name] for name in ("few", "many", "bare", "webhook_ms"))
    return "\n".join(
        [
            f"| measurement | {few['orders']:,} orders | {many['orders']:,} orders | bare script, {bare['orders']:,} |",
            "|---|---|---|---|",
            _row("rows/s, sandbox and all", "rows_per_s", few, many, bare),
            _row("rows/s without the API's own time", "own_rows_per_s", few, many, bare),
            _row("our time a page, ms", "own_ms_a_page", few, many, bare),
            _row("the sandbox's time a page, ms", "away_ms_a_page", few, many, bare),
            f"| statements in all, a call | {_statements(few)} | {_statements(many)} | |",
            f"| first tenth, last tenth of the run, s | {_tenths(few)} | {_tenths(many)} | |",
            f"| peak MiB after the first page, the last | {_memory(few)} | {_memory(many)} | |",
            f"| webhook POST → row, ms, {hook['count']} of them | p50 {hook['p50']:.1f}, p99 {hook['p99']:.1f} | | |",
            "",
            f"ShipStation allows 40 calls a minute of 500 records: {ALLOWED:,.0f} rows/s, {1000 * 500 / ALLOWED:,.0f}"
            f" ms a page; what it gives is stored {many['own_rows_per_s'] / ALLOWED:.0f} times as fast.",
        ]
    )


def _row(title: str, name: str, *of: dict[str, float]) -> str:
    return f"| {title} | " + " | ".join(f"{each[name]:,.0f}" for each in of) + " |"


def _statements(of: dict[str, float]) -> str:
    return f"{of['statements']:,} in {of['calls']:,} calls: {of['statements_a_page']:.1f}"


def _tenths(of: dict[str, float]) -> str:
    return f"{of['first_tenth_s']:.1f}, {of['last_tenth_s']:.1f}"


def _memory(of: dict[str, float]) -> str:
    return f"{of['first_page_mib']:.0f}, {of['peak_mib']:.0f}"


if __name__ == "__main__":
    main()
