"""What a measurement knows of an engine, and what every worker program has in common."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

#: What a row carries beside its number: 500 bytes in all.
FILLING = "x" * 470

#: Rows, or jobs of a peer, are told from each other by this part of their payload.
SEQ = "seq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine. Its worker is the module's program: `python -m MODULE URL MODE STAMPS QUEUE…`.

    Modes: `noop` (batches of the natural size), `sleep` (5 ms, 100 at a time), `stamp` (one at a time, writes its
    start to the file STAMPS), `hang` (100 at a time, writes its start and never ends). STAMPS: - for none.

    needs: modules that must be importable. install: what makes a migrated, empty database into one that holds these
    queues. insert: one job by its number. fill: so many jobs at once. unfinished, begun: is there a job that is not
    done, one that was taken. scale: part of the rows that it gets, so that slow ones end in time.
    """

    name: str
    module: str
    install: Callable[[str, tuple[str, ...]], None]
    insert: LiteralString
    fill: LiteralString
    unfinished: LiteralString
    begun: LiteralString
    needs: tuple[str, ...] = ()
    scale: float = 1.0

    def command(self, url: str, mode: str, stamps: str, queues: tuple[str, ...]) -> list[str]:
        """Return the worker's command line."""
        return [sys.executable, "-m", self.module, url, mode, stamps, *queues]

    def put(self, conn: psycopg.Connection, seq: int) -> None:
        """Commit one job."""
        conn.execute(self.insert, {"seq": seq})

    def is_unfinished(self, conn: psycopg.Connection) -> bool:
        """Tell whether any job is not done; cheap, as it is asked again and again beside what is measured."""
        return _truth(conn, self.unfinished)

    def has_begun(self, conn: psycopg.Connection) -> bool:
        """Tell whether any job was taken."""
        return _truth(conn, self.begun)


def _truth(conn: psycopg.Connection, statement: LiteralString) -> bool:
    row = conn.execute(statement).fetchone()
    return bool(row and row[0])


class Stamps:
    """Where handlers note when they began, one short write each, so that many processes share a file."""

    def __init__(self, path: str) -> None:
        self._descriptor = None if path == "-" else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, payload: Any) -> None:
        """Call first thing in a handler."""
        now = time.time()
        if self._descriptor is not None:
            os.write(self._descriptor, b"%d %.6f %d\n" % (payload[SEQ], now, os.getpid()))
