"""A desk where files are imported by hand: insert, claim, handle, settle, as the engine does."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from conftest import Database
from psycopg.rows import dict_row
from queues import SESSION, open_pool

from listener.core.events import Event
from listener.core.job import Job, settlement
from listener.core.outcome import Outcome
from listener.core.retry import Backoff
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.sources import SourceState, Turn
from listener.workflows.imports.found import Rules
from listener.workflows.imports.handler import Import, Opener, Settings
from listener.workflows.imports.words import parse_words
from listener.workflows.queues import IMPORT

RULES = Rules(zone=UTC)


class Desk:
    """One database, one handler."""

    def __init__(self, database: Database, pool: Pool, handler: Import) -> None:
        self.database = database
        self.table = QueueTable(pool, IMPORT)
        self.handler = handler

    def insert(self, content: str | bytes, *, name: str = "orders.xml", **columns: Any) -> int:
        """Insert a file, bytes as a download; its id."""
        where = "body" if isinstance(content, bytes) else "content"
        row = {"name": name, where: content, "source": "http" if isinstance(content, bytes) else "inline", **columns}
        marks = ", ".join(["%s"] * len(row))
        [(id_,)] = self.database.execute(
            f"INSERT INTO import_files ({', '.join(row)}) VALUES ({marks}) RETURNING id", list(row.values())
        )
        return id_

    async def claim(self) -> Job:
        claim = await self.table.claim(limit=1, session_key=SESSION)
        return claim.jobs[0]

    async def settle(self, job: Job, outcome: Outcome) -> None:
        done = settlement(job, outcome, max_attempts=10, backoff=Backoff(), jitter=0.5)
        await self.table.settle([done])

    async def work(self) -> None:
        """Import whatever waits."""
        while (claim := await self.table.claim(limit=1, session_key=SESSION)).jobs:
            for job in claim.jobs:
                [outcome] = await self.handler([job])
                await self.settle(job, outcome)

    async def take(self, content: str | bytes, **columns: Any) -> dict[str, Any]:
        """Insert and import one file; its row."""
        id_ = self.insert(content, **columns)
        await self.work()
        return self.row(id_)

    def row(self, id_: int) -> dict[str, Any]:
        """One row of import_files; `counts`: its figures by their words."""
        with self.database.connect(row_factory=dict_row) as conn:
            [row] = conn.execute("SELECT * FROM import_files WHERE id = %s", [id_]).fetchall()
        words = ("found", "inserted", "updated", "unchanged", "ignored", "rejected")
        row["counts"] = {word: row[f"orders_{word}"] for word in words if row[f"orders_{word}"]}
        return row

    def orders(self) -> dict[str, dict[str, Any]]:
        """Number → row of orders_inbox."""
        with self.database.connect(row_factory=dict_row) as conn:
            rows = conn.execute("SELECT * FROM orders_inbox ORDER BY id").fetchall()
        return {row["order_number"]: row for row in rows}


class Outside(Protocol):
    """A source that is asked now and then."""

    async def look(self, turn: Turn) -> None: ...


class Counter:
    """A source outside, and the desk where its files are imported."""

    def __init__(self, d: Desk, source: Outside, state: SourceState) -> None:
        self.desk, self.source, self.state = d, source, state
        self.events: list[Event] = []

    async def look(self) -> None:
        turn = await self.state.take_turn(0.0)
        assert turn is not None
        await self.source.look(turn)

    async def numbers(self) -> set[str]:
        """Import what waits; the numbers of all orders."""
        await self.desk.work()
        return set(self.desk.orders())


@asynccontextmanager
async def desk(
    database: Database,
    *,
    zone: str = "UTC",
    words: str = "",
    openers: Mapping[str, Opener] | None = None,
    **limits: Any,
) -> AsyncIterator[Desk]:
    """Open a desk. limits: fields of Rules."""
    settings = Settings(
        order_source="xml", rules=replace(RULES, zone=ZoneInfo(zone), **limits), words=parse_words(words)
    )
    async with open_pool(database) as pool:
        yield Desk(database, pool, Import(pool, settings, lambda _event: None, openers))
