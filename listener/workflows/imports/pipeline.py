"""A file on its way through: measured, then parsed in a thread while the batch before is merged."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from listener.core.errors import DatabaseError
from listener.db.imports import Batch, Merge
from listener.workflows.imports.found import FileTrouble
from listener.workflows.imports.reader import Reader

_CHUNK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """What a file is: its digest (hexadecimal) and its size."""

    sha256: str
    size_bytes: int


async def in_thread(work: Callable[[], Any], threads: anyio.CapacityLimiter) -> Any:
    """Run `work` beside the event loop; it must look at `check_cancelled` now and then."""
    return await anyio.to_thread.run_sync(work, limiter=threads)


def measure(file: BinaryIO, most_bytes: int) -> Extent:
    """Read a file once, in a thread, and go back to its start. Raises FileTrouble when it is too large."""
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_CHUNK_BYTES):
        anyio.from_thread.check_cancelled()
        size += len(chunk)
        if size > most_bytes:
            raise FileTrouble(f"larger than {most_bytes:,} bytes")
        digest.update(chunk)
    file.seek(0)
    return Extent(sha256=digest.hexdigest(), size_bytes=size)


async def merge_orders(reader: Reader, merge: Merge, threads: anyio.CapacityLimiter) -> None:
    """Merge all orders of a file; nothing is committed yet. Raises FileTrouble, DatabaseError."""
    send, receive = anyio.create_memory_object_stream[Batch](1)
    trouble: Exception | None = None  # kept, because out of the group it would come wrapped

    async def parse() -> None:
        nonlocal trouble
        async with send:
            try:
                await in_thread(partial(_pump, reader, send), threads)
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


async def _drain(receive: MemoryObjectReceiveStream[Batch], merge: Merge) -> None:
    async with receive:
        async for batch in receive:
            await merge.add(batch)


def _pump(reader: Reader, send: MemoryObjectSendStream[Batch]) -> None:
    """In the thread: hand over one batch after the other, waiting while the one before is still to be merged."""
    for batch in reader.batches():
        anyio.from_thread.run(send.send, batch)
