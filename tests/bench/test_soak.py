"""The soak ends in good order: with its table when an order was lost, and without a process left when it is stopped."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

from conftest import Database
from e2e.service import Service
from waiting import until

from bench.kpis import Sample, assess
from listener.obs.metrics import Metrics

TESTS = Path(__file__).parents[1]


class Answering:
    """A process that has done nothing yet."""

    def get(self, _path: str) -> tuple[int, Any]:
        return 200, Metrics(["upload"]).render().decode()


def test_an_order_that_was_lost_keeps_no_table_back(database: Database) -> None:
    database.execute("INSERT INTO orders_inbox (order_number, payload) VALUES ('lost', '{}')")
    stats, samples = {"total": 0, "throttled": 0}, [Sample(0.0, 5, [80.0], {})]
    with database.connect() as conn:
        kpis = assess(conn, stats, [cast("Service", Answering())], samples, ["lost"], hours=1.0)
    assert {kpi.name: kpi.value for kpi in kpis}["commit → accepted, faults included, longest"] == 0.0


def children(pid: int) -> dict[int, str]:
    """Process → its command line."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            words = stat.with_name("cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        if parent == pid:
            found[int(stat.parent.name)] = b" ".join(words).decode().strip()
    return found


def test_a_soak_that_is_stopped_leaves_nobody_behind() -> None:
    """As whoever started it in the background stops it: with SIGTERM."""
    with subprocess.Popen([sys.executable, "-m", "bench.soak", "--minutes", "5"], cwd=TESTS) as soak:

        def listeners() -> bool:
            assert soak.poll() is None
            return sum(each.endswith("listener run") for each in children(soak.pid).values()) == 2

        try:
            until(listeners, deadline_s=60, what="both replicas")
            begun = children(soak.pid)
        finally:
            soak.terminate()
        assert soak.wait(60) == 128 + 15
    until(lambda: not [pid for pid in begun if Path(f"/proc/{pid}").exists()], what="the end of all that it has begun")
