"""Files of orders in the database: what a row of import_files holds, and how its orders get into orders_inbox."""

import json
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from listener.core.errors import Unreachable
from listener.db.pool import Pool
from listener.db.queries import query
from listener.db.transaction import Transaction, transaction

# Bytes that are read of a row's content at once.
SLICE_BYTES = 8_000_000
# For the report: how rejected orders get another chance once the cause is mended. The bytes of a folder's file were
# moved out of our reach.
_RETRY = "listener retry import --id {}"
_PLACE = re.compile(r"tuple (\(\d+,\d+\)) in relation")
_AGAIN = {"folder": "put the file back into the folder, from processed or failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of a file's orders; `found` is the sum of the others.

    ignored: older than what is stored, shipped already, or twice in the file.
    """

    found: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    ignored: int = 0
    rejected: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums."""
        return Counts(**{name: count + getattr(other, name) for name, count in asdict(self).items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Orders as rows of Postgres's COPY text. count: rows. beside: orders of this stretch that are no rows."""

    rows: bytes
    count: int
    beside: Counts = Counts()


class Merge:
    """The transaction of one file. Every method raises Unreachable, DatabaseError."""

    def __init__(self, pool: Pool, work: Transaction, order_source: str, usual_order_source: str) -> None:
        self.counts = Counts()
        self._pool = pool
        self._work = work
        self._usual = usual_order_source
        self._order_source = {"order_source": order_source}

    async def add(self, batch: Batch) -> None:
        """Put one batch of orders into orders_inbox."""
        self.counts = self.counts.plus(batch.beside)
        if not batch.count:
            return
        try:
            await self._add(batch)
        except Unreachable as error:
            raise await self._explained(error) from error

    async def _explained(self, error: Unreachable) -> Unreachable:
        """Name the order and who holds it, when it is a locked row that we could not wait for any longer."""
        cause = error.__cause__
        if not isinstance(cause, psycopg.errors.LockNotAvailable):
            return error
        place = _PLACE.search(cause.diag.context or "")
        found = (
            await self._pool.run(query("imports", "lock_holder"), {"place": place[1]}, name="import") if place else []
        )
        if not found:
            return error
        who = found[0]
        session = who["session"] or "another session"
        return Unreachable(
            f"order {who['order_number']!r:.60} in orders_inbox is locked by {session}: commit or end it; the file is"
            " tried again by itself, and nothing of it is stored until then"
        )

    async def _add(self, batch: Batch) -> None:
        await self._work.run(query("imports", "clear_orders"))
        await self._work.copy_in(query("imports", "copy_orders"), batch.rows)
        row = (await self._work.run(query("imports", "merge_orders"), self._order_source))[0]
        written = row["inserted"] + row["updated"]
        ignored = row["given"] - row["differing"] + row["older"]
        if row["differing"] > written + row["older"]:
            await self._work.run(query("imports", "touch_versions"), self._order_source)
        self.counts = self.counts.plus(
            Counts(
                found=row["given"],
                inserted=row["inserted"],
                updated=row["updated"],
                unchanged=row["given"] - written - ignored,
                ignored=ignored,
            )
        )

    async def commit_by_hand(self, name: str, *, sha256: str, size_bytes: int, rejects: Sequence[Any]) -> None:
        """Commit with a row of its own: nobody has claimed the file."""
        report = _report(self.counts, sha256, size_bytes, rejects, again="listener import, with the same file")
        await self._forget_copies(0, "inline", sha256)
        await self._work.run(query("imports", "record_imported"), {"name": name, **self._order_source, **report})
        await self._work.commit()

    async def commit(
        self, *, id_: int, claim_id: int, source: str, sha256: str, size_bytes: int, rejects: Sequence[Any]
    ) -> bool:
        """Write the report and commit; False = the claim was lost, and nothing is committed.

        A file of which every order was rejected is not remembered as imported.
        """
        counts = self.counts
        is_merged = counts.rejected < counts.found or not counts.found
        if is_merged:
            await self._forget_copies(id_, source, sha256)
        found = await self._work.run(
            query("imports", "record_file"),
            {
                "id": id_,
                "claim_id": claim_id,
                "is_merged": is_merged,
                **_report(counts, sha256, size_bytes, rejects, again=_AGAIN.get(source, _RETRY).format(id_)),
            },
        )
        if not found:
            return False
        await self._work.run(query("imports", "record_check"))
        await self._work.commit()
        return True

    async def _forget_copies(self, id_: int, source: str, sha256: str) -> None:
        params = {"id": id_, "source": source, "sha256": sha256, "usual": self._usual, **self._order_source}
        await self._work.run(query("imports", "forget_copies"), params)


@asynccontextmanager
async def merging(pool: Pool, order_source: str, *, usual_order_source: str) -> AsyncIterator[Merge]:
    """Open the transaction of one file.

    order_source: `orders_inbox.source` of its orders. usual_order_source: of the rows that name none.
    """
    async with transaction(pool, name="import merge") as work:
        await work.run(query("imports", "prepare_merge"))
        yield Merge(pool, work, order_source, usual_order_source)


async def read_content(pool: Pool, id_: int) -> AsyncIterator[bytes]:
    """Yield what the row holds, piece by piece; nothing when it holds nothing."""
    first = 1
    while True:
        params = {"id": id_, "first": first, "most": SLICE_BYTES}
        rows = await pool.run(query("imports", "content_slice"), params, name="import")
        if not rows or rows[0]["piece"] is None or not rows[0]["piece"]:
            return
        yield rows[0]["piece"]
        first += SLICE_BYTES
        if first > rows[0]["size_bytes"]:
            return


async def find_copy(
    pool: Pool, id_: int, *, source: str, sha256: str, order_source: str, usual_order_source: str
) -> tuple[int, str | None] | None:
    """Return id and name of another row of the source whose content was the same and is imported, as orders of the same
    order source (a row that names none is of the usual one), when merging it again could change nothing."""
    params = {"id": id_, "source": source, "sha256": sha256, "order_source": order_source, "usual": usual_order_source}
    rows = await pool.run(query("imports", "find_copy"), params, name="import")
    return (rows[0]["id"], rows[0]["name"]) if rows else None


async def offer_file(
    pool: Pool, *, source: str, uri: str, name: str, sha256: str, size_bytes: int, arrival: str
) -> int:
    """Make a file of a source work, unless its content is imported or waits already; the id of its row.

    arrival: tells one file from another that has the same name and bytes.
    """
    params = {
        "source": source, "uri": uri, "name": name, "sha256": sha256, "size_bytes": size_bytes, "arrival": arrival,
    }  # fmt: skip
    rows = await pool.run(query("imports", "offer_file"), params, name="import")
    return int(rows[0]["id"])


async def read_outcomes(pool: Pool, ids: Collection[int]) -> dict[int, str]:
    """Return id → status of those files that are done with; `Unread` = there was other content under that name."""
    rows = await pool.run(query("imports", "file_outcomes"), {"ids": list(ids)}, name="import")
    return {row["id"]: row["status"] for row in rows}


def _report(counts: Counts, sha256: str, size_bytes: int, rejects: Sequence[Any], *, again: str) -> dict[str, Any]:
    report = json.dumps({"rejected": list(rejects), "again": again}) if rejects else None
    return {"sha256": sha256, "size_bytes": size_bytes, "report": report, **asdict(counts)}


async def count_rejected(pool: Pool) -> dict[str, int | None]:
    """Return orders that were rejected, in how many files (`files`), and the newest of those (`newest_id`)."""
    return dict((await pool.run(query("imports", "rejected_orders"), name="status"))[0])
