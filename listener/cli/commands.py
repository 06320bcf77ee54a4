"""Every command, thin: parse, call, print."""

import json
import sys
from importlib import metadata
from typing import Annotated

import anyio
import typer

from listener.app import QUEUES, App
from listener.cli import attach as attach_
from listener.cli import config as config_
from listener.cli import demo as demo_
from listener.cli import files as files_
from listener.cli import status as status_
from listener.cli import sync as sync_
from listener.config.environment import load_environment
from listener.core.errors import ConfigError
from listener.db import migrate as migrate_
from listener.engine.loop import run_loop
from listener.obs import log

cli = typer.Typer(
    name="listener",
    help="INSERT a row and the work happens within milliseconds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"order-listener {metadata.version('order-listener')}")
        raise typer.Exit


cli.add_typer(config_.config)
cli.command()(attach_.attach)
cli.command()(attach_.detach)
cli.command("import")(files_.import_)
cli.command()(sync_.sync)
cli.command()(sync_.stats)
cli.command()(sync_.webhooks)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


@cli.callback(invoke_without_command=False)
def common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """INSERT a row and the work happens within milliseconds."""


@cli.command()
def run() -> None:
    """Run the service until SIGTERM or SIGINT; a second signal cancels what still runs."""
    env = load_environment()
    log.set_up(format=env.log_format)
    run_loop(App(env).run)


@cli.command()
def migrate(
    status: Annotated[bool, typer.Option("--status", help="Say what is applied; exit 1 if something is not.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would run, and run none.")] = False,
) -> None:
    """Bring the database's schema to this release. Safe to run again, and from several places at once."""
    if status and dry_run:
        raise ConfigError("--status and --dry-run exclude each other; give one")
    env = load_environment()
    url, schema = env.direct_url.get_secret_value(), env.schema_name
    if dry_run:
        print(migrate_.dry_run(url, schema), end="")
    elif status:
        files = migrate_.status(url, schema)
        for file in files:
            applied_at = f"{file.applied_at:%Y-%m-%d %H:%M:%S%z}" if file.applied_at else ""
            print(f"{file.state:<8} {file.kind:<9} {file.name:<50} {applied_at}".rstrip())
        if any(file.state != "applied" for file in files):
            raise typer.Exit(1)
    else:
        report = migrate_.migrate(url, schema)
        for name in report.applied:
            print(f"applied {name}")
        print(f"schema {schema}: {len(report.applied)} applied, {report.unchanged_count} unchanged")


@cli.command()
def status(as_json: Json = False) -> None:
    """Show queues, live sessions and connectors, from the database alone."""
    figures = anyio.run(status_.read, load_environment())
    print(json.dumps(figures, default=str) if as_json else status_.render(figures))


@cli.command()
def retry(
    queue: Annotated[str, typer.Argument(help="The queue: " + ", ".join(QUEUES))],
    id_: Annotated[list[int] | None, typer.Option("--id", help="A row's id; may be given several times.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every failed row.")] = False,
) -> None:
    """Put failed (or, by id, also done) rows back to Pending."""
    if bool(id_) == failed:
        raise ConfigError(
            "--id and --failed exclude each other; give one"
            if failed
            else "name what to retry: --id N (several are possible) or --failed"
        )
    if queue not in QUEUES:
        raise ConfigError(f"{queue!r} is no queue; known: {', '.join(QUEUES)}")
    count, missing = anyio.run(status_.retry, load_environment(), queue, id_ or [])
    print(f"{count} {QUEUES[queue].noun} put back to Pending")
    if missing:
        print(
            f"listener: not retried, because no such row, or neither Failed nor done: {', '.join(map(str, missing))}",
            file=sys.stderr,
        )
        raise typer.Exit(1)


@cli.command()
def demo(
    orders: Annotated[int, typer.Option("--orders", min=1, max=100_000, help="How many sample orders.")] = 25,
    exit_: Annotated[bool, typer.Option("--exit", help="End when all is uploaded; exit 0 or 1.")] = False,
) -> None:
    """Run everything here: a temporary Postgres, the sandbox and the service, fed with sample orders."""
    log.set_up(format="console", level="warning" if exit_ else "info")
    if not run_loop(demo_.run, orders, exit_):
        raise typer.Exit(1)


@cli.command()
def sandbox(
    listen: Annotated[str, typer.Option("--listen", help="Address to listen on, host:port.")] = "127.0.0.1:8090",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Calls per window; 0 = no limit.")] = 40,
    window: Annotated[float, typer.Option("--window", min=0.1, max=3600.0, help="Seconds of one rate window.")] = 60.0,
) -> None:
    """Serve a local API that behaves like ShipStation's; /sandbox/orders lists what it holds."""
    log.set_up(format="console")
    anyio.run(demo_.serve_sandbox, listen, limit, window)
