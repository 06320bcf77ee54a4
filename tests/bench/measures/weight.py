"""What old rows cost: finished ones by the million, and dead ones that no vacuum may remove."""

import time
from statistics import mean, median
from typing import LiteralString

import psycopg

from bench.engines.base import Engine
from bench.host import Host, connect, cuts, read_stamps, until
from bench.measures.latency import write

# Part of the time whose batches are compared, before it and at its end. Ten batches by themselves are a figure of the
# disk: while a checkpoint writes gigabytes, ten in a row took twice as long as those before and after (measured).
_PART = 0.1

# Narrow, so that ten million fit; neither a claim nor a settle ever reads them.
FINISHED = """
INSERT INTO orders (customer, email, amount, payload, status, finished_at)
SELECT 'customer', 'buyer@example.com', 9.99, '{{}}', 'Done', now() FROM generate_series(1, {rows})
"""
PAGES = """
SELECT coalesce(sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit), 0)
FROM pg_statio_user_tables WHERE relname = 'orders'
"""
LAST = "SELECT coalesce(max(id), 0) FROM orders"
# Of the rows after a given one, and from the end, where the last ones are: the question whether any row is unfinished
# would itself visit every dead entry, again and again beside what is measured.
UNFINISHED = """
SELECT count(*) FROM (
    SELECT FROM orders WHERE id > %(before)s AND status <> 'Done' ORDER BY id DESC LIMIT 1) AS unfinished
"""
OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def finished_rows(host: Host, engine: Engine, finished: int, singles: int) -> dict[str, float]:
    """Pages of the table and its indexes that one row costs, from insert to done, and its latency in milliseconds,
    beside so many finished rows."""
    stamps, commits = host.file(), host.file()
    with host.database(engine) as url:
        with connect(url) as conn:
            if finished:
                conn.execute(FINISHED.format(rows=finished).encode())
            conn.execute("VACUUM ANALYZE")
        with connect(url) as conn:
            until(lambda: _number(conn, OTHERS) == 0, 30, "the session ends", pause_s=0.05)
            before = _number(conn, PAGES)
        with host.ready_worker(engine, url, "stamp", stamps) as (_, conn):
            write(url, engine.insert, singles, 0.015, commits)
            until(lambda: not engine.is_unfinished(conn), 60, "all rows", pause_s=0.05)
        with connect(url) as conn:  # a session tells its figures when it ends
            until(lambda: _number(conn, OTHERS) == 0, 30, "the sessions end", pause_s=0.05)
            pages = _number(conn, PAGES) - before
    begun = {seq: at for seq, at, _ in read_stamps(stamps)}
    waits = [1000 * (begun[seq] - at) for seq, at, _ in read_stamps(commits)]
    return {"pages_per_row": pages / singles, **cuts(waits)}


def steady(host: Host, engine: Engine, seconds: float, rows: int, *, is_held: bool) -> dict[str, float]:
    """Jobs per second of the same worker with batches of `rows`, before and at the end of so many seconds: all of them
    over the time they took, and the batch in the middle. is_held: a transaction keeps vacuum from its work meanwhile;
    without it, what the load itself costs by growing."""
    part_s = _PART * seconds
    with (
        host.database(engine) as url,
        host.ready_worker(engine, url, "noop") as (_, conn),
        psycopg.connect(url) as holder,
    ):
        first = _rounds(engine, conn, rows, part_s)
        if is_held:
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM orders")
        _rounds(engine, conn, rows, seconds - part_s)
        last = _rounds(engine, conn, rows, part_s)
        holder.rollback()
    return {
        "jobs_per_s_first": rows / mean(first),
        "jobs_per_s_last": rows / mean(last),
        "kept": mean(first) / mean(last),
        "kept_median": median(first) / median(last),
    }


def _rounds(engine: Engine, conn: psycopg.Connection, rows: int, seconds: float) -> list[float]:
    """Batch after batch for so long; how long each took."""
    took, ends = [], time.monotonic() + seconds
    while not took or time.monotonic() < ends:
        took.append(_round(engine, conn, rows))
    return took


def _round(engine: Engine, conn: psycopg.Connection, rows: int) -> float:
    """Seconds in which a batch is worked off."""
    before = _number(conn, LAST)
    conn.execute(engine.fill, {"rows": rows})
    began = time.perf_counter()
    until(lambda: _number(conn, UNFINISHED, {"before": before}) == 0, 300, "a batch", pause_s=0.005)
    return time.perf_counter() - began


def _number(conn: psycopg.Connection, statement: LiteralString, params: dict[str, int] | None = None) -> int:
    row = conn.execute(statement, params).fetchone()
    return int(row[0]) if row else 0
