"""`listener import`: files of orders into orders_inbox, at once; the running service uploads them."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO

import anyio
import typer

from listener.app import import_settings
from listener.cli.database import opened
from listener.config.environment import Environment, load_environment
from listener.core.errors import ConfigError
from listener.db.imports import Counts
from listener.workflows.imports.by_hand import ByHand, Imported
from listener.workflows.imports.found import FileTrouble

cli = typer.Typer()

# Lines about rejected orders of one file; the rest are counted.
_SHOWN_REJECTS = 20
_REDRAW_S = 0.1


@cli.command("import")
def import_(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Files, folders (their *.xml), or - for stdin.")],
    order_source: Annotated[
        str | None,
        typer.Option("--order-source", help="orders_inbox.source of the orders; default IMPORT_ORDER_SOURCE."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Import files of orders, each as a whole or not at all. Exit 1 when a file or an order was refused."""
    if order_source is not None and not 0 < len(order_source) <= 50:
        raise ConfigError(f"--order-source {order_source[:60]!r}: expected 1 to 50 characters")
    files = list(_expanded(paths))
    results = anyio.run(_import_all, load_environment(), files, order_source, as_json)
    if as_json:
        print(json.dumps(results, default=str))
    if not all(result["status"] in ("imported", "known") and not result.get("orders_rejected") for result in results):
        raise typer.Exit(1)


def _expanded(paths: Sequence[str]) -> Iterator[str]:
    for text in paths:
        path = Path(text)
        if text != "-" and path.is_dir():
            found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() == ".xml" and file.is_file())
            if not found:
                raise ConfigError(f"{text}: no *.xml in this folder")
            yield from found
        elif text == "-" or path.is_file():
            yield text
        else:
            raise ConfigError(f"{text}: no such file or folder")


async def _import_all(
    env: Environment, files: Sequence[str], order_source: str | None, is_quiet: bool
) -> list[dict[str, Any]]:
    settings = import_settings(env)
    results = []
    async with opened(env) as pool:
        desk = ByHand(pool, settings, order_source=order_source)
        for name in files:
            try:
                with _readable(name) as file:
                    imported = await _with_progress(desk, file, name)
                results.append(_result(name, imported))
            except (FileTrouble, OSError) as trouble:
                reason = trouble.strerror if isinstance(trouble, OSError) else str(trouble)
                results.append({"file": name, "status": "failed", "reason": reason})
            if not is_quiet:
                _tell(results[-1])
    return results


@contextmanager
def _readable(name: str) -> Iterator[BinaryIO]:
    if name != "-":
        with Path(name).open("rb") as file:
            yield file
        return
    with TemporaryFile() as copy:  # it is read twice: for its digest, and for its orders
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.seek(0)
        yield copy


async def _with_progress(desk: ByHand, file: BinaryIO, name: str) -> Imported:
    """Draw a bar on a terminal."""
    if not sys.stderr.isatty():
        return await desk.take(file, name)
    imported: list[Imported] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_draw, desk, name)
        try:
            imported.append(await desk.take(file, name))
        except Exception as error:  # noqa: BLE001 - out of the group it would come wrapped
            failure: Exception | None = error
        else:
            failure = None
        group.cancel_scope.cancel("the file is done")
    if failure is not None:
        raise failure
    return imported[0]


async def _draw(desk: ByHand, name: str) -> None:
    while not desk.size_bytes:  # noqa: ASYNC110 - another thread's figure
        await anyio.sleep(_REDRAW_S)
    with typer.progressbar(length=desk.size_bytes, label=name, file=sys.stderr) as bar:
        shown = 0
        while True:
            read = desk.progress
            bar.update(read - shown)
            shown = read
            await anyio.sleep(_REDRAW_S)


def _result(name: str, imported: Imported) -> dict[str, Any]:
    if imported.copy_of is not None:
        return {"file": name, "status": "known", "copy_of": imported.copy_of}
    counts = {f"orders_{word}": count for word, count in asdict(imported.counts).items()}
    is_refused = 0 < imported.counts.found == imported.counts.rejected
    return {"file": name, "status": "rejected" if is_refused else "imported", **counts, "rejected": imported.rejects}


def _tell(result: dict[str, Any]) -> None:
    name = result["file"]
    if result["status"] == "failed":
        print(f"listener: {name}: {result['reason']}", file=sys.stderr)
        return
    if result["status"] == "known":
        print(f"{name}: the same content was imported before (import_files row {result['copy_of']})")
        return
    words = [word for word in asdict(Counts()) if word != "found"]
    print(
        f"{name}: {result['orders_found']} orders: " + ", ".join(f"{result[f'orders_{word}']} {word}" for word in words)
    )
    for reject in result["rejected"][:_SHOWN_REJECTS]:
        number = f" ({reject['order_number']})" if reject["order_number"] else ""
        text = f"order {reject['position']}{number}, line {reject['line']}: {reject['reason']}"
        print(f"listener: {name}: {text}", file=sys.stderr)
    if result["orders_rejected"] > _SHOWN_REJECTS:
        print(f"listener: {name}: and {result['orders_rejected'] - _SHOWN_REJECTS:,} more rejected", file=sys.stderr)
