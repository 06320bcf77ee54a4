"""Reads ShipStation's lists for one run: every call is counted, and a page that answers 500 is halved until the record
at fault stands alone."""

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import anyio

from listener.clients.shipstation.lists import Page
from listener.core.errors import Broken, Unavailable
from listener.workflows.sync.plan import Feed, Pass, Query, as_bound, as_end, parts, upper_mark

# A page may take the API this long, and its rows us a moment: a run that has less time left ends, and goes on later.
PAGE_TIME_S = 15.0


class Client(Protocol):
    """What a sync needs of `clients/shipstation`."""

    async def list_page(
        self, path: str, name: str, query: Mapping[str, str | int], *, base_url: str | None = None
    ) -> Page:
        """Read one page."""

    async def lists_orders(self) -> bool:
        """Ask for a list that no record is in."""

    async def report_down(self, error: Exception) -> Unavailable:
        """Blame the API as a whole; returns what to raise."""


class OutOfCalls(Exception):  # noqa: N818 - reads as a state
    """The run has made the calls that one cycle may make; the next cycle goes on."""


class OutOfTime(Exception):  # noqa: N818
    """The operation timeout is near; the run goes on at once, in another claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A record that breaks each page that shows it. query: the shortest list that contains it."""

    place: str
    query: Query
    error: str


@dataclass(slots=True, kw_only=True)
class Part:
    """The rows of one page. last: it was the list's last. shrunk: records have left the list while it was read.

    cut: what ended the reading in the middle of it; the rows before are here all the same, and the next reading goes on
    behind them. Else a page with more records at fault than one cycle's calls can tell apart would stop it for ever.
    """

    rows: list[Any] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    upper: datetime | None = None
    is_last: bool = False
    is_shrunk: bool = False
    cut: Exception | None = None

    @property
    def last_created(self) -> str | None:
        """The immutable sort's value of the last row that has one."""
        created = (row.get("createDate") for row in reversed(self.rows) if isinstance(row, dict))
        return next((wall for wall in created if isinstance(wall, str)), None)


@dataclass(slots=True, kw_only=True)
class _Known:
    """What the replies of one pass have told so far."""

    asked_at: datetime
    asked_s: float
    upper: datetime | None = None
    total: int | None = None
    is_shrunk: bool = False


class Reader:
    """The calls of one run. now: the run's start, by the database's clock. size: rows of one page."""

    def __init__(self, client: Client, *, now: datetime, most_calls: int, size: int) -> None:
        self.calls = 0
        self._client = client
        self._now = now
        self._started_s = time.monotonic()
        self._most_calls = most_calls
        self._size = size
        left_s = anyio.current_effective_deadline() - anyio.current_time()
        self._page_time_s = min(PAGE_TIME_S, left_s / 4)  # a short operation timeout must leave time for a page

    @property
    def calls_left(self) -> int:
        """Calls that this run may still make."""
        return self._most_calls - self.calls

    async def read(self, reading: Pass, *, base_url: str | None = None) -> AsyncIterator[Part]:
        """Read a list page by page. Raises Unavailable, Rejected, OutOfCalls, OutOfTime."""
        query, page = reading.query(), 1
        known = _Known(asked_at=self._clock(), asked_s=time.monotonic(), upper=reading.upper)
        while True:
            part = await self._page(reading.feed, query, page, self._size, known, base_url)
            part.upper = known.upper
            part.is_last = part.cut is None and known.total is not None and page * self._size >= known.total
            part.is_shrunk = known.is_shrunk
            yield part
            if part.cut is not None:
                raise part.cut
            if part.is_last:
                return
            page += 1

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

    async def _page(self, feed: Feed, query: Query, page: int, size: int, known: _Known, base_url: str | None) -> Part:
        try:
            return Part(rows=await self._rows(feed, query, page, size, known, base_url))
        except Broken as error:
            if not await self._witness():
                raise await self._client.report_down(error) from error
            part = Part()
            try:
                await self._search(feed, query, (page, size), known, base_url, part, str(error))
            except (OutOfCalls, OutOfTime, Unavailable) as cut:
                part.cut = cut
                # whose end is not known will be met again: the next reading begins before it
                part.poison = [each for each in part.poison if "createDateEnd" in each.query]
        return self._fenced_in(part, query)

    async def _search(
        self,
        feed: Feed,
        query: Query,
        place: tuple[int, int],
        known: _Known,
        base_url: str | None,
        part: Part,
        error: str,
    ) -> None:
        """The API works: find the records of this page that it stumbles over, and read the others."""
        smaller = parts(*place)
        if not smaller:
            created = as_bound(part.last_created)
            part.poison.append(Poison(place="", query={"createDateStart": created} if created else {}, error=error))
            return
        for number, size in smaller:
            if known.total is not None and (number - 1) * size >= known.total:
                return
            try:
                rows = await self._rows(feed, query, number, size, known, base_url)
            except Broken as again:
                await self._search(feed, query, (number, size), known, base_url, part, str(again))
                continue
            created = next((as_end(row.get("createDate")) for row in rows if isinstance(row, dict)), None)
            part.poison = [
                replace(each, query={**each.query, "createDateEnd": created})
                if created and "createDateEnd" not in each.query
                else each
                for each in part.poison
            ]
            part.rows += rows

    def _fenced_in(self, part: Part, query: Query) -> Part:
        """Say where each poison lies: after which record and before which, in the order of creation."""
        bounds = {name: value for name, value in query.items() if name.endswith("Start")}
        found = [
            replace(
                each,
                place=f"created from {each.query.get('createDateStart', 'the beginning')}"
                f" to {each.query.get('createDateEnd', 'the end')}",
                query={**bounds, **each.query},
            )
            for each in part.poison
        ]
        part.poison = list({each.place: each for each in found}.values())  # neighbours lie between the same two
        return part

    async def _rows(
        self, feed: Feed, query: Query, page: int, size: int, known: _Known, base_url: str | None
    ) -> list[Any]:
        answer = await self._call(feed, {**query, "pageSize": size, "page": page}, base_url)
        if known.upper is None:
            known.upper = upper_mark(
                asked_at=known.asked_at,
                answered_at=answer.answered_at and answer.answered_at.astimezone(UTC),
                elapsed_s=time.monotonic() - known.asked_s,
            )
        known.is_shrunk = known.is_shrunk or (known.total is not None and answer.total < known.total)
        known.total = answer.total
        return answer.rows

    async def _witness(self) -> bool:
        self._count()
        return await self._client.lists_orders()

    async def _call(self, feed: Feed, query: Query, base_url: str | None) -> Page:
        self._count()
        return await self._client.list_page(feed.path, feed.rows, query, base_url=base_url)

    def _count(self) -> None:
        if self.calls >= self._most_calls:
            raise OutOfCalls
        if self.calls and anyio.current_effective_deadline() - anyio.current_time() < self._page_time_s:
            raise OutOfTime
        self.calls += 1
