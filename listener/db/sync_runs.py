"""`sync_runs` beyond its life as a queue: who asks for a run, and what became of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from listener.core.errors import ClaimLost
from listener.db.pool import Pool
from listener.db.queries import query


@dataclass(frozen=True, slots=True)
class Due:
    """What a look at the schedule found. age_s: seconds since the last run started, None = never. run_id: inserted.

    planned_for: that one waited already, for this later time. strays: runs that a hand had set to Processing.
    """

    age_s: float | None
    run_id: int | None
    planned_for: str | None = None
    strays: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """The time by the database's clock, and when the run was claimed for the first time."""

    now: datetime
    started_at: datetime


class SyncRuns:
    """The runs of one account. All raise Unreachable, DatabaseError."""

    def __init__(self, pool: Pool, *, connector: str, account: str) -> None:
        self._pool = pool
        self._key = {"connector": connector, "account": account}

    async def schedule(self, *, interval_s: float, wide_minutes: int) -> Due:
        """Insert the next run if it is due and none is waiting; on any number of replicas, one comes of it.

        wide_minutes: how far back one of a day's runs looks.
        """
        strays = await self._fail_strays()
        params = {**self._key, "interval_s": float(interval_s), "wide_minutes": wide_minutes}
        rows = await self._pool.run(query("sync", "schedule_run"), params, name="sync schedule")
        return Due(**rows[0], strays=strays)

    async def request(self, params: Mapping[str, Any]) -> int | None:
        """Insert a person's run, or join one that waits and that was left; returns its id.

        None when one is working already, or waits for somebody: another command too. What a dead session left must be
        rescued before.
        """
        await self._fail_strays()
        values = {**self._key, "params": json.dumps(dict(params))}
        for name in ("request_run", "join_run"):
            if rows := await self._pool.run(query("sync", name), values, name="sync"):
                return int(rows[0]["id"])
        return None

    async def stand_by(self, run_id: int, *, stays: bool) -> None:
        """Say that a command waits for this run, or does no more; no other one joins it meanwhile.

        Without a word for 15 seconds it counts as dead.
        """
        await self._pool.run(query("sync", "stand_by"), {"run_id": run_id, "stays": stays}, name="sync")

    async def in_the_way(self) -> dict[str, Any] | None:
        """Read the run because of which `request` inserts none: id, status, reason, times, is_later,
        is_new."""
        rows = await self._pool.run(query("sync", "open_run"), self._key, name="sync")
        return rows[0] if rows else None

    async def _fail_strays(self) -> tuple[int, ...]:
        return tuple(row["id"] for row in await self._pool.run(query("sync", "fail_strays"), self._key, name="sync"))

    async def read(self, run_id: int) -> dict[str, Any] | None:
        """Read one run."""
        rows = await self._pool.run(query("sync", "read_run"), {"run_id": run_id}, name="sync")
        return rows[0] if rows else None

    async def begin(self, run_id: int, claim_id: int) -> Begun:
        """Note the start of a claimed run. Raises ClaimLost."""
        rows = await self._pool.run(query("sync", "begin_run"), {"run_id": run_id, "claim_id": claim_id}, name="sync")
        if not rows:
            raise ClaimLost(f"sync run {run_id} is not ours any more")
        return Begun(**rows[0])

    async def monitor(self) -> dict[str, Any]:
        """Read whether syncs run: newest run, watermarks, sums, what lies aside."""
        rows = await self._pool.run(query("sync", "monitor"), self._key, name="sync")
        return rows[0]

    async def reset_statistics(self) -> None:
        """Begin the sums of `monitor` anew."""
        await self._pool.run(query("sync", "reset_statistics"), self._key, name="sync")

    async def receive(self, *, dedupe_key: str, body: bytes, url: str) -> int | None:
        """Keep a webhook and start a run that reads `url`; returns the run, None for a repeat."""
        params = {**self._key, "dedupe_key": dedupe_key, "body": body, "url": url}
        rows = await self._pool.run(query("sync", "receive_webhook"), params, name="webhook")
        run_id: int | None = rows[0]["run_id"]
        return run_id

    async def clean(self, days: int) -> int:
        """Delete runs that ended and webhooks that came more than `days` ago, at most 2,000; returns how many."""
        rows = await self._pool.run(query("sync", "clean"), {**self._key, "days": days}, name="sync clean-up")
        return int(rows[0]["deleted"])
