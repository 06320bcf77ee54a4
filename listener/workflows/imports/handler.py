"""Imports claimed files: a thread parses while the orders before are merged into `orders_inbox`, in one transaction.

A file counts as a whole or not at all: until the commit nobody sees its orders, and a process that dies leaves none.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, Protocol, cast

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from listener.core.errors import DatabaseError
from listener.core.events import FileImported, Publish
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome
from listener.core.queue import Queue
from listener.db.imports import Batch, Counts, Merge, find_copy, merging, read_content
from listener.db.pool import Pool
from listener.workflows.imports.found import FileTrouble, Rules
from listener.workflows.imports.reader import Reader
from listener.workflows.imports.words import words_of

IMPORT = Queue(
    name="import",
    table="import_files",
    done_word="Imported",
    noun="files",
    label="name",
    columns=("source", "order_source", "uri", "name", "sha256", "merged_at"),
    results=(
        ("sha256", "text"),
        ("size_bytes", "bigint"),
        *(
            (f"orders_{word}", "integer")
            for word in ("found", "inserted", "updated", "unchanged", "ignored", "rejected")
        ),
        ("report", "jsonb"),
    ),
)
# Content of a row up to this size stays in memory while it is parsed; more goes to a temporary file.
_IN_MEMORY_BYTES = 8_000_000
_CHUNK_BYTES = 1_000_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extent:
    sha256: str
    size_bytes: int


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
        try:
            async with self._opened(job) as file:
                return await self._import_file(job, file)
        except FileTrouble as trouble:
            return Fail(f"{job.row['name'] or job.row['uri'] or 'content'}: {trouble}")

    async def _import_file(self, job: Job, file: BinaryIO) -> Outcome:
        extent = await self._in_thread(partial(_measure, file, self._settings.rules.most_bytes))
        copy = await find_copy(self._pool, job.id, source=job.row["source"], sha256=extent.sha256)
        if copy is not None:
            return _done_as_copy(extent, *copy)
        order_source = job.row["order_source"] or self._settings.order_source
        # a text has no encoding any more, whatever it declares
        encoding = "utf-8" if job.row["source"] == "inline" else None
        reader = Reader(
            file,
            self._settings.rules_of(order_source),
            encoding=encoding,
            check_cancelled=anyio.from_thread.check_cancelled,
        )
        async with merging(self._pool, order_source) as merge:
            await self._merge(reader, merge)
            is_ours = await merge.commit(
                id_=job.id,
                claim_id=job.claim_id,
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

    async def _merge(self, reader: Reader, merge: Merge) -> None:
        """Let a thread parse while the batch before goes into the database. Raises FileTrouble, DatabaseError."""
        send, receive = anyio.create_memory_object_stream[Batch](1)
        trouble: Exception | None = None  # kept, because out of the group it would come wrapped

        async def parse() -> None:
            nonlocal trouble
            async with send:
                try:
                    await self._in_thread(partial(_pump, reader, send))
                except anyio.BrokenResourceError:
                    return  # nobody takes the orders any more, which has its own reason
                except Exception as error:  # noqa: BLE001 - raised again below
                    trouble = trouble or error

        async with anyio.create_task_group() as group:
            group.start_soon(parse)
            try:
                await _drain(receive, merge)
            except DatabaseError as error:
                trouble = error
        if trouble is not None:
            raise trouble

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

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
                raise FileTrouble("the row holds no content")
            file.seek(0)
            yield cast("BinaryIO", file)


async def _drain(receive: MemoryObjectReceiveStream[Batch], merge: Merge) -> None:
    async with receive:
        async for batch in receive:
            await merge.add(batch)


def _pump(reader: Reader, send: MemoryObjectSendStream[Batch]) -> None:
    """In the thread: hand over one batch after the other, waiting while the one before is still to be merged."""
    for batch in reader.batches():
        anyio.from_thread.run(send.send, batch)


def _measure(file: BinaryIO, most_bytes: int) -> _Extent:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        anyio.from_thread.check_cancelled()
        size += len(chunk)
        if size > most_bytes:
            raise FileTrouble(f"larger than {most_bytes:,} bytes")
        digest.update(chunk)
    file.seek(0)
    return _Extent(sha256=digest.hexdigest(), size_bytes=size)


def _done_as_copy(extent: _Extent, id_: int, name: str | None) -> Done:
    words = ("found", "inserted", "updated", "unchanged", "ignored", "rejected")
    return Done(
        {
            "sha256": extent.sha256,
            "size_bytes": extent.size_bytes,
            "report": {"copy_of": id_, "name": name},
            **{f"orders_{word}": 0 for word in words},
        }
    )


def _event(job: Job, counts: Counts) -> FileImported:
    return FileImported(
        name=job.label or str(job.id),
        found=counts.found,
        inserted=counts.inserted,
        updated=counts.updated,
        rejected=counts.rejected,
    )
