"""Sources of order files that are asked now and then: whose turn it is, what was found, and how far was read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from listener.core.errors import DatabaseError
from listener.db.pool import Connection, Pool
from listener.db.queries import query

# Files of one INSERT; a listing of a million is not one statement.
MOST_FILES = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The right to look now. watermark, cursor: how far was read before. now: by the database's clock."""

    watermark: datetime | None
    cursor: Mapping[str, Any] | None
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A file that was fetched with its content."""

    uri: str
    name: str
    body: bytes
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A version of a file that lies at the source. fault: why it can never be read; None = it can."""

    uri: str
    name: str
    version: str
    size_bytes: int | None
    fault: str | None = None


class SourceState:
    """The state of one source; source: in `import_files`. All raise Unreachable, DatabaseError."""

    def __init__(self, pool: Pool, *, source: str, workflow: str, account: str) -> None:
        self._pool = pool
        self._source = source
        self._key = {"workflow": workflow, "account": account}

    async def take_turn(self, interval_s: float) -> Turn | None:
        """Take the turn if the last one is `interval_s` ago, of all processes."""
        rows = await self._run("take_turn", {"interval_s": interval_s})
        return Turn(**rows[0]) if rows else None

    async def turn_due_s(self, interval_s: float) -> float:
        """Return seconds until the next turn."""
        return float((await self._run("turn_due", {"interval_s": interval_s}))[0]["wait_s"])

    async def hurry_turn(self, interval_s: float, again_s: float) -> None:
        """Let the next turn be due in `again_s` seconds already."""
        await self._run("hurry_turn", {"interval_s": interval_s, "again_s": min(again_s, interval_s)})

    async def put_pages(self, pages: Iterable[Page], *, watermark: datetime) -> None:
        """Make fetched files work, and note that everything up to `watermark` is there: both or neither."""

        async def work(conn: Connection) -> None:
            for page in pages:
                await conn.execute(query("sources", "put_page"), {**asdict(page), "size_bytes": len(page.body)})
            await self._save(conn, watermark=watermark, cursor=None)

        await self._pool.transaction(work, name="import source")

    async def put_files(self, offers: Sequence[Offer], *, cursor: Mapping[str, Any] | None) -> None:
        """Make versions of files work and, with the last of them, note where to go on: both or neither.

        cursor: None = there are more to come.
        """

        async def work(conn: Connection) -> None:
            for first in range(0, len(offers), MOST_FILES):
                files = json.dumps([asdict(offer) for offer in offers[first : first + MOST_FILES]])
                await conn.execute(query("sources", "put_files"), {"source": self._source, "files": files})
            if cursor is not None:
                await self._save(conn, watermark=None, cursor=json.dumps(cursor))

        await self._pool.transaction(work, name="import source")

    async def _save(self, conn: Connection, *, watermark: datetime | None, cursor: str | None) -> None:
        place = {**self._key, "watermark": watermark, "cursor": cursor}
        found = await (await conn.execute(query("sources", "save_place"), place)).fetchall()
        if not found:
            raise DatabaseError(f"polling_state has no row {self._key} any more: somebody has deleted it")

    async def _run(self, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await self._pool.run(query("sources", name), {**self._key, **params}, name="import source")
