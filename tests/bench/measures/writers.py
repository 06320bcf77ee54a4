"""What a queue costs those who write to its table: commits per second, by pgbench, variant beside variant.

All variants are the same attached table; they differ in the trigger that an INSERT fires, and in who listens:
none, empty trigger, statement NOTIFY, ours with the bell on (somebody sleeps all the time), ours with a real listener
whose slots are all taken (the bell is off), ours with a real listener that handles every row, and, as the pairs of the
latter, the same listener without its doorbell beside statement NOTIFY, and an empty trigger with the bare loop taking
the rows.
"""

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.engines import ours, raw
from bench.engines.base import Engine
from bench.host import Host, connect, until

NO_TRIGGER = "DROP TRIGGER listener_inserted ON orders"
TRIGGER = """
CREATE FUNCTION bench_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;
CREATE TRIGGER bench_trigger AFTER INSERT ON orders FOR EACH STATEMENT EXECUTE FUNCTION bench_trigger()
"""
NOTIFY = "PERFORM pg_notify('listener_wake', 'orders');"
# A session that sleeps and never wakes: every commit rings.
BELL = "SELECT pg_advisory_lock(1869374562, 'orders'::regclass::oid::integer)"
VARIANTS = (
    "no trigger", "empty trigger", "notify", "bell on", "slots full", "draining", "notify draining", "raw draining",
)  # fmt: skip
#: Slices are short and many: a shared machine has fast and slow minutes.
SLICE_S = 1
_TPS = re.compile(r"tps = ([0-9.]+) \(without")


@dataclass(frozen=True, slots=True)
class Load:
    """Writers at once, rows in one commit, and the server's commit_delay."""

    writers: int
    rows: int = 1
    commit_delay_us: int = 0

    def __str__(self) -> str:
        delay = f", commit_delay {self.commit_delay_us / 1000:g} ms" if self.commit_delay_us else ""
        return f"{self.writers} writers, {self.rows}-row commits{delay}"


LOADS = (*(Load(w, r) for r in (1, 100) for w in (1, 4, 16, 32)), Load(32, 1, 2000))


def writers(
    host: Host, loads: Sequence[Load], variants: Sequence[str], *, turns: int
) -> dict[str, dict[str, list[float]]]:
    """Commits per second: load → variant → one figure a turn. Variants take turns within seconds, in another order
    each time: what one of them has left to be written the next one pays for."""
    figures: dict[str, dict[str, list[float]]] = {str(load): {name: [] for name in variants} for load in loads}
    with ExitStack() as stack:
        places = {name: stack.enter_context(_variant(host, name)) for name in variants}
        for place in places.values():
            _commits(host, place, Load(4))  # the first commits of a database are slow
        for load in loads:
            for _ in range(turns):
                for name, place in random.sample(list(places.items()), len(places)):
                    figures[str(load)][name].append(_commits(host, place, load))
    return figures


def enqueue(host: Host, engine: Engine, *, rounds: int, seconds: float, count: int = 16) -> list[float]:
    """One-row commits per second through an engine's own way in, while nobody listens."""
    with host.database(engine) as url:
        return [pgbench(host, url, _script(host, engine.insert), Load(count), seconds) for _ in range(rounds)]


@contextmanager
def _variant(host: Host, name: str) -> Iterator[psycopg.Connection]:
    """A database with the table as the variant has it, and its listener."""
    with ExitStack() as stack:
        url = stack.enter_context(host.database(ours.ENGINE))
        conn = stack.enter_context(connect(url))
        notifies = name in ("notify", "notify draining")
        if notifies or name in ("no trigger", "empty trigger", "raw draining"):
            conn.execute(NO_TRIGGER)
        if notifies or name in ("empty trigger", "raw draining"):
            conn.execute(TRIGGER.format(body=NOTIFY if notifies else "").encode())
        if name in ("notify", "bell on"):  # a NOTIFY that nobody listens to wakes no server process
            conn.add_notify_handler(lambda _: None)
            conn.execute("LISTEN listener_wake")
        if name == "bell on":
            conn.execute(BELL)
        if name == "slots full":
            _fill_slots(conn, stack.enter_context(host.worker(ours.ENGINE, url, "hang")))
        if name == "notify draining":
            conn.execute("SELECT config_set('doorbell_enabled', 'false')")
        if name in ("draining", "notify draining"):
            stack.enter_context(host.ready_worker(ours.ENGINE, url, "noop"))
        if name == "raw draining":
            stack.enter_context(host.worker(raw.ENGINE, url, "poll"))
        yield conn


def _fill_slots(conn: psycopg.Connection, worker: object) -> None:
    """Give the listener more than it can take, until no writer's ring is asked for any more."""
    conn.execute(ours.ENGINE.fill, {"rows": 200})
    held = "SELECT count(*) FROM orders WHERE status = 'Processing'"
    until(lambda: _number(conn, held) == 100, 30, "all slots are taken")
    armed = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1869374562 AND mode = 'ExclusiveLock'"
    )
    ends = time.monotonic() + 30
    while _number(conn, f"{armed} AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"):
        ours.ENGINE.put(conn, 0)
        time.sleep(0.02)
        if time.monotonic() > ends:
            raise RuntimeError("a listener without a free slot leaves its bell on")


def _number(conn: psycopg.Connection, statement: str) -> int:
    row = conn.execute(statement.encode()).fetchone()
    return int(row[0]) if row else 0


def _commits(host: Host, conn: psycopg.Connection, load: Load) -> float:
    # Every slice begins with an empty table, so that none pays for the ones before. It also reads what was notified:
    # the server waits for who listens and does not read.
    conn.execute("TRUNCATE orders")
    statement = ours.ENGINE.insert
    if load.rows > 1:
        statement = ours.ENGINE.fill.replace("%(rows)s", str(load.rows))
    return pgbench(host, conn.info.dsn, _script(host, statement), load, SLICE_S)


def _script(host: Host, statement: str) -> Path:
    path = host.file()
    text = statement.replace("%(seq)s", ":client_id").replace("%%", "%")
    path.write_text(" ".join(text.split()) + ";\n")
    return path


def pgbench(host: Host, url: str, script: Path, load: Load, seconds: float) -> float:
    """Run a script, and return transactions per second."""
    tool = host.cluster.bin_dir / "pgbench"
    options = ["-n", "-M", "prepared", "-c", str(load.writers), "-j", str(min(load.writers, 2)), "-f", str(script)]
    # whole seconds only
    command = [str(tool), *options, "-T", str(max(round(seconds), 1)), url]
    environ = {**os.environ, "PGOPTIONS": f"-c commit_delay={load.commit_delay_us} -c commit_siblings=5"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    found = _TPS.search(done.stdout)
    if done.returncode or not found:
        raise RuntimeError(f"pgbench failed: {done.stderr[-2000:]}")
    return float(found[1])
