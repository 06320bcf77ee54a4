"""Which module has which command. They are thin: parse, call, print."""

from importlib import import_module, metadata
from typing import Annotated

import typer

HOMES = {
    "run": "service",
    "migrate": "migrate",
    "health": "health",
    "status": "status",
    "doctor": "doctor.examination",
    "rollout": "rollout",
    "retry": "status",
    "rescue": "status",
    "config": "config",
    "attach": "attach",
    "detach": "attach",
    "import": "files",
    "sync": "sync",
    "stats": "sync",
    "webhooks": "sync",
    "demo": "demo",
    "sandbox": "demo",
}


def build(asked: str | None) -> typer.Typer:
    """Return the command line: all of it, or the module of the asked command alone.

    What runs handlers and serves HTTP takes two thirds of a start, 2.8 s of CPU beside 0.95 on a slow core; a script
    that calls `listener config get` waits for none of it.
    """
    cli = typer.Typer(
        name="listener",
        help="INSERT a row and the work happens within milliseconds.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    cli.callback(invoke_without_command=False)(_common)
    for home in [HOMES[asked]] if asked in HOMES else dict.fromkeys(HOMES.values()):
        cli.add_typer(import_module(f"listener.cli.{home}").cli)
    return cli


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"order-listener {metadata.version('order-listener')}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """INSERT a row and the work happens within milliseconds."""
