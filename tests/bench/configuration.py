"""Swap time of the live configuration, beside the bare script of `raw_configuration.py`, in one run.

    .venv/bin/python -m bench.configuration            (from the folder tests/)

A private PostgreSQL with fsync on. One key is changed again and again, one transaction each, with a rest in between;
a change is in force when every process has logged it. Both clocks are the machine's. Prints a table and writes the
figures as JSON to the file given by --json.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg

from bench.upload import environ
from listener.db.embedded import Cluster
from listener.db.migrate import migrate

KEY = "fast_polling_interval"
UPDATE = "UPDATE configuration_params SET param_value = %s WHERE param_key = %s"
# Nothing listens there, and nobody calls: there are no orders.
NOWHERE = "http://127.0.0.1:9"
# Seconds between two changes, so that each is a single one: the look that a change causes is over.
REST_S = (0.03, 0.06)
REPLICAS = (1, 4)
KINDS = ("ours", "raw")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--changes", type=int, default=200, help="single changes of one round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, ours and the baseline in turn")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {
        kind: {str(replicas): [] for replicas in REPLICAS} for kind in KINDS
    }
    with (
        tempfile.TemporaryDirectory(prefix="listener-bench-") as folder,
        Cluster(bin_dir=options.postgres, data_dir=Path(folder) / "data") as cluster,
    ):
        url = cluster.url()
        migrate(url, "public")
        for _ in range(options.rounds):  # in turn, so that a slow minute of the machine hits both
            for replicas in REPLICAS:
                for kind in KINDS:
                    figures[kind][str(replicas)].append(swap_times(kind, replicas, url, options.changes))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def swap_times(kind: str, replicas: int, url: str, changes: int) -> dict[str, float]:
    """Milliseconds until the last of the processes has the new value: from before the statement was sent, and from
    when its commit was known here."""
    rng = random.Random(changes)
    sent_ms, known_ms = [], []
    with ExitStack() as stack:
        conn = stack.enter_context(psycopg.connect(url, autocommit=True))
        conn.execute(UPDATE, ["15", KEY])
        processes = [stack.enter_context(follower(kind, url)) for _ in range(replicas)]
        for n in range(changes + 5):
            time.sleep(rng.uniform(*REST_S))
            value = str(1_000 + n)
            sent_at = time.time()
            conn.execute(UPDATE, [value, KEY])
            known_at = time.time()
            swapped_at = max(wait_for_line(process, f"Configuration changed: {KEY}", value) for process in processes)
            sent_ms.append(1000 * (swapped_at - sent_at))
            known_ms.append(1000 * (swapped_at - known_at))
    # the first ones prepare statements and fill caches
    return {**cuts("sent", sent_ms[5:]), **cuts("known", known_ms[5:])}


def cuts(name: str, values: Sequence[float]) -> dict[str, float]:
    points = quantiles(values, n=100, method="inclusive")
    return {f"{name}_p50": points[49], f"{name}_p99": points[98], f"{name}_max": max(values)}


@contextmanager
def follower(kind: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """One process that follows the configuration, ready: the service, or the bare script."""
    ours = [sys.executable, "-m", "listener", "run"]
    raw = [sys.executable, "-m", "bench.raw_configuration", url, KEY]
    process = subprocess.Popen(
        ours if kind == "ours" else raw, env=environ(url, NOWHERE), stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for_line(process, "Session opened")
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], event: str, after: str | None = None) -> float:
    """Read the log up to the line, and return its time. Blocks: asking again and again would cost what is measured."""
    assert process.stderr is not None
    for text in process.stderr:
        line: dict[str, Any] = json.loads(text)
        if line["event"].startswith(event) and line.get("after") == after:
            return datetime.fromisoformat(line["timestamp"]).timestamp()
    raise RuntimeError(f"the process ended with {process.wait()} before it said {event!r}")


def table(figures: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    lines = ["| swap time, ms | ours | raw | ratio |", "|---|---|---|---|"]
    for replicas in REPLICAS:
        for start, text in (("sent", "statement sent"), ("known", "commit returned")):
            for cut in ("p50", "p99", "max"):
                of = {kind: [r[f"{start}_{cut}"] for r in figures[kind][str(replicas)]] for kind in KINDS}
                ours, raw = median(of["ours"]), median(of["raw"])
                spread = f"({min(of['ours']):.2f}–{max(of['ours']):.2f})"
                ratio = f"{ours / raw:.2f}" if raw > 0.05 else "–"
                lines.append(
                    f"| {text} → in force in {replicas} process{'es' if replicas > 1 else ''}, {cut} "
                    f"| {ours:.2f} {spread} | {raw:.2f} | {ratio} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
