"""How fast a backlog is worked off: jobs per second, from the first taken row to none that is open."""

import time

from bench.engines.base import Engine
from bench.host import Host, connect, until

_LIMIT_S = 900.0


def drain(host: Host, engine: Engine, mode: str, rows: int) -> dict[str, float]:
    """The worker starts on a full table, so that nothing but its work is measured."""
    rows = max(int(rows * engine.scale), 100)
    with host.database(engine) as url, connect(url) as conn:
        conn.execute(engine.fill, {"rows": rows})
        conn.execute("VACUUM ANALYZE")
        with host.worker(engine, url, mode) as worker:
            until(lambda: engine.has_begun(conn), 60, f"{engine.name} takes its first row", worker, 0.001)
            began = time.perf_counter()
            until(lambda: not engine.is_unfinished(conn), _LIMIT_S, f"{engine.name} drains", worker, 0.005)
            return {"jobs_per_s": rows / (time.perf_counter() - began)}
