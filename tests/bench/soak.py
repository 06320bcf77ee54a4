"""Days in the life of a small shop, with faults; at the end the KPI table.

    .venv/bin/python -m bench.soak --minutes 60            (from the folder tests/)

A private PostgreSQL with fsync on, the sandbox with ShipStation's rate limit in a process of its own, and replicas that
work on all queues, while processes are killed, sessions cut, the API is away, slow or loses replies, and the
configuration is rolled back and forth. --scale makes the work's clock run faster: 6 = ten minutes stand for an hour
(intervals and the rate window shrink, orders arrive faster). Exit 1 when an order was lost or arrived twice, or a KPI
is past its alert value. In less than 20 minutes the memory's slope is that of a
start: 2 MiB in 3 minutes are 40 an hour.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
from e2e.service import Service, Services, services
from sandbox.server import Client

from bench.kpis import Sample, assess, table
from bench.upload import serving
from listener.db.embedded import Cluster
from listener.db.migrate import migrate
from listener.db.samples import sample_payload

INSERT = """INSERT INTO orders_inbox (source, order_number, payload)
SELECT 'soak', %s || '-' || n, %s::jsonb FROM generate_series(1, %s) AS n"""
UPLOADED = """SELECT order_number FROM orders_inbox
WHERE status = 'Uploaded' AND fulfillment_status IS DISTINCT FROM 'shipped' ORDER BY id DESC LIMIT 20"""
OURS = "FROM pg_stat_activity WHERE application_name LIKE 'order-listener%'"
SAMPLE_EVERY_S = 2.0
#: An order that is not accepted so long after the last fault is lost.
LAST_WAIT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it runs")
    parser.add_argument("--scale", type=float, default=6.0, help="hours of work in an hour of the clock, 1 to 12")
    parser.add_argument("--replicas", type=int, default=2, help="processes")
    parser.add_argument(
        "--orders", type=float, default=60.0, help="arrivals an hour of work; one in ten is 25 orders at once"
    )
    parser.add_argument("--faults", type=int, default=20, help="faults in the whole run")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals and the victims")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    # unheard it would leave replicas and sandbox behind, which nobody ends
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    figures = measure(options)
    print(table(figures["kpis"]))
    told = f"{figures['orders']} orders, {figures['faults']} faults, {figures['hours']:.1f} hours of work: "
    print("\n" + told + (figures["trouble"] or "none lost, none twice"))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    sys.exit(1 if figures["trouble"] or any(kpi["is_alarm"] for kpi in figures["kpis"]) else 0)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, let it run, and return the figures."""
    port = 19_090 + os.getpid() % 1000
    window_s = f"{60.0 / options.scale}"
    command = [sys.executable, "-m", "listener", "sandbox", "--listen", f"127.0.0.1:{port}", "--window", window_s]
    with (
        tempfile.TemporaryDirectory(prefix="listener-soak-") as folder,
        serving(command, port),
        Cluster(bin_dir=options.postgres, data_dir=Path(folder) / "data") as cluster,
    ):
        url = cluster.url("postgres")
        migrate(url, "public")
        api = Client(("127.0.0.1", port))
        with services(url, api, Path(folder)) as replicas:
            replicas.environ |= {
                "LISTENER_QUEUES": "upload,import,sync",
                "SHIPSTATION_RATE_LIMIT": "40",
                "SHIPSTATION_RATE_WINDOW": window_s,
            }
            return Soak(url, api, replicas, options).run()


class Soak:
    """One run: arrivals, faults and samples, each at its time."""

    def __init__(self, url: str, api: Client, replicas: Services, options: argparse.Namespace) -> None:
        self.api = api
        self.replicas = replicas
        self.options = options
        self.random = random.Random(options.seed)
        self.conn = psycopg.connect(url, autocommit=True)
        self.running: list[Service] = []
        self.samples: list[Sample] = []
        self.orders = 0
        self.quiet: list[str] = []  # numbers that no fault concerned: their latency is that of a sound day
        self.troubled_until = 0.0
        self.repair: Callable[[], None] | None = None
        self.faults: list[Callable[[], None]] = [
            self.kill, self.cut_sessions, self.api_away, self.api_slow, self.lose_replies, self.roll_back,
        ]  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Run to the end, wait for the last order, and judge."""
        scale = self.options.scale
        self.configure("sync_interval", max(round(120 / scale), 10))
        self.configure("fast_polling_interval", max(round(15 / scale), 1))
        self.running = [self.replicas.start().wait_ready() for _ in range(self.options.replicas)]
        started = time.monotonic()
        faults = self.work(started)
        hours = (time.monotonic() - started) * scale / 3600
        trouble = self.wait_whole()
        kpis = assess(self.conn, self.api.stats(), self.running, self.samples, self.quiet, hours=hours)
        return {
            "kpis": [asdict(kpi) for kpi in kpis],
            "orders": self.orders,
            "faults": faults,
            "hours": hours,
            "trouble": trouble,
            "options": {name: str(value) for name, value in vars(self.options).items()},
        }

    def work(self, started: float) -> int:
        """Let orders arrive, things go wrong and be mended until the time is over; returns how many faults."""
        end = started + 60 * self.options.minutes
        faults_every_s = 60 * self.options.minutes / (self.options.faults + 1)
        faults, next_fault, next_order, next_sample = 0, started + faults_every_s, started, started
        while (now := time.monotonic()) < end:
            if now >= self.troubled_until:
                self.mend()
            if now >= next_order:
                self.arrive(is_quiet=self.troubled_until + 10 < now < next_fault - 10)
                next_order = now + self.random.expovariate(self.options.orders * self.options.scale / 3600)
            if now >= next_fault:
                self.mend()
                self.troubled_until = now + min(10.0, faults_every_s / 3)
                self.faults[faults % len(self.faults)]()
                faults, next_fault = faults + 1, next_fault + faults_every_s
            if now >= next_sample:
                self.samples.append(self.sample(now - started))
                next_sample += SAMPLE_EVERY_S
            times = (next_order, next_sample, next_fault, end, self.troubled_until if self.repair else end)
            time.sleep(max(0.0, min(times) - time.monotonic()))
        self.mend()
        return faults

    def mend(self) -> None:
        """Undo the fault that is on."""
        repair, self.repair = self.repair, None
        if repair is not None:
            repair()

    def configure(self, key: str, value: object) -> None:
        self.conn.execute("SELECT config_set(%s, %s)", [key, str(value)])

    def arrive(self, *, is_quiet: bool) -> None:
        """One order, or 25; and one time in five an order of before is shipped."""
        count = 25 if self.random.random() < 0.1 else 1
        number = f"S{len(self.samples)}-{self.orders}"
        self.conn.execute(INSERT, [number, json.dumps(sample_payload(self.orders)), count])
        self.orders += count
        if is_quiet:
            self.quiet += [f"{number}-{n}" for n in range(1, count + 1)]
        if self.random.random() < 0.2 and (uploaded := self.conn.execute(UPLOADED).fetchall()):
            self.api.control("POST", "ship", {"orderNumber": self.random.choice(uploaded)[0], "trackingNumber": number})

    def sample(self, at_s: float) -> Sample:
        """What the processes use now."""
        [[connections]] = self.conn.execute(f"SELECT count(*) {OURS}").fetchall()
        return Sample.of(at_s, connections, [service.process.pid for service in self.running])

    def kill(self) -> None:
        victim = self.random.randrange(len(self.running))
        self.running[victim].kill()

        def restart() -> None:
            self.running[victim] = self.replicas.start()

        self.repair = restart

    def cut_sessions(self) -> None:
        self.conn.execute(f"SELECT pg_terminate_backend(pid) {OURS}")

    def api_away(self) -> None:
        self._fault({"status": 503})

    def api_slow(self) -> None:
        self._fault({"latency_s": 2.0})

    def lose_replies(self) -> None:
        self._fault({"reset_after": True, "count": 2, "method": "POST"})

    def roll_back(self) -> None:
        self.configure("fast_polling_enabled", "false")
        self.repair = lambda: self.configure("fast_polling_enabled", "true")

    def _fault(self, fault: dict[str, Any]) -> None:
        self.api.fault(fault)
        self.repair = lambda: self.api.control("DELETE", "faults")

    def wait_whole(self) -> str:
        """Wait until every order is there once and every change has come back; what is wrong, else nothing."""
        deadline = time.monotonic() + LAST_WAIT_S
        while (wrong := self.wrong()) and time.monotonic() < deadline:
            time.sleep(1.0)
        return wrong

    def wrong(self) -> str:
        counts = dict(self.conn.execute("SELECT status, count(*) FROM orders_inbox GROUP BY status").fetchall())
        held = self.api.held()
        if counts != {"Uploaded": self.orders} or len(held) != self.orders:
            return f"{self.orders} inserted, {counts} in the table, {len(held)} at ShipStation"
        rows = self.conn.execute("SELECT order_key FROM orders_inbox WHERE fulfillment_status = 'shipped'")
        if left := {key for key, each in held.items() if each["orderStatus"] == "shipped"} - {row[0] for row in rows}:
            return f"{len(left)} shipped orders have not come back"
        overlaps = self.api.stats()["overlaps"]
        return f"{overlaps} orders were in two calls at once" if overlaps else ""


if __name__ == "__main__":
    main()
