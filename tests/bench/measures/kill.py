"""kill -9 of a worker with 100 calls running: seconds until all of these rows are running again, somewhere else."""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench.engines.base import Engine
from bench.host import Host, Worker, connect, read_stamps

FLYING = 100
#: Who rescues: a process that is started after the kill; one that was there already, without work; two that are left
#: of four.
RESCUERS = ("restart", "replica", "half")


def kill(host: Host, engine: Engine, rescuer: str, limit_s: float) -> dict[str, float]:
    """Seconds from the kill, and, for a restart, from the new process being ready where it says so; inf = not within
    `limit_s`."""
    if rescuer == "half":
        return _half(host, engine, limit_s)
    stamps = host.file()
    with host.database(engine) as url, connect(url) as conn, host.worker(engine, url, "hang", stamps) as victim:
        conn.execute(engine.fill, {"rows": FLYING})
        _running(stamps, {victim.process.pid}, 60)
        if rescuer == "restart":
            killed_at = victim.kill()
            with host.worker(engine, url, "hang", stamps) as other:
                return _figures(stamps, other, killed_at, limit_s)
        with host.worker(engine, url, "hang", stamps) as other:
            time.sleep(3)  # it has seen that there is nothing for it
            return _figures(stamps, other, victim.kill(), limit_s)


def _figures(stamps: Path, other: Worker, killed_at: float, limit_s: float) -> dict[str, float]:
    running_at = _running(stamps, {other.process.pid}, limit_s)
    ready_at = other.said_at("Session opened")
    figures = {"killed": running_at - killed_at}
    if ready_at is not None and ready_at > killed_at:
        figures["ready"] = running_at - ready_at
    return figures


def _half(host: Host, engine: Engine, limit_s: float) -> dict[str, float]:
    """Two of four processes, killed at once; those that hold most."""
    stamps = host.file()
    with ExitStack() as stack:
        url = stack.enter_context(host.database(engine))
        conn = stack.enter_context(connect(url))
        workers = [stack.enter_context(host.worker(engine, url, "hang", stamps)) for _ in range(4)]
        time.sleep(5)
        conn.execute(engine.fill, {"rows": FLYING})
        _running(stamps, {worker.process.pid for worker in workers}, 60)
        held = Counter(pid for _, _, pid in read_stamps(stamps))
        workers.sort(key=lambda worker: -held[worker.process.pid])
        killed_at = min([worker.kill() for worker in workers[:2]])
        return {"killed": _running(stamps, {worker.process.pid for worker in workers[2:]}, limit_s) - killed_at}


def _running(stamps: Path, pids: set[int], limit_s: float) -> float:
    """When the last of the rows began in one of these processes."""
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        begun = {seq: at for seq, at, by in read_stamps(stamps) if by in pids}
        if len(begun) == FLYING:
            return max(begun.values())
        time.sleep(0.02)
    return float("inf")
