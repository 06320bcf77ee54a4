"""What a sync asks for and how far it may say it has got. Pure: no I/O, no clock; `handler.py` acts on it.

A pass reads one list from a lower bound on, without an upper one, sorted by what never changes: a row can then enter
the list while it is read, which costs a repeat, but none can leave it and move another one past us.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from listener.clients.shipstation.lists import MOST_ROWS
from listener.workflows.pacific import lower_bound

# Twice their precision and a lag of minutes: the public connectors' value.
OVERLAP = timedelta(minutes=5)
# Without a watermark: what a shop still works on. `--lookback-minutes` for more.
FIRST_LOOKBACK = timedelta(days=7)
# Once a day the schedule asks for these two days anew: no filter of theirs is without holes (rows that arrive late, a
# voided fulfillment of an order that something else carries).
DAILY_LOOKBACK_MINUTES = 2_880

Query = dict[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One list, by one of its dates. name: its watermark's. rows: the reply's member. bound: the filter.

    row_id, created: members of a row.
    """

    name: str
    path: str
    rows: Literal["orders", "shipments", "fulfillments"]
    bound: str
    row_id: str
    created: str = "createDate"

    @property
    def workflow(self) -> str:
        """Its name in `polling_state`."""
        return f"shipstation {self.name}"


ORDERS = Feed(name="orders", path="/orders", rows="orders", bound="modifyDateStart", row_id="orderId")
SHIPMENTS = Feed(name="shipments", path="/shipments", rows="shipments", bound="createDateStart", row_id="shipmentId")
# No list can be filtered by its change: a label that is voided next week only shows by that date.
VOIDS = Feed(name="voids", path="/shipments", rows="shipments", bound="voidDateStart", row_id="shipmentId")
FULFILLMENTS = Feed(
    name="fulfillments", path="/fulfillments", rows="fulfillments", bound="createDateStart", row_id="fulfillmentId"
)
FEEDS = (ORDERS, SHIPMENTS, VOIDS, FULFILLMENTS)
BY_PATH = {feed.path: feed for feed in (ORDERS, SHIPMENTS, FULFILLMENTS)}


class Params(BaseModel):
    """`sync_runs.params`: what a run was asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    lookback_minutes: Annotated[int, Field(ge=1, le=5_256_000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_ROWS)] = MOST_ROWS
    max_pages: Annotated[int, Field(ge=1)] | None = None
    dry_run: bool = False
    urls: list[Annotated[str, Field(max_length=2_000)]] = []


def read_params(document: Any) -> Params | str:
    """Read a run's params; a sentence for each fault when they cannot be read."""
    try:
        return Params.model_validate(document)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, ('params', *each['loc'])))}: {each['msg']}" for each in error.errors()]
        return "; ".join(faults) + f"; known: {', '.join(Params.model_fields)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a feed has been read: everything up to `at`. cursor: of a pass that is owed, or not at its end."""

    at: datetime | None = None
    cursor: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in a list, by its immutable sort: behind `skip` of the records that were made from second `created` on.

    Without the number, more records of one second than a cycle may read would be met again for ever. open: so many of
    them, the last ones, could not be read, and none behind them was seen. named: so many that could not be read lie
    before a record of that second, and have their names. count: records from that second on, when it was asked; fewer
    now means that some have left the list, and others may have moved onto what was read.
    """

    created: str | None = None
    skip: int = 0
    open: int = 0
    named: int = 0
    count: int | None = None


#: Before a list's first record.
START = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One reading of a list. since: its lower bound. upper: the new watermark, once its end is reached (None: not known
    yet). place: where it begins, behind an earlier part."""

    feed: Feed
    since: datetime
    upper: datetime | None = None
    place: Place = START

    def query(self) -> Query:
        """Give the filters."""
        query: Query = {self.feed.bound: lower_bound(self.since), "sortBy": "CreateDate", "sortDir": "ASC"}
        if self.place.created is not None:
            if self.feed.bound == "createDateStart":
                query[self.feed.bound] = max(str(query[self.feed.bound]), self.place.created)
            else:
                query["createDateStart"] = self.place.created
        return query

    def cursor(self, upper: datetime | None = None, place: Place = START) -> dict[str, Any]:
        """Write where the next part goes on; without a place, that the list is still to be begun, and from when on."""
        since = {"since": self.since.isoformat()}
        return since if upper is None or place == START else {**since, "upper": upper.isoformat(), **asdict(place)}


def owed(marks: Mapping[Feed, Mark], *, now: datetime, lookback_minutes: int | None) -> dict[Feed, Mark]:
    """Find the lists that must be read from further back than their watermarks tell: when it is asked for, and the
    first time. Returns their marks, to be kept until they are begun: a run may be cut off before.

    now: by their clock or ours, whichever is behind.
    """
    found = {}
    for feed, mark in marks.items():
        former = _read_cursor(feed, mark.cursor)
        if lookback_minutes is None and (mark.at is not None or former is not None):
            continue
        since = _since(mark, now, timedelta(minutes=lookback_minutes or 0))
        if former is None or former.since > since:
            found[feed] = Mark(at=mark.at, cursor=Pass(feed=feed, since=since).cursor())
    return found


def begin_pass(feed: Feed, mark: Mark, *, now: datetime) -> Pass:
    """Plan a pass: from the watermark on, less the overlap; or from where one that is owed, or was cut off, goes on."""
    since = _since(mark, now, OVERLAP)
    former = _read_cursor(feed, mark.cursor)
    return former if former is not None and former.since <= since else Pass(feed=feed, since=since)


def _since(mark: Mark, now: datetime, width: timedelta) -> datetime:
    """Look back from the watermark, which is of their clock's time too: ours may be ahead of it."""
    return now - max(FIRST_LOOKBACK, width) if mark.at is None else min(mark.at, now) - max(OVERLAP, width)


def _read_cursor(feed: Feed, cursor: Mapping[str, Any] | None) -> Pass | None:
    if cursor is None:
        return None
    try:
        since = datetime.fromisoformat(cursor["since"]).astimezone(UTC)
        if cursor.keys() == {"since"}:
            return Pass(feed=feed, since=since)
        skip, unclosed, named, count = cursor["skip"], cursor["open"], cursor.get("named", 0), cursor["count"]
        numbers = [skip, unclosed, named, 0 if count is None else count]
        if not all(type(number) is int and number >= 0 for number in numbers):
            return None
        created = cursor["created"]
        if created != as_bound(created):
            return None
        return Pass(
            feed=feed,
            since=since,
            upper=datetime.fromisoformat(cursor["upper"]).astimezone(UTC),
            place=Place(created=created, skip=skip, open=unclosed, named=named, count=count),
        )
    except (KeyError, TypeError, ValueError):  # written by a hand or an older release: begin anew
        return None


def as_bound(wall: Any) -> str | None:
    """Write a time of theirs as a filter: their own clock's text, to the second; None when it is no time."""
    moment = _second(wall)
    return moment.isoformat(" ") if moment is not None else None


def as_end(wall: Any) -> str | None:
    """Write it as an upper bound: the next second, for a filter that drops the fraction would leave the record out."""
    moment = _second(wall)
    return (moment + timedelta(seconds=1)).isoformat(" ") if moment is not None else None


def _second(wall: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(wall[:19]) if isinstance(wall, str) and len(wall) >= 19 else None
    except ValueError:
        return None


def around(row: Any) -> Query | None:
    """Give the shortest list that contains a row that could not be read; None when it does not say when it was made."""
    wall = row.get("createDate") if isinstance(row, dict) else None
    start, end = as_bound(wall), as_end(wall)
    return {"createDateStart": start, "createDateEnd": end} if start and end else None


def window(query: Query, number: int) -> str:
    """Name a record that no page shows: before which other it lies, and which of those there it is.

    Not behind which: that one is another where the list begins later, and the same record would have many names.
    """
    order = f"of order {query['orderId']}, " if "orderId" in query else ""
    end = f"created before {query['createDateEnd']}" if "createDateEnd" in query else "created last"
    return order + end + (f", number {number}" if number > 1 else "")


def unnumbered(place: str) -> str:
    """Return what records that lie before the same other one share of their names."""
    return place.partition(", number ")[0]


def within(created: str | None) -> str:
    """Name the first that lies before a record of this second: only such a name may be needed again, further on."""
    end = as_end(created)
    return window({"createDateEnd": end} if end else {}, 1)


def upper_mark(*, asked_at: datetime, answered_at: datetime | None, elapsed_s: float) -> datetime:
    """Say up to when a pass knows everything: the moment of its first request by the vendor's clock or ours, whichever
    is behind. elapsed_s: from the request to the reply whose `Date`, in whole seconds, is `answered_at`."""
    if answered_at is None:
        return asked_at
    return min(asked_at, answered_at - timedelta(seconds=elapsed_s + 1.0))


def further(has_changes: bool, marks: Mapping[Feed, Mark]) -> tuple[Feed, ...]:
    """Choose which lists to read after the orders: all when something happened, else two calls. Voids and fulfillments
    then take turns: they nearly always come with a change of their order."""
    if has_changes or any(marks[feed].at is None or marks[feed].cursor for feed in FEEDS):
        return (SHIPMENTS, VOIDS, FULFILLMENTS)
    never = datetime.min.replace(tzinfo=UTC)
    return (SHIPMENTS, min((VOIDS, FULFILLMENTS), key=lambda feed: marks[feed].at or never))


def onward(position: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the pages from a place in a list on: (page, size) of each, smaller ones until a whole one begins there."""
    sizes = [size]
    while smaller := parts(1, sizes[-1]):
        sizes.append(smaller[0][1])
    while True:
        fits = next(each for each in sizes if position % each == 0)
        yield position // fits + 1, fits
        position += fits


def parts(page: int, size: int) -> list[tuple[int, int]]:
    """Split one page into smaller ones that cover the same rows: (page, size) of each; none for a single row.

    By the smallest divisor (500, 250, 125, 25, 5, 1), so that a smaller page begins where the larger one did.
    """
    if size <= 1:
        return []
    divisor = next(number for number in range(2, size + 1) if size % number == 0)
    return [(number, size // divisor) for number in range((page - 1) * divisor + 1, page * divisor + 1)]
