"""Import of a large file beside a bare loop that only parses it, and a drop into the folder to the last order accepted:
`python -m bench.imports [--orders N …] [--drops N]`.

The bare loop is `lxml.etree.iterparse` over the same file, asking for whole orders and freeing them, doing nothing with
them. Ours parses, checks, and merges into orders_inbox of a real Postgres on the same cores; the time is that of all of
it. Each is a process of its own, so that its peak memory is its own. Ours keeps both cores busy (its parser one, the
server half of the other), the bare loop one: other work on the machine slows only ours, so the processor time of an
order (`…_cpu_us`, without the server's) stands beside the ratio.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parents[1]

BARE = """
import json, resource, sys, time
from lxml import etree
started, cpu_began = time.perf_counter(), time.process_time()
count = 0
for _, order in etree.iterparse(sys.argv[1], events=("end",), tag="Order"):
    count += 1
    order.clear()
    while order.getprevious() is not None:
        del order.getparent()[0]
took = time.perf_counter() - started
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
print(json.dumps({"orders": count, "seconds": took, "cpu_s": time.process_time() - cpu_began, "peak_mb": peak_mb}))
"""

OURS = """
import json, resource, sys, time, anyio
from datetime import UTC
from listener.db.pool import Pool
from listener.workflows.imports.by_hand import ByHand
from listener.workflows.imports.found import Rules
from listener.workflows.imports.handler import Settings

async def main():
    settings = Settings(order_source="xml", rules=Rules(zone=UTC, most_bytes=2**40), words={})
    async with Pool(sys.argv[2], schema="public", is_pooled=False, min_size=1, max_size=1) as pool:
        with open(sys.argv[1], "rb") as file:
            started, cpu_began = time.perf_counter(), time.process_time()
            done = await ByHand(pool, settings).take(file, "bench")
            took = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    cpu_s = time.process_time() - cpu_began
    print(json.dumps({"orders": done.counts.inserted, "seconds": took, "cpu_s": cpu_s, "peak_mb": peak}))

anyio.run(main)
"""


def measured(script: str, *arguments: str) -> dict[str, Any]:
    """Run one of them; its figures."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def compare(database_url: str, folder: Path, orders: int, clear: Any) -> dict[str, Any]:
    """Both over one file of that many orders, the bare loop before and after ours."""
    sys.path.insert(0, str(HERE))
    from workflows.imports import shop

    path = folder / f"{orders}.xml"
    with path.open("wb") as file:
        file.writelines(shop.stream(orders))
    first = measured(BARE, str(path))
    ours = measured(OURS, str(path), database_url)
    second = measured(BARE, str(path))
    clear()
    size_mb = path.stat().st_size / 1e6
    path.unlink()
    assert first["orders"] == ours["orders"] == orders
    bare = max(first["orders"] / first["seconds"], second["orders"] / second["seconds"])
    speed = ours["orders"] / ours["seconds"]
    return {
        "orders": orders,
        "file_mb": round(size_mb),
        "bare_orders_per_s": round(bare),
        "ours_orders_per_s": round(speed),
        "ratio": round(speed / bare, 3),
        "bare_cpu_us": round(min(first["cpu_s"], second["cpu_s"]) / orders * 1e6, 1),
        "ours_cpu_us": round(ours["cpu_s"] / orders * 1e6, 1),
        "bare_peak_mb": round(first["peak_mb"]),
        "ours_peak_mb": round(ours["peak_mb"]),
    }


def dropped(database_url: str, folder: Path, drops: int) -> dict[str, Any]:
    """Drop a file of 50 orders again and again; seconds from its rename to the last order accepted by the sandbox."""
    from workflows.imports import shop

    from bench.upload import environ, sandbox

    inbox = folder / "inbox"
    inbox.mkdir()
    took = []
    with sandbox() as address:
        settings = {
            **environ(database_url, address),
            "LISTENER_QUEUES": "import,upload",
            "IMPORT_FOLDER": str(inbox),
            "IMPORT_SETTLE": "0.2",
        }
        command = [sys.executable, "-m", "listener", "run"]
        service = subprocess.Popen(command, env=settings, stderr=subprocess.DEVNULL)
        try:
            for drop in range(drops + 1):
                (inbox / "next.tmp").write_text(shop.numbered(50, first=1 + 50 * drop))
                (inbox / "next.tmp").rename(inbox / f"{drop}.xml")
                started = time.time()
                while len(held := accepted(address)) < 50 * (drop + 1):
                    time.sleep(0.02)
                    assert time.time() < started + 60, f"{len(held)} orders accepted, of file {drop}"
                if drop:  # the first one waits for the service to start
                    took.append(max(held) - started)
                time.sleep(0.5)
        finally:
            service.terminate()
            service.wait(30)
    return {"drops": drops, "p50_s": round(median(took), 3), "worst_s": round(max(took), 3)}


def accepted(address: str) -> list[float]:
    """When the sandbox accepted each order it holds, in seconds since 1970."""
    with urllib.request.urlopen(f"{address}/sandbox/orders", timeout=10) as reply:
        return [order["accepted_at"] for order in json.load(reply)]


def main() -> None:
    """Measure on a server of its own and print a line for each size."""
    import psycopg

    from listener.db.embedded import Cluster
    from listener.db.migrate import migrate

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--drops", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="listener-bench-") as folder:
        cluster = Cluster(data_dir=Path(folder) / "data")
        with cluster:
            migrate(cluster.url(), "public")
            with psycopg.connect(cluster.url(), autocommit=True) as conn:

                def clear() -> None:
                    conn.execute("TRUNCATE orders_inbox, import_files")

                for size in chosen.orders:
                    print(json.dumps(compare(cluster.url(), Path(folder), size, clear)), flush=True)
            if chosen.drops:
                print(json.dumps(dropped(cluster.url(), Path(folder), chosen.drops)), flush=True)


if __name__ == "__main__":
    main()
