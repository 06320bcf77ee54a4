"""`listener status` and `listener retry`: read and ask the database, no running process needed."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from listener.app import QUEUES
from listener.cli.database import opened
from listener.config.environment import Environment
from listener.db.budgets import read_budgets
from listener.db.queue import QueueTable
from listener.db.session import read_live_sessions


async def read(env: Environment) -> dict[str, Any]:
    """Return queues, sessions and connectors. Raises Unreachable, DatabaseError, Unmigrated."""
    async with opened(env) as pool:
        return {
            "queues": {name: asdict(await QueueTable(pool, queue).depth()) for name, queue in QUEUES.items()},
            "sessions": await read_live_sessions(pool),
            "connectors": await read_budgets(pool),
        }


def render(figures: dict[str, Any]) -> str:
    """Return the figures as a person reads them."""
    lines = ["queue      pending  processing  failed  oldest due"]
    for name, depth in figures["queues"].items():
        counts = f"{depth['pending']:>7}  {depth['processing']:>10}  {depth['failed']:>6}"
        lines.append(f"{name:<10} {counts}  {depth['oldest_pending_s']:>8.1f} s")
    sessions = figures["sessions"]
    lines.append("")
    lines.append(f"live sessions: {len(sessions)}" + ("" if sessions else " (no listener is running)"))
    lines += [
        f"  session {s['session_key']}: backend {s['pid']}, since {s['backend_start']:%Y-%m-%d %H:%M:%S%z}"
        for s in sessions
    ]
    for b in figures["connectors"]:
        state = (
            f"paused ({b['pause_reason']}): {b['pause_message']}"
            if b["is_paused"]
            else (f"ok, {b['remaining']} calls left in this window" if b["is_limited"] else "ok, no limit")
        )
        lines.append(f"connector {b['connector']} {b['account']}: {state}")
    return "\n".join(lines)


async def retry(env: Environment, queue: str, ids: Sequence[int]) -> tuple[int, list[int]]:
    """Retry rows by id, or every failed row when `ids` is empty; returns how many, and the ids that were not."""
    async with opened(env) as pool:
        table = QueueTable(pool, QUEUES[queue])
        if not ids:
            return await table.retry_failed(), []
        retried = await table.retry_keys(ids)
        return len(retried), [i for i in ids if i not in set(retried)]
