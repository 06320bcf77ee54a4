"""One, two, four processes on one queue: jobs per second with 5 ms handlers, how the work is spread, whether any row
ran twice, and how many processes wake for one row while all of them are idle."""

import re
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from bench.engines.base import Engine
from bench.host import Host, Worker, connect, read_stamps, until

_WAKES = re.compile(r'^listener_wakes_total\{.*reason="notify".*\} ([0-9.]+)$', re.MULTILINE)


def scale(host: Host, engine: Engine, processes: int, rows: int, singles: int) -> dict[str, float]:
    """share_least, share_most: parts of the rows that the least and the most loaded process ran."""
    stamps = host.file()
    with ExitStack() as stack:
        url = stack.enter_context(host.database(engine))
        conn = stack.enter_context(connect(url))
        workers = [stack.enter_context(host.worker(engine, url, "sleep", stamps)) for _ in range(processes)]
        for worker in workers:
            until(lambda: bool(_address(worker)), 60, "the worker is there", worker, 0.05)  # noqa: B023 - used at once
        for _ in range(3):
            engine.put(conn, -1)
        until(lambda: not engine.is_unfinished(conn), 60, "first jobs", workers[0])
        time.sleep(3)
        before = _wakes(workers)
        for _ in range(singles):
            engine.put(conn, -1)
            time.sleep(0.05)
        wakes = (_wakes(workers) - before) / singles
        conn.execute(engine.fill, {"rows": rows})
        began = time.perf_counter()
        until(lambda: not engine.is_unfinished(conn), 600, "all rows", workers[0], 0.005)
        took_s = time.perf_counter() - began
        calls = read_stamps(stamps)
        of = Counter(pid for _, _, pid in calls)
        shares = [of[worker.process.pid] / len(calls) for worker in workers]
        return {
            "jobs_per_s": rows / took_s,
            "twice": float(len(calls) - len({seq for seq, _, _ in calls})),
            "share_least": min(shares),
            "share_most": max(shares),
            "wakes_per_row": wakes,
        }


def _address(worker: Worker) -> str:
    line = worker.said("HTTP interface")
    return "" if line is None else str(line["address"])


def _wakes(workers: Sequence[Worker]) -> float:
    """Wakes by notifications so far."""
    total = 0.0
    for worker in workers:
        address = _address(worker)
        with urllib.request.urlopen(f"{'' if address.startswith('http') else 'http://'}{address}/metrics") as reply:
            total += sum(map(float, _WAKES.findall(reply.read().decode())))
    return total
