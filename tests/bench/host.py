"""The private server of a run, a fresh database for each measurement, and the worker programs on it."""

import os
import platform
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from json import JSONDecodeError, loads
from pathlib import Path
from statistics import quantiles
from typing import Any

import psycopg

from bench.engines.base import Engine
from listener.db.embedded import Cluster

QUEUES = ("orders",)
#: How long a worker may take to do its first job, seconds.
_READY_S = 60.0
# The questions asked beside what is measured must not become sequential scans.
_CHEAP = "-c enable_seqscan=off -c enable_bitmapscan=off"


class Host:
    """One server, and a folder for files."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self._templates: dict[tuple[str, tuple[str, ...]], str] = {}
        self._number = 0

    @contextmanager
    def database(self, engine: Engine, queues: tuple[str, ...] = QUEUES) -> Iterator[str]:
        """Yield the address of a new database with the engine's empty queues."""
        made = (engine.module if engine.name != "raw" else "bench.engines.ours", queues)
        if made not in self._templates:
            name = self._name()
            self._admin(f"CREATE DATABASE {name}")
            engine.install(self.cluster.url(name), queues)
            self._templates[made] = name
        name = self._name()
        self._admin(f"CREATE DATABASE {name} TEMPLATE {self._templates[made]}")
        try:
            yield self.cluster.url(name)
        finally:
            self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    def versions(self, engines: Sequence[Engine]) -> dict[str, str]:
        """Of the server, of Python, and of what is measured."""
        with psycopg.connect(self.cluster.url()) as conn:
            found = {"postgres": str(conn.info.server_version), "python": platform.python_version()}
        needed = ("order-listener", "psycopg", *(name for engine in engines for name in engine.needs))
        return {**found, **{name: version(name) for name in needed}}

    def file(self) -> Path:
        """Return the name of a new file, for the stamps or the log of a worker."""
        return self.folder / self._name()

    @contextmanager
    def worker(
        self, engine: Engine, url: str, mode: str, stamps: Path | None = None, queues: tuple[str, ...] = QUEUES
    ) -> Iterator["Worker"]:
        """A worker program; killed at the end."""
        worker = Worker(engine, engine.command(url, mode, str(stamps or "-"), queues), self.file())
        try:
            yield worker
        finally:
            worker.kill()

    @contextmanager
    def ready_worker(
        self, engine: Engine, url: str, mode: str, stamps: Path | None = None
    ) -> Iterator[tuple["Worker", psycopg.Connection]]:
        """A worker that has done its first job, and a connection to its database."""
        with ExitStack() as stack:
            conn = stack.enter_context(connect(url))
            worker = stack.enter_context(self.worker(engine, url, mode, stamps))
            for _ in range(3):  # prepares statements, opens connections, fills caches
                engine.put(conn, -1)
                until(lambda: not engine.is_unfinished(conn), _READY_S, f"first job of {engine.name}", worker)
            yield worker, conn

    def _name(self) -> str:
        self._number += 1
        return f"bench_{self._number}"

    def _admin(self, statement: str) -> None:
        with psycopg.connect(self.cluster.url(), autocommit=True) as conn:
            conn.execute(statement.encode())


class Worker:
    """One worker program, its log in a file."""

    def __init__(self, engine: Engine, command: list[str], log: Path) -> None:
        self._log = log
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LISTENER_")}
        environ["LISTENER_LOG_FORMAT"] = "json"
        with log.open("w") as file:
            self.process = subprocess.Popen(command, env=environ, stdout=file, stderr=file)
        self.name = engine.name

    @property
    def log_text(self) -> str:
        return self._log.read_text(errors="replace")

    def said(self, event: str) -> dict[str, Any] | None:
        """The first line of a JSON log with this event."""
        for text in self.log_text.splitlines():
            try:
                line: dict[str, Any] = loads(text)
            except JSONDecodeError:
                continue
            if str(line.get("event", "")).startswith(event):
                return line
        return None

    def said_at(self, event: str) -> float | None:
        """When it said so, as seconds since 1970."""
        line = self.said(event)
        return None if line is None else datetime.fromisoformat(line["timestamp"]).timestamp()

    def cpu_s(self) -> float:
        """Processor seconds that it has used."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> float:
        """Kill it, at once and without a word; returns when."""
        now = time.time()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        return now


@contextmanager
def server(postgres: Path | None) -> Iterator[Host]:
    """A private server with fsync on, and a folder; both gone at the end."""
    with tempfile.TemporaryDirectory(prefix="listener-bench-") as folder:
        settings = {"max_wal_size": "8GB", "shared_buffers": "512MB", "max_connections": "200"}
        with Cluster(bin_dir=postgres, data_dir=Path(folder) / "data", settings=settings) as cluster:
            yield Host(cluster, Path(folder))


def connect(url: str) -> psycopg.Connection:
    """A connection for the bench's own questions."""
    return psycopg.connect(url, autocommit=True, options=_CHEAP, prepare_threshold=1)


def until(
    holds: Callable[[], bool], limit_s: float, what: str, worker: Worker | None = None, pause_s: float = 0.002
) -> None:
    """Wait; raises RuntimeError when it takes too long or the worker ends."""
    ends = time.monotonic() + limit_s
    while not holds():
        if worker is not None and worker.process.poll() is not None:
            raise RuntimeError(f"{what}: the worker ended: {worker.log_text[-2000:]}")
        if time.monotonic() > ends:
            raise RuntimeError(f"{what}: not within {limit_s:.0f} s: {worker.log_text[-2000:] if worker else ''}")
        time.sleep(pause_s)


def read_stamps(path: Path) -> list[tuple[int, float, int]]:
    """Number, time and process of each call, in the order in which they began."""
    if not path.exists():
        return []
    lines = (line.split() for line in path.read_text().splitlines())
    return [(int(seq), float(at), int(pid)) for seq, at, pid in lines if int(seq) >= 0]


def cuts(values_ms: list[float]) -> dict[str, float]:
    """p50 and p99."""
    points = quantiles(values_ms, n=100, method="inclusive")
    return {"p50": points[49], "p99": points[98]}
