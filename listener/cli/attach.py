"""`listener attach` and `listener detach`: any table is a queue. In SQL: attach_queue and detach_queue."""

import json
import re
from textwrap import shorten
from typing import Annotated

import typer

from listener.config.environment import load_environment
from listener.core.errors import ConfigError
from listener.db.attach import Report, Step, Wish
from listener.db.attach import attach as attach_table
from listener.db.attach import detach as detach_table

cli = typer.Typer()

Table = Annotated[str, typer.Argument(help="The table's name as it is, without quotes; also schema.table.")]
Schema = Annotated[str | None, typer.Option("--schema", help="Its schema; default: LISTENER_SCHEMA.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would run, and run none.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]

_READY = re.compile(r"\s*status\s*=\s*'(?P<word>(?:[^']|'')+)'\s*;?\s*", re.IGNORECASE)


@cli.command()
def attach(
    table: Table,
    key: Annotated[str | None, typer.Option("--key", help="Column that names a row; default: the primary key.")] = None,
    done: Annotated[str | None, typer.Option("--done", help="Status of a completed row; default: Done.")] = None,
    ready: Annotated[
        str | None, typer.Option("--ready", help="Which rows are work: \"status = 'word'\"; default: 'Pending'.")
    ] = None,
    schema: Schema = None,
    content: Annotated[
        list[str] | None,
        typer.Option("--content", help="A column whose change makes a finished row work again; may be repeated."),
    ] = None,
    no_content: Annotated[bool, typer.Option("--no-content", help="No column does, not even those that did.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a table a queue, while others write to it. Running it again adds what is missing."""
    if content and no_content:
        raise ConfigError("--content and --no-content exclude each other; give one")
    env = load_environment()
    wish = Wish(
        table=table,
        schema=schema,
        key=key,
        ready=None if ready is None else _ready_word(ready),
        done=done,
        content=[] if no_content else content or None,
    )
    report = attach_table(
        env.direct_url.get_secret_value(),
        env.schema_name,
        wish,
        dry_run=dry_run,
        tell=lambda step: None if as_json else _tell(step),
    )
    if as_json:
        _print_json(report)
        return
    ready_word, done_word = report.details["ready_word"], report.details["done_word"]
    if dry_run:
        print(report.script or f"-- {report.queue} is attached already: nothing to do")
    else:
        print(f"queue {report.queue}: rows with status '{ready_word}' are work, completed ones are '{done_word}'")
    _print_notes(report, dry_run)


@cli.command()
def detach(
    table: Table,
    schema: Schema = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also while rows are being worked on; their outcomes are lost.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take away from a table what attach added; it is then as it was, with its rows."""
    env = load_environment()
    report = detach_table(
        env.direct_url.get_secret_value(), env.schema_name, table, schema=schema, force=force, dry_run=dry_run
    )
    if as_json:
        _print_json(report)
        return
    if dry_run:
        print(report.script)
    else:
        for step in report.steps:
            _tell(step)
        print(f"{report.queue} is no queue any more")
    _print_notes(report, dry_run)


def _tell(step: Step) -> None:
    print(shorten(step.statement, 118, placeholder=" …"), flush=True)


def _print_notes(report: Report, dry_run: bool) -> None:
    for note in report.notes:
        print(f"{'-- ' if dry_run else ''}note: {note}")


def _print_json(report: Report) -> None:
    steps = [{"alone": step.alone, "statement": step.statement} for step in report.steps]
    print(json.dumps({"queue": report.queue, **report.details, "steps": steps, "notes": report.notes}))


def _ready_word(condition: str) -> str:
    found = _READY.fullmatch(condition)
    if found is None:
        raise ConfigError(f"--ready {condition!r}: expected status = 'word', with one word in single quotes")
    return found["word"].replace("''", "'")
