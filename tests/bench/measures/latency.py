"""From the commit of one row, as its writer knows it, to the first line of its handler."""

import subprocess
import sys
import time
from pathlib import Path

import psycopg

from bench.engines.base import Engine
from bench.host import Host, connect, cuts, read_stamps, until

_CHANNEL = "bench_floor"


def latency(host: Host, engine: Engine, rows: int, interval_s: float) -> dict[str, float]:
    """Milliseconds, p50 and p99, at one insert every `interval_s`, from a writer in a process of its own."""
    stamps, commits = host.file(), host.file()
    with host.database(engine) as url, host.ready_worker(engine, url, "stamp", stamps) as (worker, conn):
        time.sleep(0.5)  # nothing is under way any more
        write(url, engine.insert, rows, interval_s, commits)
        until(lambda: not engine.is_unfinished(conn), 60, f"{engine.name} handles all", worker, 0.05)
        committed = {seq: at for seq, at, _ in read_stamps(commits)}
        begun = {seq: at for seq, at, _ in reversed(read_stamps(stamps))}
    if missing := committed.keys() - begun.keys():
        raise RuntimeError(f"{engine.name}: {len(missing)} rows were never handled")
    return cuts([1000 * (begun[seq] - at) for seq, at in committed.items()])


def bare_notify(host: Host, engine: Engine, rows: int, interval_s: float) -> dict[str, float]:
    """The floor: a NOTIFY in place of the insert, and a psycopg connection that hears it."""
    commits, heard = host.file(), []
    with host.database(engine) as url, connect(url) as conn:
        conn.execute(f"LISTEN {_CHANNEL}".encode())
        process = writer(url, f"SELECT pg_notify('{_CHANNEL}', (%(seq)s::bigint)::text)", rows, interval_s, commits)
        for notification in conn.notifies():
            heard.append((int(notification.payload), time.time()))
            if len(heard) == rows:
                break
        process.wait()
    committed = {seq: at for seq, at, _ in read_stamps(commits)}
    return cuts([1000 * (at - committed[seq]) for seq, at in heard])


def write(url: str, statement: str, rows: int, interval_s: float, path: Path) -> None:
    """Commit rows from another process, and wait for its end."""
    process = writer(url, statement, rows, interval_s, path)
    if process.wait():
        raise RuntimeError(f"the writer ended with {process.returncode}")


def writer(url: str, statement: str, rows: int, interval_s: float, path: Path) -> subprocess.Popen[bytes]:
    """Start a process that commits rows."""
    arguments = [url, statement, str(rows), str(interval_s), str(path)]
    return subprocess.Popen([sys.executable, "-m", "bench.measures.latency", *arguments])


def main(url: str, statement: str, rows: str, interval: str, path: str) -> None:
    """The writer. It keeps to the clock, not to its own pace; the times are written at the end."""
    interval_s, stamps = float(interval), []
    with psycopg.connect(url, autocommit=True, prepare_threshold=1) as conn:
        start = time.perf_counter() + 0.2
        for seq in range(int(rows)):
            time.sleep(max(start + seq * interval_s - time.perf_counter(), 0))
            conn.execute(statement.encode(), {"seq": seq})
            stamps.append((seq, time.time()))
    Path(path).write_text("".join(f"{seq} {at:.6f} 0\n" for seq, at in stamps))


if __name__ == "__main__":
    main(*sys.argv[1:])
