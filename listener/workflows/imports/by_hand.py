"""One file, imported at once and here: what `listener import` does, without a running service."""

from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import anyio
import anyio.from_thread

from listener.db.imports import Counts, find_copy, merging
from listener.db.pool import Pool
from listener.workflows.imports.handler import Settings
from listener.workflows.imports.pipeline import in_thread, measure, merge_orders
from listener.workflows.imports.reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file. copy_of: the row of import_files whose content was the same. rejects: as in a report."""

    counts: Counts
    copy_of: int | None
    rejects: list[dict[str, Any]]


class ByHand:
    """Imports files one after the other. progress: bytes of the present one that are read; size_bytes: of how many."""

    def __init__(self, pool: Pool, settings: Settings, *, order_source: str | None = None) -> None:
        self.size_bytes = 0
        self._pool = pool
        self._settings = settings
        self._order_source = order_source or settings.order_source
        self._threads = anyio.CapacityLimiter(1)
        self._reader: Reader | None = None

    @property
    def progress(self) -> int:
        """Bytes read."""
        return 0 if self._reader is None else self._reader.bytes_read

    async def take(self, file: BinaryIO, name: str) -> Imported:
        """Import a file that can be sought in.

        Raises FileTrouble, Unreachable, DatabaseError; then nothing of it is stored. A file of which every order is
        rejected leaves no row either: it may be given again.
        """
        rules = self._settings.rules_of(self._order_source)
        extent = await in_thread(partial(measure, file, rules.most_bytes), self._threads)
        self.size_bytes = extent.size_bytes
        copy = await find_copy(
            self._pool,
            0,
            source="inline",
            sha256=extent.sha256,
            order_source=self._order_source,
            usual_order_source=self._settings.order_source,
        )
        if copy is not None:
            return Imported(counts=Counts(), copy_of=copy[0], rejects=[])
        reader = self._reader = Reader(file, rules, check_cancelled=anyio.from_thread.check_cancelled)
        usual = self._settings.order_source
        async with merging(self._pool, self._order_source, usual_order_source=usual) as merge:
            await merge_orders(reader, merge, self._threads)
            if merge.counts.rejected < merge.counts.found or not merge.counts.found:
                await merge.commit_by_hand(
                    name, sha256=extent.sha256, size_bytes=extent.size_bytes, rejects=reader.rejects
                )
        return Imported(counts=merge.counts, copy_of=None, rejects=reader.rejects)
