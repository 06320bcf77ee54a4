"""Imports claimed files: a thread parses while the orders before are merged into `orders_inbox`, in one transaction.

A file counts as a whole or not at all: until the commit nobody sees its orders, and a process that dies leaves none.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol, cast

import anyio
import anyio.from_thread

from listener.core.events import FileImported, Publish
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Retry, Snooze
from listener.db.imports import Counts, find_copy, merging, read_content
from listener.db.pool import Pool
from listener.workflows.imports.found import FileAway, FileChanged, FileReplaced, FileTrouble, Rules
from listener.workflows.imports.pipeline import in_thread, measure, merge_orders
from listener.workflows.imports.reader import Reader
from listener.workflows.imports.words import words_of

# Content of a row up to this size stays in memory while it is parsed; more goes to a temporary file.
_IN_MEMORY_BYTES = 8_000_000
# Sources whose files are not in the row; not every process may be able to reach them.
_ELSEWHERE = frozenset({"folder", "drive"})
# Of a file's name, which may be of any length, in logs and errors.
_SHOWN_CHARS = 200
_ELSEWHERE_PAUSE_S, _CHANGED_PAUSE_S = 15.0, 1.0


class Opener(Protocol):
    """A source that holds its files elsewhere than in the row."""

    def open(self, row: Mapping[str, Any]) -> Any:
        """Return an async context of the file, to be read and sought in. Raises FileTrouble, ClientError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says of imports.

    order_source: of files that name none. words: as `parse_words` gives them.
    """

    order_source: str
    rules: Rules
    words: dict[str, dict[str, str]]

    def rules_of(self, order_source: str) -> Rules:
        """Return the rules with that source's status words."""
        return replace(self.rules, words=words_of(order_source, self.words))


class Import:
    """The handler of queue `import`. openers: source → who opens its files; those of other sources are in the row."""

    def __init__(
        self, pool: Pool, settings: Settings, publish: Publish, openers: Mapping[str, Opener] | None = None
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._publish = publish
        self._openers = openers or {}
        self._threads = anyio.CapacityLimiter(100)  # import_concurrency at most

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Return one outcome per job. Raises Unreachable, DatabaseError, ClientError."""
        return [await self._import(job) for job in jobs]

    async def _import(self, job: Job) -> Outcome:
        if job.row["merged_at"] is not None:
            return Done()  # committed by a process that died before it could say so
        source = job.row["source"]
        if source in _ELSEWHERE and source not in self._openers:
            return Snooze(_ELSEWHERE_PAUSE_S, f"this process cannot reach the {source}; one that can must run")
        try:
            async with self._opened(job) as file:
                return await self._import_file(job, file)
        except FileChanged as change:
            return Snooze(_CHANGED_PAUSE_S, str(change))
        except FileAway as away:
            return Retry(str(away))
        except FileReplaced as replaced:
            return _done_unread(job.row["sha256"], {"changed": str(replaced)})
        except FileTrouble as trouble:
            return Fail(f"{_name(job)}: {trouble}")

    async def _import_file(self, job: Job, file: BinaryIO) -> Outcome:
        extent = await self._in_thread(partial(measure, file, self._settings.rules.most_bytes))
        if job.row["source"] == "folder" and job.row["sha256"] not in (None, extent.sha256):
            return _done_unread(
                job.row["sha256"], {"changed": "the file has other content by now, which has its own row"}
            )
        order_source = job.row["order_source"] or self._settings.order_source
        copy = await find_copy(
            self._pool,
            job.id,
            source=job.row["source"],
            sha256=extent.sha256,
            order_source=order_source,
            usual_order_source=self._settings.order_source,
        )
        if copy is not None:
            return _done_unread(extent.sha256, {"copy_of": copy[0], "name": copy[1]}, extent.size_bytes)
        # a text has no encoding any more, whatever it declares
        encoding = "utf-8" if job.row["source"] == "inline" else None
        reader = Reader(
            file,
            self._settings.rules_of(order_source),
            encoding=encoding,
            check_cancelled=anyio.from_thread.check_cancelled,
        )
        async with merging(self._pool, order_source, usual_order_source=self._settings.order_source) as merge:
            await merge_orders(reader, merge, self._threads)
            is_ours = await merge.commit(
                id_=job.id,
                claim_id=job.claim_id,
                source=job.row["source"],
                sha256=extent.sha256,
                size_bytes=extent.size_bytes,
                rejects=reader.rejects,
            )
        counts = merge.counts
        if is_ours:  # else the settle finds that the claim is lost, and says so
            self._publish(_event(job, counts))
        if counts.found and counts.rejected == counts.found:
            first = reader.rejects[0]
            return Fail(
                f"all {counts.found:,} orders were rejected; the first, in line {first['line']}: {first['reason']}"
            )
        return Done()

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await in_thread(work, self._threads)

    @asynccontextmanager
    async def _opened(self, job: Job) -> AsyncIterator[BinaryIO]:
        opener = self._openers.get(job.row["source"])
        if opener is not None:
            async with opener.open(job.row) as file:
                yield file
            return
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
            async for piece in read_content(self._pool, job.id):
                await self._in_thread(partial(file.write, piece))
            if not file.tell():
                raise FileTrouble("the row holds no content (of what `listener import` has read none is kept)")
            file.seek(0)
            yield cast("BinaryIO", file)


def _done_unread(sha256: str | None, report: Mapping[str, Any], size_bytes: int | None = None) -> Done:
    """Done without an order read. report: why."""
    values = {"sha256": sha256, "size_bytes": size_bytes, "report": dict(report)}
    return Done({**values, **{f"orders_{word}": 0 for word in asdict(Counts())}})


def _name(job: Job) -> str:
    return str(job.row["name"] or job.row["uri"] or "content")[:_SHOWN_CHARS]


def _event(job: Job, counts: Counts) -> FileImported:
    return FileImported(
        name=(job.label or str(job.id))[:_SHOWN_CHARS],
        found=counts.found,
        inserted=counts.inserted,
        updated=counts.updated,
        rejected=counts.rejected,
    )
