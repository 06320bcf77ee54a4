"""One run at work: which lists it reads, and what it stores of them, page by page."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from listener.clients.shipstation.lists import read_named
from listener.core.errors import Broken, Rejected, Unavailable
from listener.core.job import Job
from listener.db.sync_runs import Begun
from listener.db.sync_state import Advance, Batch, Holder, SyncState, added
from listener.workflows.sync import plan
from listener.workflows.sync.calls import ListDown, OutOfCalls, OutOfTime
from listener.workflows.sync.plan import FEEDS, FULFILLMENTS, ORDERS, Feed, Mark, Params
from listener.workflows.sync.reader import Poison, Reader
from listener.workflows.sync.rows import read_rows

# Calls of one run for single orders whose fulfillments may be void, and for records in quarantine.
MOST_SUSPECTS, MOST_RETRIES = 10, 3
# Figures of a run that is not done yet: so many minutes of look-back are noted with the lists; these lists it has read
# to their end; it ran out of time once, and reads the lists instead of its addresses.
LOOKED_BACK, LISTS_DONE, IS_CUT = "looked_back_minutes", "lists_done", "is_cut"
NOTES = frozenset({LOOKED_BACK, LISTS_DONE, IS_CUT})
LISTS_FAILED, URL_ERROR = "lists_failed", "last_url_error"
COUNTS = ("calls", "read", "changed", "unknown", "rows", "quarantined", "urls_refused", "urls_failed", LOOKED_BACK)


def read_figures(document: Any) -> dict[str, Any]:
    """Take over what the earlier claims of a run have counted and noted; a hand may have written anything there."""
    if not isinstance(document, dict):
        return {}
    counts = ((name, document.get(name)) for name in COUNTS)
    figures: dict[str, Any] = {name: count for name, count in counts if type(count) is int and 0 <= count < 2**53}
    done, down, error = (document.get(name) for name in (LISTS_DONE, LISTS_FAILED, URL_ERROR))
    if isinstance(done, list):
        figures[LISTS_DONE] = [feed.name for feed in FEEDS if feed.name in done]
    if isinstance(down, dict) and down:
        figures[LISTS_FAILED] = {feed.name: str(down[feed.name]) for feed in FEEDS if feed.name in down}
    if isinstance(error, str):
        figures[URL_ERROR] = error
    if document.get(IS_CUT) is True:
        figures[IS_CUT] = True
    return figures


class Cycle:
    """One run at work. earlier: the figures of its earlier claims. down: the lists that could not be read, and why."""

    def __init__(
        self,
        job: Job,
        params: Params,
        begun: Begun,
        earlier: Mapping[str, Any],
        reader: Reader,
        state: SyncState,
        base_url: str,
    ) -> None:
        self.reader = reader
        self._job = job
        self._params = params
        self._holder = Holder(run_id=job.id, claim_id=job.claim_id, begun_at=begun.started_at, is_dry=params.dry_run)
        self._state = state
        self._base_url = base_url
        self._stats: dict[str, Any] = {**earlier, "complete": False}
        self._calls_before: int = self._stats.get("calls", 0)
        self.down: dict[str, str] = dict(self._stats.get(LISTS_FAILED, {}))
        self._down_paths = {feed.path for feed in FEEDS if feed.name in self.down}
        if params.dry_run:
            self._stats["dry_run"] = True

    def figures(self) -> dict[str, Any]:
        """Return what the run has done, this claim and earlier ones together."""
        return {**self._stats, "calls": self._calls_before + self.reader.calls}

    async def run(self, marks: Mapping[Feed, Mark]) -> None:
        """Read everything that is asked for. Raises Unavailable, Rejected, OutOfCalls, OutOfTime, ClaimLost."""
        if not await self._read_urls() or self._job.row["reason"] != "webhook":
            marks = {**marks, **await self._owe(marks)}
            before = 0 if ORDERS.name in self._done else self._stats.get("changed", 0)
            await self._unless_down(ORDERS, partial(self._read_feed, ORDERS, marks))
            is_eventful = self._stats.get("changed", 0) > before
            for feed in plan.further(is_eventful, marks):
                await self._unless_down(feed, partial(self._read_feed, feed, marks))
            await self._unless_down(FULFILLMENTS, self._check_suspects)
            await self._retry_quarantined()
        self._stats["complete"] = not self.down
        await self._store_batch(Batch(list="", is_last=True))

    async def cut(self) -> None:
        """Note that the run is out of time: else each claim would begin with the same addresses. Raises ClaimLost."""
        self._stats[IS_CUT] = True
        await self._store_batch(Batch(list=""))

    @property
    def _done(self) -> list[str]:
        done: list[str] = self._stats.get(LISTS_DONE, [])
        return done

    async def _unless_down(self, feed: Feed, read: Callable[[], Awaitable[None]]) -> None:
        """Read a list; one that cannot be read is left to the next run, and the others are read all the same."""
        if feed.path in self._down_paths:
            return
        try:
            await read()
        except ListDown as error:
            self._down_paths.add(feed.path)
            self.down[feed.name] = str(error)
            self._stats[LISTS_FAILED] = dict(self.down)

    async def _owe(self, marks: Mapping[Feed, Mark]) -> Mapping[Feed, Mark]:
        """Note from when on each list is to be read, once a run: an earlier claim of it may have read some already."""
        asked = self._params.lookback_minutes
        if asked is not None and self._stats.get(LOOKED_BACK, 0) >= asked:
            asked = None
        if any(mark.at is None and mark.cursor is None for mark in marks.values()):
            await self.reader.hear()  # no watermark tells of their clock
        owed = plan.owed(marks, now=self.reader.now, lookback_minutes=asked)
        if asked is not None:
            self._stats[LOOKED_BACK] = asked
        if owed or asked is not None:
            advances = [Advance(workflow=feed.workflow, mark=None, cursor=mark.cursor) for feed, mark in owed.items()]
            await self._store_batch(Batch(list="", advances=advances))
        return owed

    async def _read_feed(self, feed: Feed, marks: Mapping[Feed, Mark]) -> None:
        """Read one list to its end, unless an earlier claim of the run has."""
        if feed.name in self._done:
            return
        reading = plan.begin_pass(feed, marks[feed], now=self.reader.now)
        async for part in self.reader.read(reading):
            if part.is_last:  # stored with its rows
                self._stats[LISTS_DONE] = [*self._done, feed.name]
            advance = Advance(
                workflow=feed.workflow,
                mark=part.upper if part.is_last else None,
                cursor=None if part.is_last else reading.cursor(part.upper, part.place),
            )
            await self._store(feed, part.rows, part.poison, advance)

    async def _read_urls(self) -> bool:
        """Read the lists that webhooks named. False: read what changed instead, which tells the same in fewer calls,
        and must have its turn; or a sister host cannot be asked, which says nothing of the account's own."""
        urls = dict.fromkeys(self._params.urls)
        if urls and (IS_CUT in self._stats or len(urls) > self.reader.calls_left // 2):
            return False
        for url in urls:
            named = read_named(url, self._base_url)
            feed = plan.BY_PATH.get(named.path) if named else None
            if named is None or feed is None:
                self._stats["urls_refused"] = self._stats.get("urls_refused", 0) + 1
                continue
            query: plan.Query = {name: text for name, text in named.query.items() if name not in ("page", "pageSize")}
            try:
                rows = await self.reader.read_query(feed, query, base_url=named.base_url)
            except (Broken, Rejected, ListDown, Unavailable) as error:  # what it cannot name is left to the next poll
                if isinstance(error, Unavailable) and named.base_url is None:
                    raise
                self._stats["urls_failed"] = self._stats.get("urls_failed", 0) + 1
                self._stats[URL_ERROR] = str(error)
                if isinstance(error, Unavailable):
                    return False
                continue
            await self._store(feed, rows, [])
        return True

    async def _check_suspects(self) -> None:
        for order_id in await self._state.suspects(MOST_SUSPECTS):
            query: plan.Query = {"orderId": order_id}
            try:
                rows, poison = await self.reader.sift(FULFILLMENTS, query)
            except Rejected as error:
                rows, poison = [], [Poison(place=plan.window(query, 1), query=query, error=str(error))]
            await self._store(FULFILLMENTS, rows, poison, checked=order_id)

    async def _retry_quarantined(self) -> None:
        for due in await self._state.quarantine_due(MOST_RETRIES):
            feed = next(feed for feed in FEEDS if feed.name == due["list"])
            entries: dict[str, int] = dict(zip(due["places"], due["ids"], strict=True))
            if feed.path in self._down_paths:
                continue
            try:
                rows, poison = await self.reader.sift(feed, due["query"])
            except (Rejected, ListDown):
                await self._store(feed, [], [], again=list(entries.values()))
                continue
            except (OutOfCalls, OutOfTime):  # more records of one second than one cycle reads: rarer and rarer
                await self._store(feed, [], [], again=list(entries.values()))
                raise
            # it may lie closer by now, between others: then it has another name, and that of before is nobody's
            left, new = recognise(entries, poison)
            left |= {each.place for each in read_rows(feed, rows).unread}
            await self._store(
                feed,
                rows,
                new,
                done=[entry for place, entry in entries.items() if place not in left],
                again=[entry for place, entry in entries.items() if place in left],
            )

    async def _store(
        self,
        feed: Feed,
        rows: Sequence[Any],
        poison: Sequence[Poison],
        *advances: Advance,
        checked: int | None = None,
        done: Sequence[int] = (),
        again: Sequence[int] = (),
    ) -> None:
        read = read_rows(feed, rows)
        self._stats["read"] = self._stats.get("read", 0) + len(rows)
        unread = [{**asdict(each), "query": plan.around(each.row)} for each in read.unread]
        batch = Batch(
            list=feed.name,
            orders=read.records if feed.rows == "orders" else (),
            parcels=() if feed.rows == "orders" else read.records,
            unread=[*unread, *(asdict(each) for each in poison)],
            advances=advances,
            checked=checked,
            done=done,
            again=again,
        )
        await self._store_batch(batch)

    async def _store_batch(self, batch: Batch) -> None:
        stored = await self._state.store(batch, self._holder, stats=self.figures())
        self._stats = added(self._stats, stored)


def recognise(places: Iterable[str], poison: Iterable[Poison]) -> tuple[set[str], list[Poison]]:
    """Tell which of the names in quarantine stand for records that were met again, and which records have none.

    Without their numbers: a retry reads a part of the list that the name was given in, and counts from its beginning.
    """
    names = defaultdict[str, list[str]](list)
    for place in sorted(places, key=lambda place: (len(place), place)):  # in the order of their numbers
        names[plan.unnumbered(place)].append(place)
    met, nameless = set[str](), list[Poison]()
    for each in poison:
        alike = names[plan.unnumbered(each.place)]
        if alike:
            met.add(alike.pop(0))
        else:
            nameless.append(each)
    return met, nameless
