"""What a sync stores, page by page: rows, how far it has got, and its figures, all in one transaction that is fenced by
the run's claim. The number of statements does not depend on the number of rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from listener.core.errors import ClaimLost
from listener.db.pool import Connection, Pool
from listener.db.queries import query


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """How far a list has been read. mark: up to this moment (None: not to the end yet). cursor: where to go on."""

    workflow: str
    mark: datetime | None
    cursor: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one page changed. unknown: new orders that the inbox does not know. rows: of the inbox."""

    changed: int = 0
    unknown: int = 0
    rows: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What goes into one transaction. orders, parcels: records as `store_orders` and `store_parcels` read them.

    unread: members place, query, row, error. checked: an order whose parcels were asked for. done, again: quarantine
    entries that are read by now, or not yet. is_last: of its run; rows of the inbox that were locked are tried again.
    """

    list: str
    orders: Sequence[Mapping[str, Any]] = ()
    parcels: Sequence[Mapping[str, Any]] = ()
    unread: Sequence[Mapping[str, Any]] = ()
    advances: Sequence[Advance] = ()
    checked: int | None = None
    done: Sequence[int] = ()
    again: Sequence[int] = ()
    is_last: bool = False


@dataclass(slots=True, kw_only=True)
class Holder:
    """The run that stores. begun_at: when it began, by the database's clock. is_dry: it says what it would change, and
    changes nothing. seen: what a dry run has counted, which finds the same again on the next page."""

    run_id: int
    claim_id: int
    begun_at: datetime
    is_dry: bool = False
    seen: set[tuple[str, int]] = field(default_factory=set)

    def count(self, kind: str, ids: Iterable[int]) -> int:
        """Count records that change."""
        found = [(kind, each) for each in ids]
        if self.is_dry:
            found = [each for each in dict.fromkeys(found) if each not in self.seen]
            self.seen.update(found)
        return len(found)


class _Undo(Exception):  # noqa: N818
    """Ends a dry run's transaction without a commit."""

    def __init__(self, stored: Stored) -> None:
        super().__init__()
        self.stored = stored


class SyncState:
    """The state of one account. All raise Unreachable, DatabaseError."""

    def __init__(self, pool: Pool, *, account: str) -> None:
        self._pool = pool
        self._account = {"account": account}

    async def marks(self, workflows: Sequence[str]) -> dict[str, tuple[datetime | None, Mapping[str, Any] | None]]:
        """Read watermark and cursor of each workflow that has any."""
        rows = await self._run("marks", {"workflows": list(workflows)})
        return {row["workflow"]: (row["watermark"], row["cursor"]) for row in rows}

    async def suspects(self, most: int) -> list[int]:
        """Read the orders whose fulfillments must be asked for by their order."""
        return [row["order_id"] for row in await self._run("suspects", {"most": most})]

    async def quarantine_due(self, most: int) -> list[dict[str, Any]]:
        """Read the quarantined lists whose next try has come: list, query, ids and places of their entries."""
        return await self._run("quarantine_due", {"most": most})

    async def store(self, batch: Batch, run: Holder, *, stats: Mapping[str, Any]) -> Stored:
        """Store a batch if the run still holds its claim. stats: of the run, before this batch. Raises ClaimLost."""

        async def work(conn: Connection) -> Stored:
            if not await self._ask(conn, "hold_run", {"run_id": run.run_id, "claim_id": run.claim_id}):
                raise ClaimLost(f"sync run {run.run_id} is not ours any more")
            stored = await self._store(conn, batch, run)
            if run.is_dry:
                raise _Undo(stored)
            await self._ask(conn, "write_stats", {"run_id": run.run_id, "stats": json.dumps(added(stats, stored))})
            return stored

        try:
            return await self._pool.transaction(work, name="sync")
        except _Undo as undo:
            return undo.stored

    async def _store(self, conn: Connection, batch: Batch, run: Holder) -> Stored:
        changed = unknown = rows = 0
        if batch.orders:
            stored = await self._ask(conn, "store_orders", {"rows": json.dumps(batch.orders)})
            ids = [row["order_id"] for row in stored]
            changed = run.count("order", ids)
            linked = [row["order_id"] for row in await self._ask(conn, "link_parts", {"order_ids": ids})]
            new = (row["order_id"] for row in stored if row["is_unknown"] and row["is_new"])
            unknown = run.count("unknown", set(new).difference(linked))
            ids += linked
            await self._ask(conn, "suspect_parcels", {"order_ids": ids})
            rows = await self._fold(conn, ids, run)
        if batch.parcels:
            stored = await self._ask(conn, "store_parcels", {"rows": json.dumps(batch.parcels)})
            changed = run.count(batch.list.replace("voids", "shipments"), (row["parcel_id"] for row in stored))
            rows = await self._fold(conn, [row["order_id"] for row in stored], run)
        if batch.is_last:
            rows = await self._fold(conn, [row["order_id"] for row in await self._ask(conn, "left", {})], run)
        quarantined = await self._keep_aside(conn, batch)
        for each in batch.advances:
            cursor = None if each.cursor is None else json.dumps(each.cursor)
            await self._ask(conn, "advance", {"workflow": each.workflow, "mark": each.mark, "cursor": cursor})
        return Stored(changed=changed, unknown=unknown, rows=rows, quarantined=quarantined)

    async def _fold(self, conn: Connection, order_ids: Sequence[int], run: Holder) -> int:
        """Tell the inbox; returns how many of its rows the run had not written before."""
        if not order_ids:
            return 0
        told = await self._ask(conn, "fold", {"order_ids": list(order_ids), "begun": run.begun_at})
        return run.count("row", (row["id"] for row in told if row["is_first"]))

    async def _keep_aside(self, conn: Connection, batch: Batch) -> int:
        if batch.checked is not None:
            await self._ask(conn, "checked_parcels", {"order_id": batch.checked})
        if batch.done:
            await self._ask(conn, "quarantine_resolved", {"ids": list(batch.done)})
        if batch.again:
            await self._ask(conn, "quarantine_again", {"ids": list(batch.again)})
        if not batch.unread:
            return 0
        entries = {"list": batch.list, "entries": json.dumps(batch.unread)}
        return sum(row["is_new"] for row in await self._ask(conn, "quarantine", entries))

    async def _run(self, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        return await self._pool.run(query("sync", name), {**self._account, **params}, name="sync")

    async def _ask(self, conn: Connection, name: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        cursor = await conn.execute(query("sync", name), {**self._account, **params})
        return await cursor.fetchall() if cursor.description is not None else []


def added(stats: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """Add to a run's figures what one batch changed."""
    more = {
        "changed": stored.changed,
        "unknown": stored.unknown,
        "rows": stored.rows,
        "quarantined": stored.quarantined,
    }
    return {**stats, **{name: stats.get(name, 0) + count for name, count in more.items()}}
