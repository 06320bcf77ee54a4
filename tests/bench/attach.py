"""How long `listener attach` and `listener detach` take on a large table in use, and how long its writers wait.

    .venv/bin/python -m bench.attach            (from the folder tests/)

A private PostgreSQL with fsync on, a table of --rows rows, and --writers connections that each commit one insert and
one update after the other. Prints the longest commit of a writer before, during attach and during detach.
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from listener.db.attach import Wish, attach, detach
from listener.db.embedded import Cluster
from listener.db.migrate import migrate

TABLE = "CREATE TABLE invoices (id bigserial PRIMARY KEY, customer text, amount numeric(10, 2), note text)"
FILL = """INSERT INTO invoices (customer, amount, note)
SELECT 'customer ' || n %% 1000, n %% 500, repeat('x', 100) FROM generate_series(1, %s) AS n"""
INSERT = "INSERT INTO invoices (customer, amount) VALUES ('new', 1)"
UPDATE = "UPDATE invoices SET amount = amount + 1 WHERE id = %s"


class Writers:
    """Connections that write until `stop`, and the seconds that each commit took."""

    def __init__(self, url: str, count: int, rows: int) -> None:
        self._url, self._rows = url, rows
        self._stopped = threading.Event()
        self.commits: list[tuple[float, float]] = []
        self._threads = [threading.Thread(target=self._write, args=(seed,)) for seed in range(count)]

    def __enter__(self) -> "Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _write(self, seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self._stopped.is_set():
                began = time.perf_counter()
                if chance.random() < 0.5:
                    conn.execute(INSERT)
                else:
                    conn.execute(UPDATE, [chance.randint(1, self._rows)])
                self.commits.append((began, time.perf_counter() - began))

    def during(self, name: str, work: Callable[[], object]) -> str:
        """Do the work; one line of the table."""
        began = time.perf_counter()
        work()
        ended = time.perf_counter()
        took = sorted(took for at, took in self.commits if at <= ended and at + took >= began)
        p50, p99 = (1000 * took[int(len(took) * part)] for part in (0.5, 0.99))
        rate = len(took) / (ended - began)
        return f"| {name} | {ended - began:.1f} | {rate:,.0f} | {p50:.1f} | {p99:.1f} | {1000 * took[-1]:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", type=Path, help="directory of PostgreSQL binaries; default: the embedded 18")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--quiet", type=float, default=10.0, help="seconds of writing before and after")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="listener-bench-") as folder:
        cluster = Cluster(bin_dir=options.postgres, data_dir=Path(folder) / "data", settings={"max_wal_size": "8GB"})
        with cluster:
            url = cluster.url()
            migrate(url, "public")
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute(TABLE)
                conn.execute(FILL, [options.rows])
                conn.execute("VACUUM ANALYZE invoices")
                conn.execute("CHECKPOINT")
            with Writers(url, options.writers, options.rows) as writers:
                lines = [
                    writers.during("before", lambda: time.sleep(options.quiet)),
                    writers.during("attach", lambda: attach(url, "public", Wish(table="invoices"))),
                    writers.during("attached", lambda: time.sleep(options.quiet)),
                    writers.during("detach", lambda: detach(url, "public", "invoices")),
                    writers.during("after", lambda: time.sleep(options.quiet)),
                ]
    print(f"{options.rows:,} rows, {options.writers} writers; one commit in milliseconds")
    print("| phase | seconds | commits/s | p50 | p99 | longest |", "|---|---|---|---|---|---|", *lines, sep="\n")


if __name__ == "__main__":
    main()
