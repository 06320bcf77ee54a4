"""The figures that `listener rollout check` judges, from the database alone."""

from collections.abc import Sequence

from psycopg.rows import DictRow

from listener.db.pool import Pool
from listener.db.queries import query


class Figures:
    """What happened in the last `hours` hours. All raise Unreachable, DatabaseError."""

    def __init__(self, pool: Pool, hours: float) -> None:
        self._pool = pool
        self._hours = hours

    async def checks(self, *, gap_h: float) -> dict[str, DictRow]:
        """Workflow → its safety checks; gap_h: hours without any, after which the watch began anew."""
        return {row["workflow"]: row for row in await self._ask("checks", gap_h=gap_h)}

    async def uploads(self) -> DictRow:
        """Orders that were uploaded or failed, and how long they took, in seconds."""
        return (await self._ask("uploads"))[0]

    async def files(self) -> DictRow:
        """Files that were imported or failed."""
        return (await self._ask("files"))[0]

    async def syncs(self) -> DictRow:
        """Sync runs that succeeded or failed."""
        return (await self._ask("syncs"))[0]

    async def unchanged_h(self, keys: Sequence[str]) -> float | None:
        """Hours since one of these keys was changed; None = never."""
        rows = await self._pool.run(query("rollout", "stage_settings"), {"keys": list(keys)}, name="rollout")
        hours: float | None = rows[0]["unchanged_h"]
        return hours

    async def connections(self) -> int:
        """Connections of the service now."""
        return int((await self._pool.run(query("rollout", "connected"), {}, name="rollout"))[0]["ours"])

    async def _ask(self, name: str, **params: float) -> list[DictRow]:
        return await self._pool.run(query("rollout", name), {"hours": self._hours, **params}, name="rollout")
