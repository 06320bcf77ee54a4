"""Source `http`: what a shop's export address says of the orders that were modified lately, as rows of import_files.

Each look reads from a while before the last one's end (shops write minutes, and some commit late) up to now, window
after window, and stores a window's pages together with the new watermark. A window of one page is one reply, so it
cannot change while it is read. One of several pages can: an order that is edited leaves its place, the ones behind it
move up, and one slips from a page that is still to be read to one that was. So such a window is read twice; when the
readings differ, or a page is cut off, half the window is tried.
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast

import anyio

from listener.clients.shop import ShopExport
from listener.core.errors import DatabaseError, TooLarge, Unavailable
from listener.core.events import Publish, Trouble
from listener.db.sources import Page, SourceState, Turn
from listener.workflows.imports.found import FileTrouble
from listener.workflows.imports.pipeline import Extent, in_thread, measure
from listener.workflows.imports.reader import count_pages

WORKFLOW = "shop export"
_MINUTE = timedelta(minutes=1)
FIRST_SPAN, LONGEST_SPAN = timedelta(days=1), timedelta(days=30)
# A page is one value of one row, and a window one transaction.
MOST_PAGE_BYTES, MOST_PAGES = 200_000_000, 1_000
_IN_MEMORY_BYTES = 8_000_000
# Of a minute that cannot be read as it should: then its pages become work as they are, and say what is wrong.
_MOST_TRIES = 4


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A page as it came, and where it lies. total: of how many. fault: why it is none."""

    number: int
    extent: Extent
    begin: int
    orders: int = 0
    total: int = 1
    fault: str | None = None


class _Window:
    """A stretch of time and its pages, one after the other in a temporary file."""

    def __init__(self, start: datetime, end: datetime, file: IO[bytes]) -> None:
        self.start, self.end, self.file = start, end, file

    def __str__(self) -> str:
        start, end = (f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" for moment in (self.start, self.end))
        return f"orders modified {start} to {end} UTC"

    @property
    def half(self) -> timedelta:
        """The next shorter span, in whole minutes; one is the shortest."""
        return timedelta(minutes=math.ceil((self.end - self.start) / 2 / _MINUTE))

    @property
    def is_shortest(self) -> bool:
        """A minute is the protocol's precision."""
        return self.end - self.start <= _MINUTE

    def files(self, pages: list[_Fetched], uri: str) -> Iterator[Page]:
        """Yield what is to be work, each content once."""
        known = set()
        for page in pages:
            if page.extent.sha256 in known or not (page.orders or page.fault):
                continue
            known.add(page.extent.sha256)
            self.file.seek(page.begin)
            body = self.file.read(page.extent.size_bytes)
            yield Page(uri=uri, name=f"{self}, page {page.number}", body=body, sha256=page.extent.sha256)


class ShopSource:
    """One shop. overlap_s: how far a look goes back behind the last one. first_days: how far the very first does."""

    def __init__(
        self,
        shop: ShopExport,
        state: SourceState,
        publish: Publish,
        *,
        overlap_s: float,
        first_days: float,
        most_bytes: int,
        most_s: float,
    ) -> None:
        self._shop = shop
        self._state = state
        self._publish = publish
        self._overlap = timedelta(seconds=overlap_s)
        self._first = timedelta(days=first_days)
        self._most_bytes = min(most_bytes, MOST_PAGE_BYTES)
        self._most_s = most_s
        self._span = FIRST_SPAN
        self._tries: tuple[datetime | None, int] = (None, 0)
        self._threads = anyio.CapacityLimiter(1)

    async def look(self, turn: Turn) -> None:
        """Read up to now. What was read is stored also when an error ends the look.

        Raises Unavailable, Unreachable, DatabaseError.
        """
        since = turn.now - self._first if turn.watermark is None else turn.watermark - self._overlap
        start, stop = since.replace(second=0, microsecond=0), _next_minute(turn.now)
        while start < turn.now:
            with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as file:
                window = _Window(start, min(start + self._span, stop), file)
                why = await self._read(window, watermark=min(window.end, turn.now))
            if why is None:
                self._span = min(self._span * 2, LONGEST_SPAN)
                start = window.end
            else:
                self._span = window.half
                self._tell(f"{window}: {why}", is_minor=True)

    async def _read(self, window: _Window, *, watermark: datetime) -> str | None:
        """Read a window and store it; else say why it must be shorter."""
        try:
            pages = await self._pages(window)
            why = next((page.fault for page in pages if page.fault is not None), None)
            if why is None and len(pages) > 1:
                again = await self._pages(window)
                if [page.extent for page in again] != [page.extent for page in pages]:
                    why, pages = "changed while it was read", [*pages, *again]
            if why is not None:
                if not window.is_shortest or not self._is_last_try(window.start):
                    return why
                self._tell(f"{window}: {why}; taken as it is")
            await self._state.put_pages(window.files(pages, self._shop.uri), watermark=watermark)
        except TooLarge as error:
            if window.is_shortest:  # a person must look
                raise Unavailable(f"{window}: {error}", reason="outage") from error
            return str(error)
        except (Unavailable, DatabaseError):
            self._span = window.half  # whoever takes too long for a long window may have time for a shorter one
            raise
        return None

    def _is_last_try(self, start: datetime) -> bool:
        known, count = self._tries
        self._tries = (start, count + 1 if known == start else 1)
        return self._tries[1] >= _MOST_TRIES

    async def _pages(self, window: _Window) -> list[_Fetched]:
        pages: list[_Fetched] = []
        total = 1
        while len(pages) < total:
            page = await self._page(window, len(pages) + 1)
            pages.append(page)
            if page.fault is not None:
                break
            total = page.total  # the newest word counts: it changes with the orders
            if total > MOST_PAGES:
                raise TooLarge(f"{total:,} pages; more than {MOST_PAGES:,} are not read at once")
        return pages

    async def _page(self, window: _Window, number: int) -> _Fetched:
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
            file = cast("BinaryIO", spool)
            await self._shop.page(
                window.start, window.end, number, file, most_bytes=self._most_bytes, most_s=self._most_s
            )
            return cast("_Fetched", await in_thread(partial(self._examined, window, number, file), self._threads))

    def _examined(self, window: _Window, number: int, file: BinaryIO) -> _Fetched:
        """In a thread: measure a page, keep it, and look whether it is one."""
        file.seek(0)
        extent = measure(file, self._most_bytes)
        begin = window.file.seek(0, 2)
        shutil.copyfileobj(file, window.file)
        file.seek(0)
        try:
            orders, total = count_pages(file)
        except FileTrouble as trouble:
            return _Fetched(number, extent, begin, fault=f"page {number}: {trouble}")
        return _Fetched(number, extent, begin, orders, total)

    def _tell(self, error: str, *, is_minor: bool = False) -> None:
        self._publish(Trouble(where=f"shop {self._shop.uri}", error=error, is_minor=is_minor))


def _next_minute(moment: datetime) -> datetime:
    floor = moment.replace(second=0, microsecond=0)
    return floor if floor == moment else floor + _MINUTE
