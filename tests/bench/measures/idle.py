"""What an engine does while there is nothing to do: statements per second, and its share of a processor."""

import re
import time
from urllib.parse import urlsplit

import psycopg

from bench.engines.base import Engine
from bench.host import Host, until

_STATEMENT = re.compile(r"^@(\S+) .*LOG:  (statement|execute [^:]*): ")


def idle(host: Host, engine: Engine, seconds: float, queues: tuple[str, ...]) -> dict[str, float]:
    """The server logs every statement of the database; those of the bench are on other databases."""
    with host.database(engine, queues) as url:
        name = urlsplit(url).path[1:]
        with psycopg.connect(host.cluster.url(), autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET log_line_prefix = '@%d '")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"ALTER DATABASE {name} SET log_statement = 'all'".encode())
        with host.worker(engine, url, "stamp", queues=queues) as worker:
            until(lambda: _statements(host, name) > 0, 60, f"{engine.name} starts", worker)
            time.sleep(min(seconds, 5))  # its start is over
            before, cpu_s, began = _statements(host, name), worker.cpu_s(), time.monotonic()
            time.sleep(seconds)
            took_s = time.monotonic() - began
            return {
                "statements_per_s": (_statements(host, name) - before) / took_s,
                "cpu_percent": 100 * (worker.cpu_s() - cpu_s) / took_s,
            }


def _statements(host: Host, name: str) -> int:
    found = (_STATEMENT.match(line) for line in host.cluster.log_path.read_text(errors="replace").splitlines())
    return sum(match is not None and match[1] == name for match in found)
