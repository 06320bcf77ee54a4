"""Latency, throughput and memory of the upload, beside the bare script of `raw.py`, in one run.

    .venv/bin/python -m bench.upload            (from the folder tests/)

A private PostgreSQL with fsync on, the sandbox in a process of its own, one worker process at a time. Prints a table
and writes it as JSON to the file given by --json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg

from listener.db.embedded import Cluster
from listener.db.migrate import migrate
from listener.db.samples import sample_payload

INSERT = "INSERT INTO orders_inbox (source, order_number, payload) VALUES ('bench', %s, %s)"
FILL = """INSERT INTO orders_inbox (source, order_number, payload)
SELECT 'bench', %s || n, %s::jsonb FROM generate_series(1, %s) AS n"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--orders", type=int, default=20_000, help="backlog of the throughput measurement")
    parser.add_argument("--singles", type=int, default=200, help="single inserts of the latency measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, ours and the baseline in turn")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="listener-bench-") as folder, sandbox() as address:
        cluster = Cluster(bin_dir=options.postgres, data_dir=Path(folder) / "data")
        with cluster:
            bench = Bench(cluster, address, options)
            figures = bench.run()
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


class Bench:
    """One server, one sandbox, a fresh database for each measurement."""

    def __init__(self, cluster: Cluster, address: str, options: argparse.Namespace) -> None:
        self.cluster = cluster
        self.address = address
        self.options = options
        self._number = 0

    def run(self) -> dict[str, Any]:
        """Measure both in turn, so that a slow minute of the machine hits both."""
        figures: dict[str, Any] = {"latency_ms": {"ours": [], "raw": []}, "orders_per_s": {"ours": [], "raw": []}}
        for _ in range(self.options.rounds):
            for kind in ("ours", "raw"):
                figures["latency_ms"][kind].append(self.latency(kind))
                figures["orders_per_s"][kind].append(self.throughput(kind, self.options.orders)[0])
        figures["peak_mib"] = {count: self.throughput("ours", count)[1] for count in (1_000, 20_000, 100_000)}
        return figures

    def latency(self, kind: str) -> dict[str, float]:
        """Milliseconds from the commit's return to the request's body being complete at the API, one at a time."""
        with self.database() as url, worker(kind, url, self.address), psycopg.connect(url, autocommit=True) as conn:
            self._warm_up(conn)
            committed = {}
            for n in range(self.options.singles):
                conn.execute(INSERT, [f"L-{n}", json.dumps(sample_payload(n))])
                committed[f"bench-L-{n}"] = time.time()
                wait_uploaded(conn, n + 2)
            calls = self.ask("requests?last=100000")["requests"]
            received = {key: call["received_at"] for call in calls for key in call["order_keys"] if key in committed}
        waits = sorted(1000 * (received[key] - at) for key, at in committed.items())
        cuts = quantiles(waits, n=100, method="inclusive")
        return {"p50": cuts[49], "p99": cuts[98], "max": waits[-1]}

    def throughput(self, kind: str, count: int) -> tuple[float, float]:
        """Orders per second, from the first call to the last row's settle, and the worker's peak memory in MiB."""
        with self.database() as url, psycopg.connect(url, autocommit=True) as conn:
            conn.execute(FILL, ["T-", json.dumps(sample_payload(1)), count])
            conn.execute("VACUUM ANALYZE orders_inbox")
            with worker(kind, url, self.address) as process:
                wait_uploaded(conn, 1)
                started = time.perf_counter()
                first = uploaded(conn)
                wait_uploaded(conn, count)
                rate = (count - first) / (time.perf_counter() - started)
                return rate, peak_mib(process.pid)

    def _warm_up(self, conn: psycopg.Connection) -> None:
        conn.execute(INSERT, ["warm-up", json.dumps(sample_payload(0))])
        wait_uploaded(conn, 1)

    def ask(self, path: str, method: str = "GET") -> Any:
        request = urllib.request.Request(f"{self.address}/sandbox/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    @contextmanager
    def database(self) -> Iterator[str]:
        self.ask("reset", "POST")
        self._number += 1
        name = f"bench_{self._number}"
        with psycopg.connect(self.cluster.url(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name}")
            migrate(self.cluster.url(name), "public")
            yield self.cluster.url(name)
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def sandbox() -> Iterator[str]:
    """The sandbox in a process of its own; without a rate limit."""
    port = 18_090 + os.getpid() % 1000
    command = [sys.executable, "-m", "listener", "sandbox", "--listen", f"127.0.0.1:{port}", "--limit", "0"]
    with serving(command, port) as address:
        yield address


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[str]:
    """The address of the sandbox that a command serves, as soon as it answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/sandbox/stats", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def worker(kind: str, url: str, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """One worker process: the service, or the bare script."""
    ours = [sys.executable, "-m", "listener", "run"]
    raw = [sys.executable, "-m", "bench.raw", url, address]
    process = subprocess.Popen(ours if kind == "ours" else raw, env=environ(url, address), stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def environ(url: str, address: str) -> dict[str, str]:
    """What a worker on this database and this ShipStation is started with."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LISTENER_", "SHIPSTATION_"))},
        "DATABASE_URL": url,
        "LISTENER_HTTP": "127.0.0.1:0",
        "LISTENER_QUEUES": "upload",
        "LISTENER_LOG_FORMAT": "json",
        "SHIPSTATION_API_KEY": "sandbox-key",
        "SHIPSTATION_API_SECRET": "sandbox-secret",
        "SHIPSTATION_BASE_URL": address,
        "SHIPSTATION_RATE_LIMIT": "0",
    }


def uploaded(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM orders_inbox WHERE status = 'Uploaded'").fetchone()
    return int(row[0]) if row else 0


def wait_uploaded(conn: psycopg.Connection, count: int) -> None:
    # asks less often the more is left: the question must not cost what is measured
    while (done := uploaded(conn)) < count:
        time.sleep(0.002 if count - done < 10 else 0.05)


def peak_mib(pid: int) -> float:
    """Peak resident memory of a living process."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def table(figures: dict[str, Any]) -> str:
    latency, rate = figures["latency_ms"], figures["orders_per_s"]
    lines = ["| measurement | ours | raw | ratio |", "|---|---|---|---|"]
    for cut in ("p50", "p99"):
        ours, raw = (median(r[cut] for r in latency[kind]) for kind in ("ours", "raw"))
        lines.append(f"| commit → request body at the API, {cut}, ms | {ours:.2f} | {raw:.2f} | {ours / raw:.2f} |")
    lines.append(_ratio("orders per second, backlog", rate["ours"], rate["raw"]))
    peaks = ", ".join(f"{count:,}: {mib:.0f} MiB" for count, mib in figures["peak_mib"].items())
    lines.append(f"| peak memory by backlog | {peaks} | | |")
    return "\n".join(lines)


def _ratio(name: str, ours: Sequence[float], raw: Sequence[float]) -> str:
    spread = f"{min(ours):,.0f}–{max(ours):,.0f}"
    return f"| {name} | {median(ours):,.0f} ({spread}) | {median(raw):,.0f} | {median(ours) / median(raw):.2f} |"


if __name__ == "__main__":
    main()
