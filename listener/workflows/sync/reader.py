"""Reads ShipStation's lists for one run: every call is counted, and a page that answers 500 is halved until the record
at fault stands alone."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from listener.clients.shipstation.lists import Page
from listener.core.errors import Broken, Unavailable
from listener.workflows.sync.calls import DOUBTFUL, Client, ListDown, OutOfCalls, OutOfTime
from listener.workflows.sync.plan import (
    SHIPMENTS,
    START,
    Feed,
    Pass,
    Place,
    Query,
    as_bound,
    as_end,
    onward,
    parts,
    upper_mark,
    window,
    within,
)

# A page may take the API this long, and its rows us a moment: a run that has less time left ends, and goes on later.
PAGE_TIME_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A record that breaks each page that shows it. query: the shortest list that contains it."""

    place: str
    query: Query
    error: str


@dataclass(slots=True, kw_only=True)
class Part:
    """The rows of one page. last: it was the list's last. place: behind it.

    poison: records that cannot be read, and of which it is known by now where they end. cut: what ended the reading in
    the middle of the page; the rows before are here all the same, and the next reading goes on behind them. Else a page
    with more records at fault than one cycle's calls can tell apart would stop it for ever.
    """

    rows: list[Any] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    upper: datetime | None = None
    place: Place = START
    is_last: bool = False
    cut: Exception | None = None


@dataclass(slots=True, kw_only=True)
class _Trail:
    """What one pass has met so far. first: position of the first record of the second `created`. end: position behind
    the last record. open: poison behind which no record was seen yet. total: records of the list. again: where to
    begin anew, as some have left it."""

    asked_at: datetime
    asked_s: float
    upper: datetime | None = None
    created: str | None = None
    first: int = 0
    end: int = 0
    open: list[Poison] = field(default_factory=list)
    total: int | None = None
    again: Place | None = None
    named: Counter[str] = field(default_factory=Counter)

    @property
    def place(self) -> Place:
        """Where the next reading goes on."""
        count = None if self.total is None else max(self.total - self.first, 0)
        here = Place(
            created=self.created,
            skip=self.end - self.first,
            open=len(self.open),
            named=self.named[within(self.created)],
            count=count,
        )
        return here if self.again is None else self.again

    def count(self, total: int) -> None:
        """Note how many records the list has. With fewer than before, some behind have moved onto what was read: they
        are of the second of the last record that was, or later."""
        if self.total is not None and total < self.total and self.end and self.again is None:
            self.again = Place(created=self.created)
        self.total = total

    def pass_rows(self, rows: list[Any], position: int) -> list[Poison]:
        """Go past rows that were read; returns the poison before them, of which it is known now where it ends."""
        closed: list[Poison] = []
        for offset, row in enumerate(rows):
            wall = row.get("createDate") if isinstance(row, dict) else None
            created, end = as_bound(wall), as_end(wall)
            if created is None or end is None:
                continue
            closed += [replace(each, query={**each.query, "createDateEnd": end}) for each in self.open]
            self.open = []
            if created != self.created:
                self.created, self.first = created, position + offset
        self.end = position + len(rows)
        return closed

    def pass_poison(self, position: int, error: str) -> None:
        """Go past a record that cannot be read."""
        query: Query = {"createDateStart": self.created} if self.created else {}
        self.open.append(Poison(place="", query=query, error=error))
        self.end = position + 1

    def name(self, poison: list[Poison], query: Query) -> list[Poison]:
        """Say where each poison lies, in the order of creation: its query after which record, its name before which."""
        bounds = {name: value for name, value in query.items() if name.endswith(("Start", "DateEnd", "orderId"))}
        named = []
        for each in poison:
            whole = {**bounds, **each.query}
            self.named[window(whole, 1)] += 1
            named.append(replace(each, place=window(whole, self.named[window(whole, 1)]), query=whole))
        return named


class Reader:
    """The calls of one run. now: the run's start, by the database's clock. size: rows of one page."""

    def __init__(self, client: Client, *, now: datetime, most_calls: int, size: int) -> None:
        self.calls = 0
        self._client = client
        self._now = now
        self._started_s = time.monotonic()
        self._most_calls = most_calls
        self._size = size
        self._behind: timedelta | None = None
        left_s = anyio.current_effective_deadline() - anyio.current_time()
        self._page_time_s = min(PAGE_TIME_S, left_s / 4)  # a short operation timeout must leave time for a page

    @property
    def calls_left(self) -> int:
        """Calls that this run may still make."""
        return self._most_calls - self.calls

    @property
    def now(self) -> datetime:
        """The moment by their clock or ours, whichever is behind; by ours until a reply has told theirs."""
        return self._clock() - (self._behind or timedelta(0))

    async def hear(self) -> None:
        """Ask for their time, unless a reply has told it. Raises Unavailable, OutOfCalls, OutOfTime."""
        if self._behind is None:
            await self._witness()

    async def read(self, reading: Pass) -> AsyncIterator[Part]:
        """Read a list page by page. Raises Unavailable, ListDown, Rejected, OutOfCalls, OutOfTime."""
        while True:
            place = reading.place
            trail = self._trail(upper=reading.upper, created=place.created, end=place.skip, total=place.count)
            trail.named[within(place.created)] = place.named  # those behind are numbered on, wherever a cycle begins
            for back in range(place.open, 0, -1):
                trail.pass_poison(place.skip - back, "the API answered 500 to every page with it")
            async for part in self._parts(reading.feed, reading.query(), trail):
                yield part
                if part.cut is not None:
                    raise part.cut
            if trail.again is None:
                return
            reading = replace(reading, upper=trail.upper, place=trail.again)

    async def sift(self, feed: Feed, query: Query) -> tuple[list[Any], list[Poison]]:
        """Read a whole list that is short, as far as it can be read. Raises as `read` does."""
        while True:
            trail = self._trail()
            rows: list[Any] = []
            poison: list[Poison] = []
            async for part in self._parts(feed, query, trail):
                if part.cut is not None:
                    raise part.cut
                rows += part.rows
                poison += part.poison
            if trail.again is None:
                return rows, poison

    async def read_query(self, feed: Feed, query: Query, *, base_url: str | None = None) -> list[Any]:
        """Read a whole list that is short. Raises as `read` does, and Broken."""
        rows: list[Any] = []
        page = 1
        while True:
            answer = await self._call(feed, {**query, "pageSize": self._size, "page": page}, base_url)
            rows += answer.rows
            if page * self._size >= answer.total:
                return rows
            page += 1

    def _clock(self) -> datetime:
        return self._now + timedelta(seconds=time.monotonic() - self._started_s)

    def _trail(self, **begun: Any) -> _Trail:
        return _Trail(asked_at=self._clock(), asked_s=time.monotonic(), **begun)

    async def _parts(self, feed: Feed, query: Query, trail: _Trail) -> AsyncIterator[Part]:
        for page, size in onward(trail.end, self._size):
            part = await self._page(feed, query, (page, size), trail)
            end = page * size
            is_at_end = part.cut is None and trail.total is not None and end >= trail.total
            part.is_last = is_at_end and trail.again is None
            if part.cut is None:
                trail.end = end
            if part.is_last:
                part.poison += trail.open
                trail.open = []
            part.poison = trail.name(part.poison, query)
            part.upper, part.place = trail.upper, trail.place
            yield part
            if part.is_last or part.cut is not None or trail.again is not None:
                return

    async def _page(self, feed: Feed, query: Query, place: tuple[int, int], trail: _Trail) -> Part:
        part = Part()
        try:
            await self._read_into(part, feed, query, place, trail)
        except Broken as error:
            if await self._witness() is None:
                raise await self._client.report_down(error) from error
            try:
                await self._search(feed, query, place, trail, part, str(error))
            except (OutOfCalls, OutOfTime, ListDown, Unavailable) as cut:
                part.cut = cut
        return part

    async def _search(
        self, feed: Feed, query: Query, place: tuple[int, int], trail: _Trail, part: Part, error: str
    ) -> None:
        """The API works: find the records of this page that it stumbles over, and read the others."""
        smaller = parts(*place)
        if not smaller:
            trail.pass_poison(place[0] - 1, error)
            return
        for number, size in smaller:
            if trail.total is not None and (number - 1) * size >= trail.total:
                return
            try:
                await self._read_into(part, feed, query, (number, size), trail)
            except Broken as again:
                await self._search(feed, query, (number, size), trail, part, str(again))

    async def _read_into(self, part: Part, feed: Feed, query: Query, place: tuple[int, int], trail: _Trail) -> None:
        page, size = place
        answer = await self._call(feed, {**query, "pageSize": size, "page": page}, None)
        if trail.upper is None:
            trail.upper = upper_mark(
                asked_at=trail.asked_at,
                answered_at=answer.answered_at and answer.answered_at.astimezone(UTC),
                elapsed_s=time.monotonic() - trail.asked_s,
            )
        trail.count(answer.total)
        part.rows += answer.rows
        part.poison += trail.pass_rows(answer.rows, (page - 1) * size)

    async def _witness(self, besides: str = SHIPMENTS.path) -> Page | None:
        self._count()
        page = await self._client.empty_page(besides=besides)
        return page and self._heard(page)

    async def _call(self, feed: Feed, query: Query, base_url: str | None) -> Page:
        self._count()
        try:
            page = await self._client.list_page(feed.path, feed.rows, query, base_url=base_url)
        except Unavailable as error:
            if base_url is not None or error.reason not in DOUBTFUL:
                raise
            try:
                is_up = await self._witness(feed.path) is not None
            except (OutOfCalls, OutOfTime):
                is_up = True  # nobody knows; the account must not pay for it
            if not is_up:
                raise await self._client.report_down(error) from error
            raise ListDown(str(error)) from error
        return self._heard(page)

    def _heard(self, page: Page) -> Page:
        if page.answered_at is not None:
            self._behind = max(self._clock() - page.answered_at, timedelta(0))
        return page

    def _count(self) -> None:
        if self.calls >= self._most_calls:
            raise OutOfCalls
        if self.calls and anyio.current_effective_deadline() - anyio.current_time() < self._page_time_s:
            raise OutOfTime
        self.calls += 1
