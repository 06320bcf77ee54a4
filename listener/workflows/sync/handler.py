"""Brings back what happened at ShipStation: orders, shipments, voids, fulfillments, page by page.

What is read is stored at once, in a transaction with how far the reading has got; so a run that is cut off anywhere has
lost nothing, and the next one goes on from there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from listener.clients.shipstation.lists import read_named
from listener.core.errors import Broken, ClaimLost, Rejected, Unavailable
from listener.core.events import CycleEnded, Publish
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Release, Snooze
from listener.db.sync_runs import Begun, SyncRuns
from listener.db.sync_state import Advance, Batch, Holder, SyncState, added
from listener.workflows.sync import plan
from listener.workflows.sync.plan import FEEDS, FULFILLMENTS, ORDERS, Feed, Mark, Params
from listener.workflows.sync.reader import Client, OutOfCalls, OutOfTime, Poison, Reader
from listener.workflows.sync.rows import read_rows

# Calls of one run for single orders whose fulfillments may be void, and for records in quarantine.
MOST_SUSPECTS, MOST_RETRIES = 10, 3
# The figure of a run that is not done yet: so many minutes of look-back are noted with the lists.
LOOKED_BACK = "looked_back_minutes"


class WithdrawsPermit(Protocol):
    """The gate, for a run that needs no call after all."""

    async def withdraw(self) -> None:
        """Give the reserved call back."""


class Sync:
    """The handler of queue `sync`. most_calls: what the live configuration allows one cycle."""

    def __init__(
        self,
        client: Client,
        gate: WithdrawsPermit,
        runs: SyncRuns,
        state: SyncState,
        publish: Publish,
        *,
        account: str,
        base_url: str,
        most_calls: Callable[[], int],
    ) -> None:
        self._client = client
        self._gate = gate
        self._runs = runs
        self._state = state
        self._publish = publish
        self._account = account
        self._base_url = base_url
        self._most_calls = most_calls

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Return one outcome per job. Raises Unreachable."""
        return [await self._run(job) for job in jobs]

    async def _run(self, job: Job) -> Outcome:
        params = plan.read_params(job.row["params"])
        problem = params if isinstance(params, str) else self._not_ours(job)
        if problem or isinstance(params, str):
            await self._gate.withdraw()
            return Fail(problem)
        try:
            begun = await self._runs.begin(job.id, job.claim_id)
        except ClaimLost as error:
            return Release(str(error))
        most = min(self._most_calls(), params.max_pages or self._most_calls())
        reader = Reader(self._client, now=begun.now, most_calls=most, size=params.batch_size)
        cycle = Cycle(job, params, begun, reader, self._state, self._base_url)
        try:
            await cycle.run(await self._marks())
        except OutOfTime:
            if not params.dry_run:  # which leaves nothing behind from where it could go on
                return Snooze(0.0, "more than one operation_timeout of pages; goes on")
        except OutOfCalls:
            pass
        except Unavailable as error:
            return Release(str(error))
        except (ClaimLost, Rejected) as error:
            return Release(str(error)) if isinstance(error, ClaimLost) else Fail(str(error))
        if not reader.calls:
            await self._gate.withdraw()
        figures = {name: figure for name, figure in cycle.figures().items() if name != LOOKED_BACK}
        self._publish(
            CycleEnded(connector="shipstation", account=self._account, reason=job.row["reason"], stats=figures)
        )
        return Done({"stats": figures})

    def _not_ours(self, job: Job) -> str:
        asked, ours = (job.row["connector"], job.row["account"]), ("shipstation", self._account)
        if asked == ours:
            return ""
        return (
            f"no credentials for {' '.join(asked)} here; this process has {' '.join(ours)}\n"
            f"hint: leave the account out of the INSERT, or name {self._account!r}"
        )

    async def _marks(self) -> dict[Feed, Mark]:
        known = await self._state.marks([feed.workflow for feed in FEEDS])
        marks = {feed: known.get(feed.workflow, (None, None)) for feed in FEEDS}
        return {feed: Mark(at=at, cursor=cursor) for feed, (at, cursor) in marks.items()}


class Cycle:
    """One run at work."""

    def __init__(self, job: Job, params: Params, begun: Begun, reader: Reader, state: SyncState, base_url: str) -> None:
        self.reader = reader
        self._job = job
        self._params = params
        self._holder = Holder(run_id=job.id, claim_id=job.claim_id, begun_at=begun.started_at, is_dry=params.dry_run)
        self._state = state
        self._base_url = base_url
        self._stats: dict[str, Any] = {**(job.row["stats"] or {}), "complete": False}
        self._calls_before = int(self._stats.get("calls", 0))
        if params.dry_run:
            self._stats["dry_run"] = True

    def figures(self) -> dict[str, Any]:
        """Return what the run has done, this claim and earlier ones together."""
        return {**self._stats, "calls": self._calls_before + self.reader.calls}

    async def run(self, marks: Mapping[Feed, Mark]) -> None:
        """Read everything that is asked for. Raises Unavailable, Rejected, OutOfCalls, OutOfTime, ClaimLost."""
        if not await self._read_urls() or self._job.row["reason"] != "webhook":
            marks = {**marks, **await self._owe(marks)}
            before = self._stats.get("changed", 0)
            await self._read_feed(ORDERS, marks)
            is_eventful = self._stats.get("changed", 0) > before
            for feed in plan.further(is_eventful, marks):
                await self._read_feed(feed, marks)
            await self._check_suspects()
            await self._retry_quarantined()
        self._stats["complete"] = True
        await self._store_batch(Batch(list="", is_last=True))

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
        """Read one list to its end."""
        reading = plan.begin_pass(feed, marks[feed], now=self.reader.now)
        async for part in self.reader.read(reading):
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
        if len(urls) > self.reader.calls_left // 2:
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
            except (Broken, Rejected, Unavailable) as error:  # what it cannot name is left to the next poll
                if isinstance(error, Unavailable) and named.base_url is None:
                    raise
                self._stats["urls_failed"] = self._stats.get("urls_failed", 0) + 1
                self._stats["last_url_error"] = str(error)
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
            try:
                rows, poison = await self.reader.sift(feed, due["query"])
            except Rejected:
                await self._store(feed, [], [], again=list(entries.values()))
                continue
            except OutOfCalls:  # more records of one second than one cycle reads: rarer and rarer
                await self._store(feed, [], [], again=list(entries.values()))
                raise
            # it may lie closer by now, between others: then it has another name, and that of before is nobody's
            left = {each.place for each in read_rows(feed, rows).unread} | {each.place for each in poison}
            await self._store(
                feed,
                rows,
                [each for each in poison if each.place not in entries],
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
