"""One random history: things happen at ShipStation while syncs run, are cut off, fail and are killed.

The sandbox is the truth. After each sync no watermark may be ahead of what is stored, and at the end every row of the
inbox must say what ShipStation says.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from queues import engine_connection, statement
from sandbox.server import order
from station import Station

from listener.clients.shipstation.lists import Page
from listener.sandbox.shipstation import Sandbox
from listener.workflows.queues import SYNC

PACIFIC = ZoneInfo("America/Los_Angeles")
#: Status of a whole order by its parts': the first that any part has.
NEEDS_MOST = ("awaiting_payment", "on_hold", "awaiting_shipment", "pending_fulfillment", "shipped", "cancelled")
FAULTS: tuple[dict[str, Any], ...] = (
    {"status": 500, "count": 1},
    {"status": 503, "count": 1},
    {"status": 429, "count": 1},
    {"html200": True, "count": 1},
    {"cut_json": True, "count": 1},
    {"reset_after": True, "count": 1},
    {"reset_before": True, "count": 1},
    {"duplicate_row": True, "count": 3},
    {"unknown_fields": True, "count": 3},
    {"date_offset_s": -600, "count": 2},
    {"status": 401, "count": 4},
)


class Killed(BaseException):
    """The process is gone, in the middle of a call."""


def nights(year: int) -> tuple[datetime, ...]:
    """Beginnings: an hour before the clocks go back, and forward, and an ordinary noon."""
    sundays = [
        day for n in range(300) if (day := datetime(year, 3, 1, 9, 15, tzinfo=UTC) + timedelta(days=n)).weekday() == 6
    ]
    forward = sundays[1]
    back = next(day for day in sundays if day.month == 11) - timedelta(hours=1)
    return back, forward, datetime(year, 6, 1, 19, 0, tzinfo=UTC)


@dataclass
class History:
    """One history. has_late: rows arrive with old times, which only a look further back finds. has_skew: ShipStation's
    clock is set back now and then, by less than the overlap. most_calls: of one cycle. moves: the key is exchanged.
    is_ahead: of our clock, theirs; else it is behind."""

    shop: Station
    sandbox: Sandbox
    rng: random.Random
    has_late: bool
    has_skew: bool = False
    most_calls: int = 10_000
    moves: bool = False
    is_ahead: bool = False
    latest_s: float = 0.0
    numbers: list[str] = field(default_factory=list)
    touched: dict[int, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Note what happens, for whoever reads a failure."""
        self.said.append(f"{self.sandbox.clock.wall()[:19]} {text}")

    # --- the world ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start at one of the three times, with a few orders."""
        year = datetime.now(UTC).year
        at = self.rng.choice(nights(year + 1 if self.is_ahead else year - 1))
        self.sandbox.clock.offset_s = at.timestamp() - self.sandbox.clock.source()
        for _ in range(self.rng.randint(3, 7)):
            self.create()

    def pass_time(self) -> None:
        """Sometimes nothing (the same second), sometimes a quarter of an hour."""
        self.sandbox.clock.offset_s += self.rng.choice((0.0, 0.0, 1.0, 30.0, 240.0, 900.0))

    def set_back(self) -> None:
        """ShipStation's clock is corrected; it is never further behind its latest time than the overlap allows for."""
        if self._clock_s() >= self.latest_s:
            self.latest_s = self._clock_s()
            self.sandbox.clock.offset_s -= self.rng.choice((20.0, 120.0, 200.0))
            self.say("the clock is set back")

    def _clock_s(self) -> float:
        return self.sandbox.clock.source() + self.sandbox.clock.offset_s

    def control(self, verb: str, number: str, **body: Any) -> Any:
        """Act as the person at ShipStation; what the API refuses does not happen."""
        reply = self.shop.api.anonymous.post(f"/sandbox/{verb}", json={"orderNumber": number, **body})
        self.say(f"{verb} {number} {body} -> {reply.status_code}")
        return reply.json() if reply.status_code == 200 else None

    def act(self) -> None:
        """Do one random thing."""
        self.pass_time()
        verbs = (
            self.create,
            self.by_hand,
            self.edit,
            self.ship,
            self.ship,
            self.fulfill,
            self.void,
            self.void,
            self.split,
        )
        before = {key: held.modified for key, held in self.sandbox.store.orders.items()}
        self.rng.choice(verbs)()
        for key, held in self.sandbox.store.orders.items():
            if before.get(key) != held.modified:
                self.touched[key] = self.sandbox.clock.source() + self.sandbox.clock.offset_s

    def create(self) -> None:
        number = str(len(self.numbers) + 1)
        self.numbers.append(number)
        self.shop.insert(number)
        self.shop.api.create(order(number))
        self.say(f"create {number}")

    def by_hand(self) -> None:
        number = f"hand-{self.rng.randrange(10**6)}"
        self.shop.api.create(order(number, orderKey=f"theirs-{number}"))
        self.say(f"create {number}")

    def edit(self) -> None:
        changes: dict[str, Any] = {"customerNotes": str(self.rng.random())}
        if self.rng.random() < 0.7:
            changes["orderStatus"] = self.rng.choice(("on_hold", "cancelled", "awaiting_shipment", "awaiting_payment"))
        late: dict[str, Any] = {}
        if self.has_late and self.rng.random() < 0.3:
            late["modifyDate"] = self._long_ago()
        self.control("edit", self.rng.choice(self.numbers), set=changes, **late)

    def ship(self) -> None:
        late = {"createDate": self._long_ago()} if self.has_late and self.rng.random() < 0.2 else {}
        is_return = self.rng.random() < 0.2
        self.control("ship", self.rng.choice(self.numbers), isReturnLabel=is_return, **late)

    def fulfill(self) -> None:
        self.control("ship", self.rng.choice(self.numbers), fulfillment=True, trackingNumber=f"F{self.rng.random()}")

    def void(self) -> None:
        number = self.rng.choice(self.numbers)
        parcels = [p for p in self._parcels(number) if not p["voided"]]
        if not parcels:
            return
        carries = [p for p in parcels if not p.get("isReturnLabel")]
        parcel = self.rng.choice(parcels)
        if "fulfillmentId" not in parcel:
            self.control("void", number, shipmentId=parcel["shipmentId"])
        elif self.has_late or (len(carries) == 1 and self.sandbox.store.orders[parcel["orderId"]].status == "shipped"):
            # else the order is as it was, and no list tells of it
            self.control("void", number, fulfillmentId=parcel["fulfillmentId"])

    def split(self) -> None:
        if self.rng.random() < 0.4:
            self.control("split", self.rng.choice(self.numbers), sameKey=self.rng.random() < 0.5)

    def _long_ago(self) -> str:
        return (datetime.now(UTC) - timedelta(days=self.rng.randint(1, 30))).isoformat()

    def _parts(self, number: str) -> list[Any]:
        return [held for held in self.sandbox.store.live() if held.number == number]

    def _parcels(self, number: str) -> list[Any]:
        ids = {held.order_id for held in self._parts(number)}
        store = self.sandbox.store
        return [p for p in (*store.shipments.values(), *store.fulfillments.values()) if p["orderId"] in ids]

    async def flood(self) -> None:
        """Webhooks come: a few, or more than one run may be told of; each perhaps twice."""
        host = f"http://{self.shop.api.address[0]}:{self.shop.api.address[1]}"
        count = self.rng.choice((1, 2, 5, 210))
        for number in range(count):
            order_number = self.rng.choice(self.numbers)
            what = self.rng.choice(
                (f"orders?orderNumber={order_number}", "shipments?page=1", "orders?orderStatus=shipped")
            )
            url = f"{host}/{what}&importBatch={number if count > 5 else self.rng.randrange(3)}"
            for _ in range(self.rng.randint(1, 2)):
                await self.shop.runs.receive(dedupe_key=f"{self.rng.random()}", body=b"{}", url=url)
        if self.rng.random() < 0.5:
            await self.shop.runs.schedule(interval_s=0.0, wide_minutes=2_880)
        self.say(f"{count} webhooks")

    def move(self) -> None:
        """The key is exchanged."""
        self.shop = self.shop.successor()
        self.say("a new key")

    # --- the syncs ---------------------------------------------------------------------------------------------------

    async def sync(self, *, quietly: bool = False, **params: Any) -> None:
        """One run; unless quietly, things happen between its pages, and it may be killed."""
        self.say(f"sync {params}")
        client = self.shop.shipstation if quietly else Disturbed(self)
        self.shop.client = client  # type: ignore[assignment]
        before = self.shop.marks()
        self.shop.most_calls = 10_000 if quietly else self.most_calls
        job = await self.shop.claim("schedule", **params)
        while job.row["account"] != self.shop.account:  # of the key before: nobody has it any more
            (outcome,) = await self.shop.handler()([job])
            await self.shop.settle(job, outcome)
            job = await self.shop.claim("schedule", **params)
        try:
            (outcome,) = await self.shop.handler()([job])
            await self.shop.settle(job, outcome)
            self.say(f"  {outcome}")
        except Killed:
            self.say("  killed")
            with engine_connection(self.shop.database) as conn:
                conn.execute(statement("rescue", SYNC), {"lock_class": 1, "stale_s": 300.0})
        self.check(before)

    def check(self, before: Mapping[str, Any]) -> None:
        """No watermark went back, none is ahead of ShipStation's clock, and none is ahead of what is stored."""
        marks = self.shop.marks()
        now_s = max(self._clock_s(), self.latest_s)
        for name, at in marks.items():
            assert at is None or before.get(name) is None or at >= before[name], name
            assert at is None or at.timestamp() <= now_s, name
        mark = marks.get("orders")
        if mark is None or self.has_late or self.has_skew:
            return
        stored = dict(
            self.shop.database.execute(
                "SELECT order_id, order_status FROM shipstation_orders WHERE account = %s", [self.shop.account]
            )
        )
        aside = self.shop.database.execute("SELECT count(*) FROM sync_quarantine WHERE resolved_at IS NULL")[0][0]
        if not aside:
            for held in self.sandbox.store.live():
                if self.touched.get(held.order_id, 0.0) < mark.timestamp() and held.order_id in self.touched:
                    assert stored.get(held.order_id) == held.status, (held.number, mark)

    # --- the end -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live through it, and compare."""
        self.begin()
        await self.sync(lookback_minutes=5_000_000, batch_size=self.rng.randint(1, 5))
        rounds = self.rng.randint(6, 14)
        for number in range(rounds):
            if self.has_skew and self.rng.random() < 0.3:
                self.set_back()
            for _ in range(self.rng.randint(0, 4)):
                self.act()
            if self.rng.random() < 0.2:
                await self.flood()
            if self.moves and number == rounds // 2:
                self.move()
                await self.sync(lookback_minutes=5_000_000, batch_size=self.rng.randint(1, 5))
            if self.rng.random() < 0.5:
                self.shop.api.fault(self._fault())
            await self.sync(batch_size=self.rng.randint(1, 5))
        self.shop.api.control("DELETE", "faults")
        wide = {"lookback_minutes": 5_000_000} if self.has_late or self.moves else {}
        self.sandbox.clock.offset_s += max(self.latest_s - self._clock_s(), 0.0)
        for _ in range(5):  # a run that was cut off goes on; voids and fulfillments take turns
            self.sandbox.clock.offset_s += 120.0
            self.shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
            await self.sync(quietly=True, **wide)
        self.compare()

    def _fault(self) -> dict[str, Any]:
        fault = {"poison": [self.rng.choice(self.numbers)]} if self.rng.random() < 0.3 else self.rng.choice(FAULTS)
        return {**fault, "method": "GET"}

    def compare(self) -> None:
        """Every row of the inbox says what ShipStation says."""
        for number in self.numbers:
            assert self.shop.row(number) == self.truth(number), "\n".join([number, *self.said])
        known = {held.order_id for number in self.numbers for held in self._parts(number)}
        unknown = {held.order_id for held in self.sandbox.store.live()} - known
        recorded = self.shop.database.execute(
            "SELECT order_id FROM shipstation_unknown_orders WHERE account = %s", [self.shop.account]
        )
        assert {order_id for (order_id,) in recorded} == unknown, "\n".join(self.said)

    def truth(self, number: str) -> dict[str, Any]:
        """What the row must say, worked out from what the sandbox holds."""
        status = min((held.status for held in self._parts(number)), key=NEEDS_MOST.index)
        carried = [p for p in self._parcels(number) if not p["voided"] and not p.get("isReturnLabel")]
        empty = {"fulfillment_status": status, "tracking_number": None, "carrier_code": None, "shipped_at": None}
        if not carried:
            return empty
        last = {
            ("shipmentId" in p): p for p in sorted(carried, key=lambda p: p.get("shipmentId") or p["fulfillmentId"])
        }
        newest = max(last.values(), key=lambda p: (p["createDate"], p.get("shipmentId") or p["fulfillmentId"]))
        day = datetime.fromisoformat(newest["shipDate"][:10]).replace(tzinfo=PACIFIC)
        return {
            **empty,
            "tracking_number": newest["trackingNumber"],
            "carrier_code": newest["carrierCode"],
            "shipped_at": day.astimezone(UTC),
        }


class Disturbed:
    """The client, while the world goes on: things happen before its calls, and it may never come back from one."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._inner = history.shop.shipstation

    async def list_page(self, path: str, name: str, query: Mapping[str, Any], **more: Any) -> Page:
        rng = self._history.rng
        if rng.random() < 0.25:
            self._history.act()
        if rng.random() < 0.01:
            raise Killed
        page = await self._inner.list_page(path, name, query, **more)
        if rng.random() < 0.01:
            raise Killed
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def forget(shop: Station) -> None:
    """Empty the tables that a history fills."""
    shop.database.execute(
        "TRUNCATE orders_inbox, sync_runs, sync_quarantine, shipstation_orders, shipstation_parcels;"
        " DELETE FROM polling_state WHERE workflow IS NOT NULL"
    )
