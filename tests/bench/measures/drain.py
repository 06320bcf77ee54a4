"""How fast a backlog is worked off: jobs per second, from the first taken row to none that is open."""

import time

from bench.engines.base import Engine
from bench.host import Host, connect, until

_LIMIT_S = 900.0


_NO_AUTOVACUUM = "ALTER TABLE orders SET (autovacuum_enabled = off)"


def drain(host: Host, engine: Engine, mode: str, rows: int, analyzed: str = "full") -> dict[str, float]:
    """The worker starts on a full table, so that nothing but its work is measured.

    analyzed: the statistics were taken while the table was `full` or `empty`, or `never` (these two: our table only).
    """
    rows = max(int(rows * engine.scale), 100)
    with host.database(engine) as url, connect(url) as conn:
        if analyzed != "full":
            conn.execute(_NO_AUTOVACUUM)
        if analyzed == "empty":
            conn.execute("VACUUM ANALYZE")
        conn.execute(engine.fill, {"rows": rows})
        if analyzed == "full":
            conn.execute("VACUUM ANALYZE")
        with host.worker(engine, url, mode) as worker:
            until(lambda: engine.has_begun(conn), 60, f"{engine.name} takes its first row", worker, 0.001)
            began = time.perf_counter()
            until(lambda: not engine.is_unfinished(conn), _LIMIT_S, f"{engine.name} drains", worker, 0.005)
            return {"jobs_per_s": rows / (time.perf_counter() - began)}
