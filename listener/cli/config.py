"""`listener config`: the live configuration from the command line. Everything here is also one SQL statement."""

import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import anyio
import typer

from listener.cli.database import opened
from listener.config.environment import Environment, load_environment
from listener.config.live import KEYS, Key, Reading, field_of, nearest, read_live_config, shown
from listener.core.errors import ConfigError
from listener.db import configuration as db
from listener.db.pool import Pool

T = TypeVar("T")

cli = typer.Typer(
    name="config",
    help="Show and change the live configuration; a change is in force everywhere milliseconds later.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
KeyName = Annotated[str, typer.Argument(help="The key, in any case or by its older name.")]


@cli.command("list")
def list_(as_json: Json = False) -> None:
    """Show every key with its value, and what is wrong."""
    reading = _run(_read)
    entries = _entries(reading)
    if as_json:
        print(json.dumps(entries))
        return
    print(f"{'key':<28} {'value':<10} {'default':<10} meaning")
    for entry in entries:
        mark = "" if entry["value"] == entry["default"] else "  (changed)"
        print(f"{entry['key']:<28} {entry['value']:<10} {entry['default']:<10} {entry['description']}{mark}")
    for problem in _problems(reading).values():
        print(f"! {problem}")


@cli.command("get")
def get(key: KeyName, as_json: Json = False) -> None:
    """Print the value of one key."""
    name = _known(key).name
    entry = next(entry for entry in _entries(_run(_read)) if entry["key"] == name)
    print(json.dumps(entry) if as_json else entry["value"])
    if entry["problem"]:
        print(f"listener: {entry['problem']}", file=sys.stderr)


@cli.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a bad value, no option
def set_(key: KeyName, value: Annotated[str, typer.Argument(help="The new value.")], as_json: Json = False) -> None:
    """Set one key; says what was in force before, and the statement that undoes it."""
    known = _known(key)
    try:
        wanted = shown(known.parse(value))
    except ValueError as error:
        raise ConfigError(str(error)) from None

    async def write(pool: Pool) -> db.Written:
        return await db.write_value(pool, known.name, wanted)

    written = _run(write)
    rows = [(written.param_key, written.old_value)] if written.was_there else []
    before = shown(getattr(read_live_config(rows, None).config, field_of(known.name)))
    undo = _undo(load_environment().schema_name, known, written)
    if as_json:
        print(json.dumps({"key": known.name, "value": wanted, "before": before, "undo": undo}))
        return
    print(f"{known.name} is {wanted}, was {before}")
    print(f"undo: {undo}")


@cli.command("history")
def history(
    key: Annotated[str | None, typer.Argument(help="Only this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show who changed what, and when; newest first."""

    async def read(pool: Pool) -> list[dict[str, Any]]:
        return await db.read_history(pool, key, most=limit)

    changes = _run(read)
    if as_json:
        print(json.dumps(changes, default=str))
        return
    if not changes:
        print("no changes" + (f" of {key!r}" if key else ""))
    for c in changes:
        print(
            f"{c['changed_at'].isoformat()}  {c['param_key']}: {_value(c['old_value'], c['action'] == 'insert')}"
            f" -> {_value(c['new_value'], c['action'] == 'delete')}  by {c['changed_by']}"
        )


@cli.command("restore")
def restore(
    moment: Annotated[str, typer.Argument(help="When, with offset: 2026-11-21T10:00+00:00.")], as_json: Json = False
) -> None:
    """Put all values back to what they were at a moment, a change made then included; shows what that changed."""
    when = _moment(moment)

    async def put_back(pool: Pool) -> tuple[datetime, list[dict[str, Any]]]:
        return await db.read_clock(pool), await db.restore(pool, when)

    before, changes = _run(put_back)
    undo = f"listener config restore {before.isoformat()}"
    if as_json:
        print(json.dumps({"changes": changes, "undo": undo}))
        return
    for c in changes:
        old, new = (_value(c[name], is_absent=c[name] is None) for name in ("old_value", "new_value"))
        print(f"{c['param_key']}: {old} -> {new}")
    if not changes:
        print(f"nothing to put back: all values are as they were at {when.isoformat()}")
        return
    print(f"{len(changes)} values put back to {when.isoformat()}")
    print(f"undo: {undo}")


async def _read(pool: Pool) -> Reading:
    return read_live_config((await db.read_configuration(pool)).values, None)


def _entries(reading: Reading) -> list[dict[str, Any]]:
    problems = _problems(reading)
    return [
        {
            "key": key.name,
            "value": shown(getattr(reading.config, field)),
            "default": key.default,
            "allowed": key.expected,
            "description": key.description,
            "problem": problems.get(key.name),
        }
        for field, key in KEYS.items()
    ]


def _problems(reading: Reading) -> dict[str, str]:
    """What a running service did before a value became bad, only that service knows."""
    stays = "a running service keeps the value before it (see its /readyz), a new one takes the default"
    invalid = {key: f"{problem.rpartition(';')[0]}; {stays}" for key, problem in reading.invalid.items()}
    return invalid | reading.missing | reading.unknown


def _run(work: Callable[[Pool], Awaitable[T]]) -> T:
    async def run(env: Environment) -> T:
        async with opened(env) as pool:
            return await work(pool)

    return anyio.run(run, load_environment())


def _known(name: str) -> Key:
    key = KEYS.get(field_of(name))
    if key is None:
        guess = nearest(name)
        hint = f"did you mean {guess}?" if guess else "`listener config list` shows them all"
        raise ConfigError(f"{name!r} is no key of the configuration; {hint}")
    return key


def _undo(schema: str, key: Key, written: db.Written) -> str:
    """Return the statement that brings the old value back; for one that is refused today, the default."""
    if not written.was_there:
        return db.undo_statement(schema, written.param_key, None)
    try:
        old = shown(key.parse(written.old_value or ""))
    except ValueError:
        old = key.default
    return db.undo_statement(schema, written.param_key, old)


def _value(value: str | None, is_absent: bool = False) -> str:
    return "(no row)" if is_absent else "NULL" if value is None else value


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{text!r} is no moment; write it as 2026-11-21T10:00+00:00") from None
    if moment.tzinfo is None:
        raise ConfigError(f"{text!r} has no offset; add it, as in {text.strip()}+00:00 for UTC")
    return moment
