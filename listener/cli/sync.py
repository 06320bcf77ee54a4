"""`listener sync`, `listener webhooks` and `listener stats`: what a person asks of the synchronisation."""

import json
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any
from urllib.parse import urlsplit

import anyio
import typer

from listener.app import assign_sync, credentials, shipstation
from listener.cli.database import opened
from listener.clients.shipstation.client import CONNECTOR, account_name
from listener.config.environment import Environment, load_environment
from listener.core.errors import ConfigError, DatabaseError, ListenerError, most_telling
from listener.db.budgets import read_budgets
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.sync_runs import SyncRuns
from listener.engine.loop import run_loop
from listener.obs import log
from listener.process import Process
from listener.workflows.queues import SYNC
from listener.workflows.sync.cycle import LISTS_FAILED

cli = typer.Typer()

BUSY = "Another instance is already running"
#: What a webhook tells us that is new; the ITEM_ events tell the same at greater length.
EVENTS = ("ORDER_NOTIFY", "SHIP_NOTIFY", "FULFILLMENT_SHIPPED")
_LOOK_EVERY_S = 0.1
# Our own probe of a paused account looks like a pause until its run is claimed, a moment later.
_HINDERED_FOR_S = 2.0
# A command that stands by a run tells so for at most 15 seconds after its last word; longer than that it only waits.
_TAKEN_WITHIN_S = 20.0
_OVER = frozenset({"Succeeded", "Failed", "Superseded"})

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Connector = Annotated[str, typer.Argument(help="The connector: shipstation.")]


@cli.command()
def sync(
    connector: Connector,
    account: Annotated[str | None, typer.Option("--account", help="The account; default: that of the key.")] = None,
    lookback_minutes: Annotated[
        int | None, typer.Option("--lookback-minutes", min=1, max=5_256_000, help="Read at least so far back.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, max=500, help="Records of one page.")] = 500,
    max_pages: Annotated[int | None, typer.Option("--max-pages", min=1, help="Make at most so many calls.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring back what happened at ShipStation, now; with or without a running service."""
    env = load_environment()
    _check(env, connector, account)
    params: dict[str, Any] = {"batch_size": batch_size, "lookback_minutes": lookback_minutes, "max_pages": max_pages}
    params = {name: value for name, value in params.items() if value is not None}
    log.set_up(format=env.log_format, level="warning")
    run = run_loop(_sync, env, params | ({"dry_run": True} if dry_run else {}))
    figures = run["stats"] if isinstance(run["stats"], dict) else {}  # of a run that a hand wrote
    for line in _failures(run, figures):
        print(f"listener: {line}", file=sys.stderr)
    print(json.dumps(run, default=str) if as_json else _told(run, figures))
    if dry_run and run["status"] == "Succeeded" and not figures.get("dry_run"):
        print("listener: while it waited, a webhook or the schedule joined the run: it was a real one", file=sys.stderr)
    if run["status"] != "Succeeded" or figures.get(LISTS_FAILED):
        raise typer.Exit(1)


@cli.command()
def webhooks(
    connector: Connector,
    subscribe: Annotated[
        str | None,
        typer.Option("--subscribe", metavar="URL", help="Address under which ShipStation reaches this service."),
    ] = None,
) -> None:
    """Show ShipStation's webhook subscriptions, or subscribe this service."""
    env = load_environment()
    _check(env, connector, None)
    for line in anyio.run(_webhooks, env, subscribe):
        print(line)


@cli.command()
def stats(
    reset: Annotated[bool, typer.Option("--reset", help="Begin the sums anew.")] = False, as_json: Json = False
) -> None:
    """Show how the synchronisation goes: newest run, watermarks, sums, what lies aside."""
    env = load_environment()
    found = anyio.run(_stats, env, reset)
    if as_json:
        print(json.dumps(found, default=str))
        return
    for name, value in _lines(found):
        print(f"{name:<28} {'' if value is None else value}".rstrip())


def _lines(figures: Mapping[str, Any], *before: str) -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _lines(value, *before, name)
        else:
            yield " ".join((*before, name)).replace("_", " "), value


async def _sync(env: Environment, params: Mapping[str, Any]) -> dict[str, Any]:
    """Insert a run and work on the queue until it is over, whoever took it. Raises ListenerError."""
    run: dict[str, Any] = {}
    async with opened(env) as pool:
        account = account_name(credentials(env)[0])
        runs = SyncRuns(pool, connector=CONNECTOR, account=account)
        await QueueTable(pool, SYNC).rescue()  # one that was killed, where no service would
        run_id = await _request(runs, params, lambda: _pause(pool, account))
        try:
            run = await _work(env, pool, runs, run_id, account)
        finally:
            if run.get("status") not in _OVER:
                with anyio.CancelScope(shield=True):
                    try:
                        await runs.stand_by(run_id, stays=False)
                    except DatabaseError as error:  # what failed before is what counts, and what is raised
                        print(f"listener: run {run_id} looks busy for 15 s more: {error}", file=sys.stderr)
    return run


async def _work(env: Environment, pool: Pool, runs: SyncRuns, run_id: int, account: str) -> dict[str, Any]:
    """Work on the queue until the run is over, or something keeps it waiting; returns the run. Raises ListenerError."""
    failure: ListenerError | None = None
    run: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(Process(env, {SYNC.name: SYNC.noun}, serves=False))
        await assign_sync(process, stack)
        try:
            async with anyio.create_task_group() as group:

                async def work() -> None:
                    await process.run()
                    group.cancel_scope.cancel("stopped")

                group.start_soon(work)
                run = await _outcome(runs, run_id, lambda: _hindrance(pool, process, account))
                process.supervisor.stop()
        except* ListenerError as errors:
            failure = most_telling(errors)
    if failure is not None:
        raise failure
    return run or await _interrupted(runs, run_id)


async def _request(runs: SyncRuns, params: Mapping[str, Any], pause: Callable[[], Awaitable[str]]) -> int:
    """Insert a run, or join the one that waits. Raises ListenerError when somebody works on one, or stands by it."""
    began_at = anyio.current_time()
    while (run_id := await runs.request(params)) is None:
        run = await runs.in_the_way()
        is_late = anyio.current_time() - began_at > _TAKEN_WITHIN_S
        if run is not None and (params.get("dry_run") or is_late or not run["is_new"]):
            why = await pause()
            raise ListenerError(f"{BUSY}: {_in_the_way(run)}" + (f"\nthe account is {why}" if why else ""))
        await anyio.sleep(_LOOK_EVERY_S)  # whoever stands by it takes it within seconds, or counts as dead
    return run_id


async def _interrupted(runs: SyncRuns, run_id: int) -> dict[str, Any]:
    """Read the run that the process has ended with; it may have been done by the first signal. Raises ListenerError."""
    run = await runs.read(run_id)
    if run is not None and run["status"] in _OVER:
        return run
    if run is not None and run["status"] == "Processing":
        raise ListenerError(f"interrupted; another process works on sync run {run_id}")
    raise ListenerError(f"interrupted; sync run {run_id} waits in sync_runs, for a service or the next `listener sync`")


def _in_the_way(run: Mapping[str, Any]) -> str:
    told = f"sync run {run['id']} ({run['reason']}) of this account"
    if run["status"] == "Processing":
        since = f" since {run['started_at']}" if run["started_at"] else ""
        return f"{told} is working{since}; see `listener stats`"
    if not run["is_later"]:
        return f"{told} is waiting; see `listener stats`\nhint: `listener sync` goes on with it, a dry run cannot"
    return (
        f"{told} is waiting until {run['scheduled_at']};\n"
        "hint: set its scheduled_at to now() to start it, or take its row out of sync_runs"
    )


async def _outcome(runs: SyncRuns, run_id: int, hindrance: Callable[[], Awaitable[str]]) -> dict[str, Any]:
    free_at = anyio.current_time()
    while True:
        run = await runs.read(run_id)
        if run is None:
            raise ListenerError(f"sync run {run_id} was deleted")
        if run["status"] in _OVER:
            return run
        why = ""
        if run["status"] == "Pending":
            await runs.stand_by(run_id, stays=True)
            why = await hindrance()
        if not why:
            free_at = anyio.current_time()
        elif anyio.current_time() - free_at > _HINDERED_FOR_S:
            return {**run, "last_error": f"{why}; the run waits in sync_runs"}
        await anyio.sleep(_LOOK_EVERY_S)


async def _hindrance(pool: Pool, process: Process, account: str) -> str:
    if not process.live.is_enabled(SYNC.name):
        return "sync_enabled is false"
    return await _pause(pool, account)


async def _pause(pool: Pool, account: str) -> str:
    return _pause_of(await read_budgets(pool), account)


def _pause_of(budgets: Iterable[Mapping[str, Any]], account: str) -> str:
    """Tell why the account makes no calls now. A pause whose time is over ends with the next call: that may be ours."""
    for each in budgets:
        if (each["connector"], each["account"]) == (CONNECTOR, account) and each["probe_in_s"] > 0:
            return f"paused ({each['pause_reason']}): {each['pause_message']}"
    return ""


async def _webhooks(env: Environment, url: str | None) -> list[str]:
    secret = env.shipstation_webhook_secret
    if url is not None and secret is None:
        raise ConfigError("SHIPSTATION_WEBHOOK_SECRET is not set; make one with `openssl rand -hex 32`")
    if url is not None:
        _check_address(url)
    end = secret.get_secret_value() if secret else ""
    async with opened(env) as pool, shipstation(env, pool, lambda _event: None) as client:
        known = {(each.get("HookType"), each.get("Url")) for each in await client.webhooks()}
        for event in EVENTS if url is not None else ():
            target = f"{url.rstrip('/') if url else ''}/webhooks/shipstation/{end}"
            if (event, target) not in known:
                await client.subscribe(target, event, "order-listener")
                known.add((event, target))
    return [f"{event} {_hidden(str(target))}" for event, target in sorted(known, key=str)] or ["none"]


def _check_address(url: str) -> None:
    """Raises ConfigError unless `/webhooks/shipstation/SECRET` can be put behind the address."""
    expected = "expected https://host or https://host/path, under which ShipStation reaches this service"
    try:
        parts = urlsplit(url)
        is_safe = parts.scheme == "https" or (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ConfigError(f"--subscribe {url!r}: {error}; {expected}") from None
    if not is_safe or not has_host or any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigError(f"--subscribe {url!r}: {expected}")
    if "?" in url or "#" in url:
        raise ConfigError(f"--subscribe {url!r}: leave out what stands behind the path (?… or #…); {expected}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"--subscribe with a user before {parts.hostname!r}: leave it out; {expected}")


def _hidden(address: str) -> str:
    """Leave out the secret, whichever it is: also one that was replaced opens the door to somebody's service."""
    return re.sub(r"(/webhooks/shipstation/)[^/?#]+", r"\1…", address)


async def _stats(env: Environment, reset: bool) -> dict[str, Any]:
    async with opened(env) as pool:
        runs = SyncRuns(pool, connector=CONNECTOR, account=account_name(credentials(env)[0]))
        if reset:
            await runs.reset_statistics()
        return await runs.monitor()


def _check(env: Environment, connector: str, account: str | None) -> None:
    if connector != CONNECTOR:
        raise ConfigError(f"{connector!r} is no connector that can be synchronised; known: {CONNECTOR}")
    known = account_name(credentials(env)[0])
    if account not in (None, known):
        raise ConfigError(f"--account {account!r}: the key that is set belongs to {known!r}")


def _failures(run: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[str]:
    """Say what failed of a run: all of it, or some of its lists."""
    if run["status"] != "Succeeded":
        yield f"sync run {run['id']}: {run['last_error'] or run['status']}"
    elif failed := figures.get(LISTS_FAILED):
        lists = ", ".join(f"{one} ({why})" for one, why in failed.items()) if isinstance(failed, dict) else str(failed)
        yield f"sync run {run['id']} could not read {lists}; the others are read, and the next run tries again"


def _told(run: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    words = {"calls": "calls", "read": "records read", "changed": "changed", "rows": "orders updated",
             "unknown": "new unknown orders", "quarantined": "put into quarantine"}  # fmt: skip
    told = ", ".join(f"{figures.get(name, 0)} {text}" for name, text in words.items())
    rest = "" if figures.get("complete") else "; not to the end, the next one goes on from there"
    dry = "would have: " if figures.get("dry_run") else ""
    return f"sync run {run['id']} {run['status']}: {dry}{told}{rest}"
