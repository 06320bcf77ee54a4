"""What the routes show, gathered from the parts of one process. Implements `api.Service`; changes nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import anyio

from listener.core.errors import DatabaseError, Unreachable
from listener.db.budgets import read_budgets
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.session import count_connections
from listener.engine.configuration import Configuration
from listener.engine.slots import Slots
from listener.engine.supervisor import Supervisor
from listener.obs.metrics import Metrics
from listener.obs.operations import Operations

# Half of what a scrape may take, deploy/prometheus/prometheus.yml. A statement that waits for a lock cannot be left and
# takes longer: the process would be taken for dead.
_SCRAPE_S = 5.0


class Figures:
    """Reads the process and its database.

    accounts: (connector, account) that this process works with; another key's pause is not its affair.
    """

    def __init__(
        self,
        pool: Pool,
        tables: Sequence[QueueTable],
        supervisor: Supervisor,
        slots: Slots,
        metrics: Metrics,
        operations: Operations,
        configuration: Configuration,
        *,
        accounts: frozenset[tuple[str, str]],
    ) -> None:
        self._pool = pool
        self._tables = tables
        self._supervisor = supervisor
        self._slots = slots
        self._metrics = metrics
        self._operations = operations
        self._configuration = configuration
        self._accounts = accounts
        self._asked = anyio.Event()
        self._answered = anyio.Event()

    async def run(self) -> None:
        """Read the gauges from the database whenever a scrape asks; those that ask meanwhile get the same answer."""
        while True:
            await self._asked.wait()
            try:
                await self._read_gauges()
            except DatabaseError:
                # not swallowed: the session gauge and /readyz tell it; an old figure would be a lie
                self._metrics.forget_depths()
            self._asked = anyio.Event()
            self._answered.set()
            self._answered = anyio.Event()

    async def metrics(self) -> bytes:
        """Return the exposition text, with gauges read from the database now, or none where that takes too long."""
        self._metrics.show_pool(self._pool.stats())
        self._asked.set()
        with anyio.move_on_after(_SCRAPE_S) as patience:
            await self._answered.wait()
        if patience.cancelled_caught:
            self._metrics.forget_depths()
        return self._metrics.render()

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Name every part. A paused connector does not make the process unready: restarting it would mend nothing."""
        parts: dict[str, Any] = {
            "database": {"status": "ok"},
            "session": {"status": self._supervisor.state, "detail": self._supervisor.detail},
            "configuration": self._read_configuration(),
            "connectors": None,
        }
        try:
            self._require_session()
            parts["connectors"] = {f"{b['connector']} {b['account']}": _connector(b) for b in await self._budgets()}
        except DatabaseError as error:
            parts["database"] = {"status": "down", "detail": str(error)}
        troubles = self._supervisor.troubles()
        parts["queues"] = {
            table.queue.name: {"status": "trouble", "detail": troubles[table.queue.name]}
            if table.queue.name in troubles
            else {"status": "ok"}
            for table in self._tables
        }
        is_ready = parts["database"]["status"] == "ok" and self._supervisor.state == "connected" and not troubles
        return is_ready, parts

    def summary(self) -> str:
        """Return the session's state in a few words, without asking the database."""
        return f"{self._supervisor.state}: {self._supervisor.detail}"

    def pool(self) -> dict[str, Any]:
        """Return the pool's figures; it has no overflow: `max` is the limit."""
        stats = self._pool.stats()
        size, idle = stats.get("pool_size", 0), stats.get("pool_available", 0)
        return {
            "size": size,
            "idle": idle,
            "checked_out": size - idle,
            "min": stats.get("pool_min", 0),
            "max": stats.get("pool_max", 0),
            "overflow": 0,
            "waiting": stats.get("requests_waiting", 0),
            "active_operations": self._slots.active,
        }

    def operations(self) -> list[dict[str, Any]]:
        """Return the handler calls under way."""
        return [
            {"id": o.id, "queue": o.queue, "jobs": o.jobs, "running_seconds": round(o.running_s, 3)}
            for o in self._operations.running()
        ]

    async def queues(self) -> list[dict[str, Any]]:
        """Return every queue's figures. Raises DatabaseError."""
        self._require_session()
        return [
            {
                "queue": table.queue.name,
                "table": table.queue.table,
                **asdict(await table.depth()),
                "active_operations": self._slots.active_of(table.queue.name),
            }
            for table in self._tables
        ]

    async def _read_gauges(self) -> None:
        self._require_session()
        for table in self._tables:
            depth = await table.depth()
            self._metrics.show_depth(
                table.queue.name, pending=depth.pending, failed=depth.failed, oldest_pending_s=depth.oldest_pending_s
            )
        for budget in await self._budgets():
            self._metrics.show_budget(budget)
        self._metrics.show_connections(await count_connections(self._pool))

    def _read_configuration(self) -> dict[str, Any]:
        """A value that is not in force makes nobody unready: the one before it is."""
        held = self._configuration
        return {
            "status": "not as written" if held.invalid else "ok",
            "version": held.version,
            "invalid": held.invalid,
            "missing": held.missing,
            "unknown": held.unknown,
        }

    async def _budgets(self) -> list[dict[str, Any]]:
        return [b for b in await read_budgets(self._pool) if (b["connector"], b["account"]) in self._accounts]

    def _require_session(self) -> None:
        """Say at once that the database is away: the pool would wait 10 s for it, as long as a scrape may take."""
        if self._supervisor.state not in ("connected", "stopping"):
            raise Unreachable(f"no database session: {self._supervisor.detail}")


def _connector(budget: dict[str, Any]) -> dict[str, Any]:
    if not budget["is_paused"]:
        return {"status": "ok", "calls_left": budget["remaining"] if budget["is_limited"] else None}
    return {
        "status": "paused",
        "reason": budget["pause_reason"],
        "detail": budget["pause_message"],
        "since": budget["paused_at"] and budget["paused_at"].isoformat(),  # None: a person paused it
        "probe_in_seconds": round(budget["probe_in_s"], 1),
    }
