"""`listener status`, `retry` and `rescue`: read and ask the database, no running process needed."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import anyio
import typer

from listener.cli.database import opened
from listener.config.environment import Environment, load_environment
from listener.core.errors import ConfigError, Ungranted
from listener.db.attached import list_attached
from listener.db.budgets import read_budgets
from listener.db.imports import count_rejected
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.session import read_live_sessions
from listener.workflows.queues import QUEUES

cli = typer.Typer()


@cli.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False) -> None:
    """Show queues, live sessions and connectors, from the database alone."""
    figures = anyio.run(_read, load_environment())
    print(json.dumps(figures, default=str) if as_json else _render(figures))
    _tell_closed(figures["closed"])


@cli.command()
def retry(
    queue: Annotated[str, typer.Argument(help=f"The queue: {', '.join(QUEUES)}, or an attached table.")],
    id_: Annotated[
        list[str] | None, typer.Option("--id", help="A row's id, or other key; may be given several times.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every failed row.")] = False,
) -> None:
    """Put failed (or, by id, also done) rows back to work."""
    if bool(id_) == failed:
        raise ConfigError(
            "--id and --failed exclude each other; give one"
            if failed
            else "name what to retry: --id N (several are possible) or --failed"
        )
    told, missing = anyio.run(_retry, load_environment(), queue, list(dict.fromkeys(id_ or [])))
    print(told)
    if missing:
        print(
            f"listener: not retried, because no such row, or neither Failed nor done: {', '.join(missing)}",
            file=sys.stderr,
        )
        raise typer.Exit(1)


@cli.command()
def rescue(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List them only; exit 1 when there are any.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Give back the rows whose session is gone, as every running listener does by itself."""
    found, left, closed = anyio.run(_rescue, load_environment(), dry_run)
    if as_json:
        print(json.dumps({"stranded": found, "left": left, "closed": closed}, default=str))
    else:
        for row in found:
            print(f"{row['queue']} {row['id']}: claimed {row['claimed_at']} by session {row['session']}, which is gone")
        print(f"{len(found) - left} of {len(found)} rows put back to Pending")
    _tell_closed(closed)
    if left:
        raise typer.Exit(1)


def _tell_closed(closed: Mapping[str, str]) -> None:
    """Name the queues that our role may not read; the others were done all the same. Exits with 1 for any."""
    for queue, error in closed.items():
        print(f"listener: {queue}: {error}", file=sys.stderr)
    if closed:
        raise typer.Exit(1)


async def _rescue(env: Environment, is_dry: bool) -> tuple[list[dict[str, Any]], int, dict[str, str]]:
    """Return the rows of sessions that are gone, how many of them are as they were, and why a queue was not seen."""
    found: list[dict[str, Any]] = []
    left, closed = 0, dict[str, str]()
    async with opened(env) as pool:
        for table in await _tables(pool):
            try:
                rows = await table.stranded()
                names = {"job_key": "id", "claimed_by": "session", "claimed_at": "claimed_at"}
                found += [{"queue": table.queue.name, **{names[name]: row[name] for name in names}} for row in rows]
                left += len(rows)
                if rows and not is_dry:
                    await table.rescue()
                    left += len(await table.stranded()) - len(rows)  # those that somebody has locked
            except Ungranted as error:
                closed[table.queue.name] = str(error)
    return found, left, closed


async def _tables(pool: Pool) -> list[QueueTable]:
    """Return the service's queues and the attached tables."""
    attached = [
        QueueTable(pool, each.queue, key_type=each.key_type, key_is_text=each.key_is_text)
        for each in await list_attached(pool)
    ]
    return [QueueTable(pool, queue) for queue in QUEUES.values()] + attached


async def _read(env: Environment) -> dict[str, Any]:
    """Return queues, those that our role may not read, sessions, connectors and rejected orders.

    Raises Unreachable, DatabaseError, Unmigrated.
    """
    queues, closed = dict[str, Any](), dict[str, str]()
    async with opened(env) as pool:
        for table in await _tables(pool):
            try:
                queues[table.queue.name] = asdict(await table.depth())
            except Ungranted as error:
                closed[table.queue.name] = str(error)
        return {
            "queues": queues,
            "closed": closed,
            "sessions": await read_live_sessions(pool),
            "connectors": await read_budgets(pool),
            "rejected": await count_rejected(pool),
        }


def _render(figures: dict[str, Any]) -> str:
    """Return the figures as a person reads them."""
    wide = max(10, *map(len, figures["queues"]))
    lines = [f"{'queue':<{wide}} pending  processing  failed  oldest due"]
    for name, depth in figures["queues"].items():
        counts = f"{depth['pending']:>7}  {depth['processing']:>10}  {depth['failed']:>6}"
        lines.append(f"{name:<{wide}} {counts}  {depth['oldest_pending_s']:>8.1f} s")
    rejected = figures["rejected"]
    if rejected["files"]:
        lines.append(
            f"rejected by import: {rejected['orders']:,} orders in {rejected['files']:,} files;"
            f" why, and what to do: column report of import_files, newest id {rejected['newest_id']}"
        )
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


async def _retry(env: Environment, name: str, ids: Sequence[str]) -> tuple[str, list[str]]:
    """Retry rows by id, or every failed row when `ids` is empty; returns what to say, and the ids that were not."""
    async with opened(env) as pool:
        tables = {table.queue.name: table for table in await _tables(pool)}
        if name not in tables:
            raise ConfigError(f"{name!r} is no queue; known: {', '.join(tables)}")
        table = tables[name]
        retried, count = await table.retry_keys(ids) if ids else ([], await table.retry_failed())
        told = f"{count} {table.queue.noun} put back to {table.queue.ready_word}"
        return told, [i for i in ids if i not in retried]
