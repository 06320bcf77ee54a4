"""The sync handler with the real client against the sandbox and a real database."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import anyio
import pytest
from queues import engine_connection
from sandbox.server import Client, order
from station import ACCOUNT, Station, api, shop
from waiting import until_async

from listener.config.live import LiveConfig
from listener.core.errors import Rejected
from listener.core.events import Trouble
from listener.core.outcome import Done, Fail, Release, Snooze
from listener.db.sync_state import Batch, Holder, SyncState
from listener.workflows.pacific import read_pacific
from listener.workflows.sync.plan import ORDERS, as_bound, as_end
from listener.workflows.sync.retention import Retention
from listener.workflows.sync.rows import read_rows
from listener.workflows.sync.schedule import Schedule

__all__ = ["api", "shop"]

pytestmark = pytest.mark.anyio


def wall(moment: datetime) -> str:
    """A moment as their clock writes it."""
    return moment.astimezone(ZoneInfo("America/Los_Angeles")).replace(tzinfo=None).isoformat()


async def test_what_happens_at_shipstation_comes_back(shop: Station, api: Client) -> None:
    shop.upload("1", "2", "3", "4")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "1Z1", "shipDate": "2026-11-20"})
    api.control("POST", "edit", {"orderNumber": "2", "set": {"orderStatus": "cancelled"}})
    api.control("POST", "ship", {"orderNumber": "3", "trackingNumber": "X3", "carrierCode": "dhl", "fulfillment": True})

    stats = await shop.sync()

    assert (stats["complete"], stats["rows"]) == (True, 4)
    shipped = shop.row("1")
    assert (shipped["fulfillment_status"], shipped["tracking_number"], shipped["carrier_code"]) == (
        "shipped",
        "1Z1",
        "fedex",
    )
    assert shipped["shipped_at"] == datetime(2026, 11, 20, 8, tzinfo=UTC)  # midnight in Pacific time
    assert shop.row("2")["fulfillment_status"] == "cancelled"
    assert (shop.row("3")["tracking_number"], shop.row("3")["carrier_code"]) == ("X3", "dhl")
    assert shop.row("4") == {
        "fulfillment_status": "awaiting_shipment",
        "tracking_number": None,
        "carrier_code": None,
        "shipped_at": None,
    }


async def test_a_sync_causes_no_upload(shop: Station, api: Client) -> None:
    shop.upload("1")
    before = shop.database.execute("SELECT status, revision, attempts, claim_id FROM orders_inbox")
    api.control("POST", "ship", {"orderNumber": "1"})

    await shop.sync()

    assert shop.row("1")["fulfillment_status"] == "shipped"
    assert shop.database.execute("SELECT status, revision, attempts, claim_id FROM orders_inbox") == before


async def test_a_void_takes_back_what_the_label_said(shop: Station, api: Client) -> None:
    shop.upload("1", "2")
    for number in ("1", "2"):
        api.control("POST", "ship", {"orderNumber": number, "trackingNumber": f"first {number}"})
    api.control("POST", "ship", {"orderNumber": "2", "trackingNumber": "second 2"})
    await shop.sync()
    assert shop.row("2")["tracking_number"] == "second 2"

    api.control("POST", "void", {"orderNumber": "1"})
    api.control("POST", "void", {"orderNumber": "2"})  # the newest; the other one still carries it
    await shop.sync()

    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("awaiting_shipment", None)
    assert shop.row("1")["shipped_at"] is None
    assert (shop.row("2")["fulfillment_status"], shop.row("2")["tracking_number"]) == ("shipped", "first 2")


async def test_in_the_hour_that_comes_twice_the_later_label_counts(shop: Station, api: Client) -> None:
    """Their clock says 01:50, and twenty minutes later 01:10."""
    shop.upload("1")
    for tracking, at in (("earlier", "2025-11-02T08:50:00Z"), ("later", "2025-11-02T09:10:00Z")):
        api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": tracking, "createDate": at})
    api.control(
        "POST",
        "ship",
        {"orderNumber": "1", "trackingNumber": "F", "fulfillment": True, "createDate": "2025-11-01T09:10:00Z"},
    )

    await shop.sync(lookback_minutes=5_000_000)

    assert shop.row("1")["tracking_number"] == "later"


async def test_a_voided_fulfillment_is_found_though_no_list_tells_of_it(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "fulfillment": True, "createDate": "2026-10-01T08:00:00.0000000"})
    await shop.sync(lookback_minutes=500_000)
    assert shop.row("1")["carrier_code"] == "fedex"
    api.control("POST", "void", {"orderNumber": "1"})

    await shop.sync()

    assert shop.row("1")["carrier_code"] is None
    assert shop.database.execute("SELECT must_check FROM shipstation_parcels") == [(False,)]


async def test_fulfillments_of_an_order_that_cannot_be_read_are_put_aside(shop: Station, api: Client) -> None:
    """Else each cycle would ask for them again, and ten such orders would keep all others away."""
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "fulfillment": True, "createDate": "2026-10-01T08:00:00.0000000"})
    await shop.sync(lookback_minutes=500_000)
    api.control("POST", "void", {"orderNumber": "1"})
    api.fault({"poison": ["1"], "path": "/fulfillments"})

    await shop.sync()

    places = "SELECT place, attempts, resolved_at IS NULL FROM sync_quarantine"
    [(order_id,)] = shop.database.execute("SELECT order_id FROM shipstation_orders")
    place = f"of order {order_id}, created last"
    assert shop.database.execute(places) == [(place, 1, True)]
    before = shop.calls().count("GET /fulfillments")
    await shop.sync()
    assert shop.calls().count("GET /fulfillments") <= before + 1  # the list
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync()
    assert shop.database.execute(places) == [(place, 2, True)]
    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync()
    assert shop.database.execute(places) == [(place, 2, False)]
    assert shop.row("1")["carrier_code"] is None


async def test_fulfillments_of_an_order_that_are_refused_do_not_fail_the_run(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "fulfillment": True})
    await shop.sync()
    api.control("POST", "void", {"orderNumber": "1"})
    shop.database.execute("UPDATE shipstation_parcels SET must_check = true")
    inner = shop.shipstation

    class Refuses:
        async def list_page(self, path: str, name: str, query: Any, **more: Any) -> Any:
            if "orderId" in query:
                raise Rejected("404 no such order", status=404)
            return await inner.list_page(path, name, query, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    shop.client = Refuses()  # type: ignore[assignment]
    assert (await shop.sync())["complete"]
    assert shop.database.execute("SELECT error, resolved_at FROM sync_quarantine") == [("404 no such order", None)]
    shop.client = inner
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync()
    assert shop.database.execute("SELECT count(*) FROM sync_quarantine WHERE resolved_at IS NULL") == [(0,)]


async def test_a_return_label_is_kept_and_is_no_shipment(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "there"})
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "back", "isReturnLabel": True})

    await shop.sync()

    assert shop.row("1")["tracking_number"] == "there"
    kept = shop.database.execute("SELECT tracking_number, is_return FROM shipstation_parcels ORDER BY parcel_id")
    assert kept == [("there", False), ("back", True)]


async def test_orders_made_by_hand_are_recorded(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.create(order("by hand", orderKey="theirs"))

    stats = await shop.sync()

    assert stats["unknown"] == 1
    unknown = shop.database.execute("SELECT order_number, order_key, order_status FROM shipstation_unknown_orders")
    assert unknown == [("by hand", "theirs", "awaiting_shipment")]


async def test_a_repeat_writes_nothing(shop: Station, api: Client) -> None:
    shop.upload("1", "2")
    api.control("POST", "ship", {"orderNumber": "1"})
    await shop.sync()
    before = shop.database.execute("SELECT ctid::text, * FROM orders_inbox ORDER BY id")

    stats = await shop.sync()

    assert (stats["changed"], stats["rows"]) == (0, 0)
    assert before == shop.database.execute("SELECT ctid::text, * FROM orders_inbox ORDER BY id")


@pytest.mark.parametrize("same_key", [True, False])
async def test_a_split_order_is_shipped_when_all_its_parts_are(shop: Station, api: Client, *, same_key: bool) -> None:
    shop.upload("1")
    part = api.control("POST", "split", {"orderNumber": "1", "sameKey": same_key})
    api.control("POST", "ship", {"orderKey": "shop-1", "trackingNumber": "one"})
    assert (await shop.sync())["unknown"] == 0
    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("awaiting_shipment", "one")
    assert shop.database.execute("SELECT count(*) FROM shipstation_unknown_orders") == [(0,)]

    api.control("POST", "ship", {"orderId": part["orderId"], "trackingNumber": "two"})
    await shop.sync()

    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("shipped", "two")


async def test_an_order_that_was_deleted_and_uploaded_anew_counts_no_more(shop: Station, api: Client) -> None:
    shop.upload("1")
    part = api.control("POST", "split", {"orderNumber": "1", "sameKey": False})
    api.control("POST", "ship", {"orderKey": "shop-1", "trackingNumber": "first"})
    await shop.sync()
    [former] = [each["orderId"] for each in api.get("/orders")["orders"] if each["orderId"] != part["orderId"]]
    for order_id in (former, part["orderId"]):
        assert api.http.delete(f"/orders/{order_id}").status_code == 200
    api.create(order("1"))
    await shop.sync()
    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("awaiting_shipment", None)

    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "second"})
    await shop.sync()

    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("shipped", "second")


async def test_an_order_from_before_our_time_is_found_by_its_number(shop: Station, api: Client) -> None:
    """Where one row and one order have it: of two, nobody knows whose state it is."""
    shop.upload("1", "2", "3", "4")
    shop.database.execute("UPDATE orders_inbox SET order_key = NULL")
    api.create(order("1", orderKey="another with that number"))
    api.control("POST", "split", {"orderNumber": "3", "sameKey": False})
    [named] = [each["orderId"] for each in api.get("/orders")["orders"] if each["orderKey"] == "shop-4"]
    shop.database.execute("UPDATE orders_inbox SET shipstation_order_id = %s WHERE order_number = '4'", [str(named)])
    api.create(order("4", orderKey="not the one that is named"))

    await shop.sync()
    api.create(order("2", orderKey="came later"))
    api.control("POST", "ship", {"orderKey": "came later"})
    await shop.sync()

    assert shop.read() == {"2", "3", "4"}
    assert [shop.row(number)["fulfillment_status"] for number in "234"] == ["awaiting_shipment"] * 3
    unknown = shop.database.execute("SELECT order_key FROM shipstation_unknown_orders ORDER BY order_id")
    assert unknown == [("shop-1",), ("another with that number",), ("not the one that is named",), ("came later",)]


# --- how far it has got ----------------------------------------------------------------------------------------------


async def test_the_watermark_is_where_the_reading_began_and_never_in_the_future(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.control("PUT", "clock", {"offset_s": -600})  # theirs is behind: what they will stamp next is older than our now
    await shop.sync()
    behind = shop.marks()["orders"]
    assert timedelta(seconds=600) <= datetime.now(UTC) - behind < timedelta(seconds=660)

    api.control("PUT", "clock", {"offset_s": 600})
    await shop.sync()

    assert behind < shop.marks()["orders"] <= datetime.now(UTC)


async def test_the_watermark_never_goes_back(shop: Station, api: Client) -> None:
    await shop.sync()
    before = shop.marks()
    api.control("PUT", "clock", {"offset_s": -3600})

    await shop.sync(lookback_minutes=600)

    assert shop.marks() == before


@pytest.mark.parametrize("written", ["-infinity", "infinity", "2100-01-01", "0001-01-01"])
async def test_a_watermark_that_a_hand_wrote_loses_nothing(shop: Station, api: Client, written: str) -> None:
    await shop.sync()
    api.control("PUT", "clock", {"offset_s": -3_600})
    shop.upload("1")  # an hour ago
    api.control("PUT", "clock", {"offset_s": 0})
    shop.database.execute("UPDATE polling_state SET watermark = %s::timestamptz WHERE account = %s", [written, ACCOUNT])

    stats = await shop.sync()

    assert (stats["complete"], shop.row("1")["fulfillment_status"]) == (True, "awaiting_shipment")
    now = datetime.now(UTC)
    assert all(now - timedelta(minutes=1) < at <= now for at in shop.marks().values())


async def test_a_run_that_may_make_no_more_calls_keeps_the_watermark_and_the_next_goes_on(
    shop: Station, api: Client
) -> None:
    shop.upload(*map(str, range(40)))
    first = await shop.sync(batch_size=10, max_pages=3)  # one of them asks for their time
    assert (first["complete"], first["read"], first["calls"]) == (False, 20, 3)
    assert shop.marks() == dict.fromkeys(("orders", "shipments", "voids", "fulfillments"))
    [(cursor,)] = shop.database.execute("SELECT cursor FROM polling_state WHERE workflow = 'shipstation orders'")
    assert (cursor["created"], cursor["skip"], cursor["count"]) == (cursor["created"], 20, 40)

    done = await shop.sync(batch_size=500)

    assert done["complete"]
    assert shop.marks()["orders"] is not None
    assert shop.database.execute("SELECT count(*) FROM orders_inbox WHERE fulfillment_status IS NULL") == [(0,)]
    assert shop.database.execute("SELECT count(*) FROM polling_state WHERE cursor IS NOT NULL") == [(0,)]


async def test_a_short_lookback_leaves_no_gap(shop: Station, api: Client) -> None:
    await shop.sync()
    shop.database.execute("UPDATE polling_state SET watermark = now() - interval '3 hours' WHERE workflow IS NOT NULL")
    shop.upload("1")
    long_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    api.control("POST", "edit", {"orderNumber": "1", "set": {}, "modifyDate": long_ago})

    await shop.sync(lookback_minutes=5)

    assert shop.row("1")["fulfillment_status"] == "awaiting_shipment"


async def test_a_look_back_that_is_cut_off_before_a_list_is_begun_is_kept_for_it(shop: Station, api: Client) -> None:
    await shop.sync()
    shop.upload(*map(str, range(20)))
    for number in range(20):
        ship = {"orderNumber": str(number), "trackingNumber": f"F{number}", "fulfillment": True}
        api.control("POST", "ship", {**ship, "createDate": wall(datetime.now(UTC) - timedelta(days=30))})

    first = await shop.sync(lookback_minutes=60 * 24 * 60, batch_size=10, max_pages=2)

    assert (first["complete"], "looked_back_minutes" in first) == (False, False)
    done = await shop.sync(reason="schedule")
    assert done["complete"]
    assert shop.row("1")["tracking_number"] == "F1"
    await shop.sync(reason="schedule")
    assert shop.database.execute("SELECT count(*) FROM polling_state WHERE cursor IS NOT NULL") == [(0,)]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_run_that_goes_on_reads_no_list_a_second_time(shop: Station, api: Client, *, waits: bool) -> None:
    """Else a look-back whose first lists fill an operation_timeout would begin with them again and again."""
    await shop.sync()
    shop.upload("1", "2", "3")
    api.fault({"status": 429, "count": 1, "path": "/shipments"})
    job = await shop.claim(lookback_minutes=600)
    if waits:  # the scheduled one, to which goes what the other has not done
        shop.database.execute("INSERT INTO sync_runs (account, reason) VALUES (%s, 'schedule')", [ACCOUNT])
    (outcome,) = await shop.handler()([job])
    assert isinstance(outcome, Release)
    await shop.settle(job, outcome)

    await shop.run()

    requests = api.control("GET", "requests?last=1000")["requests"]
    bounds = [parse_qs(each["query"])["modifyDateStart"][0] for each in requests if each["path"] == "/orders"]
    hours = [(datetime.now(UTC) - read_pacific(bound)) // timedelta(hours=1) for bound in bounds[-2:]]
    assert hours == ([10, 0] if waits else [168, 10])  # the run itself does not ask for it again
    assert shop.database.execute("SELECT count(*) FROM polling_state WHERE cursor IS NOT NULL") == [(0,)]


async def test_a_look_back_is_by_their_clock_where_that_is_behind(shop: Station, api: Client) -> None:
    ahead_s = -40_000_000
    api.control("PUT", "clock", {"offset_s": ahead_s - 5 * 86_400})
    shop.upload("1", "2")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "one"})
    api.control("POST", "ship", {"orderNumber": "2", "trackingNumber": "two", "fulfillment": True})
    api.control("PUT", "clock", {"offset_s": ahead_s})

    await shop.sync()

    assert (shop.row("1")["tracking_number"], shop.row("2")["tracking_number"]) == ("one", "two")
    late = {"createDate": wall(datetime.now(UTC) + timedelta(seconds=ahead_s - 86_400))}
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "late", "fulfillment": True, **late})
    await shop.sync(lookback_minutes=2_880)
    assert shop.row("1")["tracking_number"] == "late"


async def test_a_list_that_shrank_while_it_was_read_is_read_again_from_there_on(shop: Station, api: Client) -> None:
    """Only from there on: else a look-back of many cycles would never end where orders are deleted now and then."""
    shop.upload(*map(str, range(30)))
    for number in range(30):
        made = wall(datetime.now(UTC) - timedelta(minutes=60 - number))
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": made})
    inner, calls = shop.shipstation, 0

    class Deletes:
        """Another one is deleted before the second page; a record moves onto the first, unseen."""

        async def list_page(self, path: str, name: str, query: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                first = api.get("/orders", sortBy="CreateDate")["orders"][0]
                api.http.delete(f"/orders/{first['orderId']}")
            return await inner.list_page(path, name, query, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    shop.client = Deletes()  # type: ignore[assignment]
    stats = await shop.sync(batch_size=10)

    assert (stats["complete"], shop.read()) == (True, {str(number) for number in range(30)})
    assert shop.marks()["orders"] is not None
    assert shop.calls().count("GET /orders") == 7  # the test's own, one for their time, three pages, two from there on


# --- records that cannot be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisoned", [("7",), ("0",), ("29",), ("3", "4", "20")])
async def test_a_record_that_breaks_its_page_is_put_aside_and_tried_again(
    shop: Station, api: Client, poisoned: tuple[str, ...]
) -> None:
    shop.upload(*map(str, range(30)))
    for number in range(30):  # one a minute, as the clock of their lists has no fractions of a second
        made = (datetime.now(UTC) - timedelta(minutes=60 - number)).isoformat()
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": made})
    api.fault({"poison": poisoned})

    stats = await shop.sync()

    assert stats["complete"]
    assert stats["quarantined"] >= 1
    silent = shop.database.execute("SELECT order_number FROM orders_inbox WHERE fulfillment_status IS NULL")
    assert sorted(number for (number,) in silent) == sorted(poisoned)
    assert shop.marks()["orders"] is not None

    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    shop.database.execute(
        "UPDATE polling_state SET watermark = now() + interval '10 minutes' WHERE workflow IS NOT NULL"
    )
    await shop.sync(reason="schedule")
    assert shop.database.execute("SELECT min(attempts), count(resolved_at) FROM sync_quarantine") == [(2, 0)]
    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")

    assert shop.database.execute("SELECT count(*) FROM orders_inbox WHERE fulfillment_status IS NULL") == [(0,)]
    assert shop.database.execute("SELECT count(*) FROM sync_quarantine WHERE resolved_at IS NULL") == [(0,)]


async def test_what_is_put_aside_later_does_not_hide_what_was_put_aside_before(shop: Station, api: Client) -> None:
    """Both lie between the same two records; the list that shows the second begins after the first changed."""
    api.control("PUT", "clock", {"offset_s": -3_600})
    shop.upload("1", "2", "3")
    await shop.sync()
    api.fault({"poison": ["1", "2"]})
    for minutes, number in ((30, "1"), (20, "3"), (10, "2")):
        api.control("PUT", "clock", {"offset_s": -60 * minutes})
        for each in {number, "3"}:
            api.control("POST", "edit", {"orderNumber": each, "set": {"orderStatus": "on_hold"}})
        await shop.sync(reason="schedule")
    assert shop.database.execute("SELECT count(*), count(resolved_at) FROM sync_quarantine") == [(2, 0)]

    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")

    assert shop.database.execute("SELECT count(resolved_at) FROM sync_quarantine") == [(2,)]
    assert [shop.row(number)["fulfillment_status"] for number in ("1", "2", "3")] == ["on_hold"] * 3


async def test_more_records_at_fault_than_the_calls_can_tell_apart_do_not_stop_it(shop: Station, api: Client) -> None:
    """What was read before the calls were used up is stored, and the next cycle goes on behind it."""
    shop.upload(*map(str, range(200)))
    for number in range(200):
        made = (datetime.now(UTC) - timedelta(minutes=300 - number)).isoformat()
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": made})
    poisoned = [str(number) for number in range(10, 200, 20)]
    api.fault({"poison": poisoned})
    shop.most_calls = 25

    cycles = 0
    stats: Any = {}
    while not stats.get("complete"):
        cycles += 1
        assert cycles < 30, "no progress"
        before = len(shop.read())
        stats = await shop.sync(reason="schedule")
        assert stats["calls"] <= 25
        assert stats.get("complete") or len(shop.read()) > before

    assert shop.read() == {str(number) for number in range(200)} - {*poisoned}
    assert shop.database.execute("SELECT count(*) FROM sync_quarantine WHERE resolved_at IS NULL") == [(len(poisoned),)]


async def test_more_orders_of_one_second_than_a_cycle_reads_do_not_stop_it(shop: Station, api: Client) -> None:
    """Made by one import, and one of them can never be read: each cycle goes on behind the last one's end."""
    shop.upload("first", *map(str, range(100)), "last")
    import_at, later = (datetime.now(UTC) - timedelta(minutes=minutes) for minutes in (50, 40))
    api.control("POST", "edit", {"orderNumber": "first", "set": {}, "createDate": "2026-01-01T10:00:00.0000000"})
    for number in range(100):
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": import_at.isoformat()})
    api.control("POST", "edit", {"orderNumber": "last", "set": {}, "createDate": later.isoformat()})
    api.fault({"poison": ["57"]})
    shop.most_calls = 4

    cycles, stats = 0, dict[str, Any]()
    while not stats.get("complete"):
        before, place = len(shop.read()), shop.database.execute("SELECT workflow, cursor FROM polling_state")
        stats = await shop.sync(reason="schedule", batch_size=10)
        cycles += 1
        assert len(shop.read()) > before or shop.database.execute("SELECT workflow, cursor FROM polling_state") != place
        assert cycles < 20

    assert shop.marks()["orders"] is not None
    assert shop.read() == {"first", "last", *map(str, range(100))} - {"57"}
    [(query,)] = shop.database.execute("SELECT query FROM sync_quarantine WHERE resolved_at IS NULL")
    assert {query["createDateStart"], query["createDateEnd"]} == {as_bound(wall(import_at)), as_end(wall(import_at))}


async def test_records_at_fault_of_one_second_have_the_same_names_wherever_a_cycle_begins(
    shop: Station, api: Client
) -> None:
    """Else two would share a name, or one would have two, and the quarantine would count another number."""
    shop.upload(*map(str, range(12)))
    import_at = (datetime.now(UTC) - timedelta(minutes=50)).isoformat()
    for number in range(12):
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": import_at})
    api.fault({"poison": ["1", "2", "5", "9"]})
    places = "SELECT place FROM sync_quarantine WHERE resolved_at IS NULL ORDER BY place"
    shop.most_calls = 4
    cycles = 0
    while shop.marks().get("orders") is None:
        await shop.sync(reason="schedule", batch_size=2)
        cycles += 1
        assert cycles < 30
    assert cycles > 4
    named = shop.database.execute(places)
    assert len(named) == 4

    shop.most_calls = 10_000
    for size in (500, 3):
        await shop.sync(lookback_minutes=600, batch_size=size)
        assert shop.database.execute(places) == named


async def test_a_parcel_at_fault_is_put_aside_once_while_the_watermark_moves_past_it(
    shop: Station, api: Client
) -> None:
    """Nothing lies before it in the list, whose beginning moves on with each cycle."""
    api.control("PUT", "clock", {"offset_s": -3_000})
    shop.upload("0", "1", "2")
    api.control("POST", "ship", {"orderNumber": "0", "trackingNumber": "T0"})
    await shop.sync()
    api.control("PUT", "clock", {"offset_s": -2_000})
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "T1"})
    api.fault({"poison": ["1"], "path": "/shipments"})
    aside = "SELECT place FROM sync_quarantine WHERE resolved_at IS NULL"
    for offset_s in (-1_960, -1_880, -1_800):
        api.control("PUT", "clock", {"offset_s": offset_s})
        await shop.sync(reason="schedule")
        assert shop.database.execute(aside) == [("created last",)]
    api.control("POST", "ship", {"orderNumber": "2", "trackingNumber": "T2"})
    api.control("PUT", "clock", {"offset_s": -1_780})
    await shop.sync(reason="schedule")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")
    [(place,)] = shop.database.execute(aside)
    assert place.startswith("created before 20")
    await shop.sync(lookback_minutes=600)
    assert shop.database.execute(aside) == [(place,)]

    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")
    assert shop.database.execute(aside) == []
    assert shop.row("1")["tracking_number"] == "T1"


async def test_records_at_fault_before_one_second_keep_their_names_when_they_are_tried_again(
    shop: Station, api: Client
) -> None:
    """A retry begins later in the list than the pass did, and counts from there."""
    shop.upload(*"APRQX")
    base = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=50)
    for number, second in {"A": 0, "P": 3, "R": 5, "Q": 5, "X": 5}.items():
        made = (base + timedelta(seconds=second)).isoformat()
        api.control("POST", "edit", {"orderNumber": number, "set": {}, "createDate": made})
    api.fault({"poison": ["P", "Q"]})
    await shop.sync(lookback_minutes=600)
    aside = "SELECT place, attempts, resolved_at IS NULL FROM sync_quarantine ORDER BY place"
    names = [place for place, _, _ in shop.database.execute(aside)]
    assert len(names) == 2
    for attempts in (2, 3, 4):
        shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
        await shop.sync(reason="schedule")
        assert shop.database.execute(aside) == [(name, attempts, True) for name in names]

    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")
    assert [is_aside for _, _, is_aside in shop.database.execute(aside)] == [False, False]
    assert shop.read() == set("APRQX")


async def test_records_at_fault_that_share_a_name_are_both_in_its_query(shop: Station) -> None:
    """The earlier start counts, and none is earlier than any."""
    job = await shop.claim()
    begun = await shop.runs.begin(job.id, job.claim_id)
    holder = Holder(run_id=job.id, claim_id=job.claim_id, begun_at=begun.started_at)
    for modified, created in (("03", "01"), ("02", None), ("04", "05")):
        query = {"modifyDateStart": modified, "createDateStart": created, "createDateEnd": "09"}
        entry = {"place": "p", "query": {name: text for name, text in query.items() if text}, "row": None, "error": "e"}
        await shop.state.store(Batch(list="orders", unread=[entry]), holder, stats={})
    kept = shop.database.execute("SELECT query FROM sync_quarantine")
    assert kept == [({"modifyDateStart": "02", "createDateEnd": "09"},)]


async def test_an_order_that_leaves_a_second_while_cycles_go_through_it_loses_no_other(
    shop: Station, api: Client
) -> None:
    """The one behind it moves onto the pages that were read."""
    shop.upload(*map(str, range(30)))
    shop.most_calls = 2  # one of them asks for their time
    await shop.sync(reason="schedule", batch_size=10)
    shop.most_calls = 1
    first = api.get("/orders", sortBy="CreateDate")["orders"][0]
    api.http.delete(f"/orders/{first['orderId']}")
    while (await shop.sync(reason="schedule", batch_size=10))["read"]:
        if shop.marks()["orders"] is not None:
            break

    assert shop.read() == {str(number) for number in range(30)} - ({first["orderNumber"]} - shop.read())


async def test_neighbours_that_cannot_be_read_are_put_aside_one_by_one(shop: Station, api: Client) -> None:
    """Also when a cycle's calls end among them; each is told of, and each comes back by itself when it is mended."""
    shop.upload(*map(str, range(40)))
    for number in range(40):
        made = (datetime.now(UTC) - timedelta(minutes=60 - number)).isoformat()
        api.control("POST", "edit", {"orderNumber": str(number), "set": {}, "createDate": made})
    api.fault({"poison": [str(number) for number in range(10, 32)]})
    shop.most_calls = 12
    cycles, stats = 0, dict[str, Any]()
    while not stats.get("complete"):
        stats = await shop.sync(reason="schedule")
        cycles += 1
        assert cycles < 20
    assert cycles > 3

    open_ones = "SELECT place, query FROM sync_quarantine WHERE resolved_at IS NULL ORDER BY id"
    kept = shop.database.execute(open_ones)
    assert len({place for place, _ in kept}) == len(kept) == 22
    assert len({query["createDateStart"] for _, query in kept}) == 1

    shop.most_calls = 200
    api.fault({"poison": [str(number) for number in range(15, 32)]})
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")
    assert len(shop.database.execute(open_ones)) == 17
    assert {str(number) for number in range(15)} <= shop.read()

    api.control("DELETE", "faults")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync(reason="schedule")
    assert shop.database.execute(open_ones) == []
    assert shop.read() == {str(number) for number in range(40)}


async def test_a_short_operation_timeout_still_reads_a_page(shop: Station, api: Client) -> None:
    shop.upload("1", "2", "3")
    with anyio.fail_after(10):
        stats = await shop.sync(batch_size=1)
    assert stats["complete"]
    assert len(shop.calls()) < 12


async def test_more_addresses_than_calls_are_read_from_the_lists(shop: Station, api: Client) -> None:
    shop.upload(*map(str, range(40)))
    host = f"http://{api.address[0]}:{api.address[1]}"
    shop.most_calls = 20
    stats = await shop.sync(reason="webhook", urls=[f"{host}/orders?orderNumber={number}" for number in range(40)])
    assert (stats["complete"], shop.read()) == (True, {str(number) for number in range(40)})


async def test_what_was_shipped_before_the_first_look_keeps_its_tracking(shop: Station, api: Client) -> None:
    """The older scripts wrote it; the parcel is older than anything that is read."""
    shop.upload("1", "2")
    shop.database.execute(
        "UPDATE orders_inbox SET tracking_number = 'OLD', carrier_code = 'ups', shipped_at = '2026-10-01'"
    )
    api.control("POST", "ship", {"orderNumber": "1", "createDate": "2026-10-01T10:00:00", "trackingNumber": "OLD"})
    parcel = api.control("POST", "ship", {"orderNumber": "2", "trackingNumber": "NEW"})
    await shop.sync()
    assert [shop.row(number)["fulfillment_status"] for number in "12"] == ["shipped"] * 2
    assert [shop.row(number)["tracking_number"] for number in "12"] == ["OLD", "NEW"]
    assert shop.row("1")["shipped_at"] is not None

    api.control("POST", "void", {"orderNumber": "2", "shipmentId": parcel["shipmentId"]})
    await shop.sync()
    assert [shop.row(number)["tracking_number"] for number in "12"] == ["OLD", None]


async def test_a_row_that_is_inserted_anew_is_found_anew(shop: Station, api: Client) -> None:
    shop.upload("1", "2")
    await shop.sync()
    shop.database.execute("DELETE FROM orders_inbox")
    assert shop.database.execute("SELECT count(*) FROM shipstation_unknown_orders") == [(2,)]
    assert (await shop.runs.monitor())["unknown_orders"] == 2
    shop.insert("1")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "T1"})
    api.control("POST", "edit", {"orderNumber": "2", "set": {"orderStatus": "on_hold"}})
    await shop.sync()
    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("shipped", "T1")
    assert shop.database.execute("SELECT order_number FROM shipstation_unknown_orders") == [("2",)]


async def test_a_row_that_somebody_has_locked_holds_up_nobody_else(shop: Station, api: Client, database: Any) -> None:
    shop.upload("1", "2")
    await shop.sync()
    for number in "12":
        api.control("POST", "ship", {"orderNumber": number, "trackingNumber": f"T{number}"})
    with engine_connection(database) as conn, conn.transaction():
        conn.execute("SELECT FROM orders_inbox WHERE order_number = '1' FOR UPDATE")
        stats = await shop.sync(reason="schedule")
        assert stats["complete"]
        assert [shop.row(number)["tracking_number"] for number in "12"] == [None, "T2"]
        assert shop.database.execute("SELECT count(*) FROM shipstation_orders WHERE must_fold") == [(1,)]
    shop.database.execute("UPDATE polling_state SET watermark = now() + interval '1 day' WHERE workflow IS NOT NULL")

    stats = await shop.sync(reason="schedule")  # which is told of nothing new

    assert (stats["changed"], stats["rows"]) == (0, 1)
    assert (shop.row("1")["fulfillment_status"], shop.row("1")["tracking_number"]) == ("shipped", "T1")
    assert shop.database.execute("SELECT count(*) FROM shipstation_orders WHERE must_fold") == [(0,)]


async def test_a_clock_that_went_back_does_not_stop_the_schedule(shop: Station) -> None:
    shop.database.execute(
        "INSERT INTO sync_runs (account, status, reason, started_at, params)"
        " SELECT %s, 'Succeeded', 'schedule', now() + make_interval(hours => h), '{\"lookback_minutes\": 2880}'"
        " FROM unnest(ARRAY[3, -30]) AS h",
        [ACCOUNT],
    )
    due = await shop.runs.schedule(interval_s=120, wide_minutes=2_880)
    assert due.run_id is not None
    [(params,)] = shop.database.execute("SELECT params FROM sync_runs WHERE id = %s", [due.run_id])
    assert params == {"lookback_minutes": 2_880}  # the one of the future is not that of this day


async def test_a_run_that_a_hand_set_to_processing_does_not_block_its_account(shop: Station) -> None:
    stray = "INSERT INTO sync_runs (account, status, started_at) VALUES (%s, 'Processing', %s) RETURNING id"
    [(first,)] = shop.database.execute(stray, [ACCOUNT, None])

    due = await shop.runs.schedule(interval_s=120, wide_minutes=2_880)

    assert due.run_id is not None
    assert due.strays == (first,)
    [(status, error)] = shop.database.execute("SELECT status, last_error FROM sync_runs WHERE id = %s", [first])
    assert (status, "Processing was written by hand" in error) == ("Failed", True)
    assert (await shop.sync())["complete"]
    shop.database.execute(stray, [ACCOUNT, None])
    assert await shop.runs.request({}) is not None
    # one that somebody works on is left alone
    await shop.claim()
    assert (await shop.runs.schedule(interval_s=0, wide_minutes=2_880)).strays == ()


@pytest.mark.parametrize("planned_for", ["now() + interval '10 years'", "'infinity'"])
async def test_a_run_that_is_planned_for_far_away_does_not_block_its_account(shop: Station, planned_for: str) -> None:
    """It is the one that may wait, so it becomes the next one."""
    [(run_id,)] = shop.database.execute(
        "INSERT INTO sync_runs (account, params, scheduled_at)"
        f" VALUES (%s, '{{\"lookback_minutes\": 9000}}', {planned_for}) RETURNING id",
        [ACCOUNT],
    )
    assert (await shop.runs.in_the_way())["is_later"] is True

    due = await shop.runs.schedule(interval_s=120, wide_minutes=2_880)

    assert due.run_id == run_id
    assert due.planned_for[:4] in ("2036", "infi")
    [(reason, params, is_due)] = shop.database.execute(
        "SELECT reason, params, scheduled_at <= now() FROM sync_runs WHERE status = 'Pending'"
    )
    assert (reason, params, is_due) == ("manual", {"lookback_minutes": 9000}, True)
    assert (await shop.sync())["complete"]


@pytest.mark.parametrize(
    ("due_s", "tries", "asked", "other", "joins"),
    [
        (-60, 0, {"lookback_minutes": 5}, "Succeeded", True),
        (-60, 0, {"dry_run": True}, "Succeeded", False),  # it would become a real one
        (-60, 1, {}, "Processing", False),
        (-1, 0, {}, "Succeeded", False),  # whoever inserted it is about to take it
        (-1, 1, {}, "Succeeded", True),  # whoever took it has sent it back
        (60, 0, {}, "Succeeded", False),  # planned
        (60, 1, {}, "Succeeded", True),  # to be tried again then: a person asks for it now
        (6_000, 1, {}, "Succeeded", False),
    ],
)
async def test_a_run_that_was_left_is_joined(
    shop: Station, due_s: int, tries: int, asked: dict[str, Any], other: str, *, joins: bool
) -> None:
    shop.database.execute("INSERT INTO sync_runs (account, status, claim_id) VALUES (%s, %s, 1)", [ACCOUNT, other])
    [(run_id,)] = shop.database.execute(
        "INSERT INTO sync_runs (account, reason, params, scheduled_at, attempts)"
        " VALUES (%s, 'webhook', '{\"urls\": [\"u\"]}', now() + make_interval(secs => %s), %s) RETURNING id",
        [ACCOUNT, due_s, tries],
    )

    assert await shop.runs.request(asked) == (run_id if joins else None)

    [(reason, params, is_due)] = shop.database.execute(
        "SELECT reason, params, scheduled_at <= now() FROM sync_runs WHERE id = %s", [run_id]
    )
    assert (reason, params) == (("manual", {"urls": ["u"], **asked}) if joins else ("webhook", {"urls": ["u"]}))
    assert is_due == (joins or due_s < 0)


async def test_of_two_that_ask_at_once_one_joins(shop: Station) -> None:
    """Else both would tell of the same run as theirs; the other one may, when the first has left."""
    left = (
        "INSERT INTO sync_runs (account, attempts, scheduled_at) VALUES (%s, 1, now() - interval '1 hour') RETURNING id"
    )
    [(run_id,)] = shop.database.execute(left, [ACCOUNT])
    asked: list[int | None] = []

    async def ask() -> None:
        asked.append(await shop.runs.request({}))

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with anyio.create_task_group() as group:
        with shop.database.connect() as holder, holder.transaction():
            holder.execute("SELECT FROM sync_runs FOR UPDATE")
            for _ in range(2):
                group.start_soon(ask)
            await until_async(lambda: shop.database.execute(waiting) == [(2,)], what="two that wait for the row")

    assert sorted(asked, key=str) == [run_id, None]
    assert (await shop.runs.in_the_way() or {})["is_new"] is True
    await shop.runs.stand_by(run_id, stays=False)
    assert (await shop.runs.in_the_way() or {})["is_new"] is False
    assert await shop.runs.request({}) == run_id
    shop.database.execute("UPDATE sync_runs SET claimed_at = now() - interval '6 seconds'")
    await shop.runs.stand_by(run_id, stays=True)
    shop.database.execute("UPDATE sync_runs SET claimed_at = claimed_at - interval '12 seconds'")
    assert await shop.runs.request({}) is None
    shop.database.execute("UPDATE sync_runs SET claimed_at = claimed_at - interval '12 seconds'")  # it is dead
    assert await shop.runs.request({}) == run_id


async def test_a_run_that_is_tried_again_in_a_while_keeps_its_wait(shop: Station) -> None:
    shop.database.execute(
        "INSERT INTO sync_runs (account, reason, scheduled_at) VALUES (%s, 'schedule', now() + interval '5 minutes')",
        [ACCOUNT],
    )
    due = await shop.runs.schedule(interval_s=120, wide_minutes=2_880)
    assert (due.run_id, due.planned_for) == (None, None)


async def test_the_schedule_says_what_kept_its_account_away(shop: Station) -> None:
    shop.database.execute("INSERT INTO sync_runs (account, status) VALUES (%s, 'Processing')", [ACCOUNT])
    shop.database.execute(
        "INSERT INTO sync_runs (account, scheduled_at) VALUES (%s, now() + interval '10 years')", [ACCOUNT]
    )

    class Still:
        live = LiveConfig()

        async def pause(self, _seconds: Any) -> None:
            await anyio.sleep_forever()

    def told() -> list[str]:
        return [event.error for event in shop.events if isinstance(event, Trouble)]

    async with anyio.create_task_group() as group:
        group.start_soon(Schedule(shop.runs, Still(), shop.events.append, queue="sync").run)
        await until_async(lambda: len(told()) == 2, what="two sentences")
        group.cancel_scope.cancel()
    assert "set to Processing by hand" in told()[0]
    assert "kept all others away" in told()[1]


async def test_a_run_without_an_account_is_that_of_the_account_that_was_used_last(shop: Station) -> None:
    for account, days in (("…abcd", 1), ("…wxyz", 0), ("…efgh", 2)):
        shop.database.execute(
            "INSERT INTO api_budgets (connector, account, call_limit, window_s, remaining, updated_at)"
            " VALUES ('shipstation', %s, 40, 60, 40, now() - %s * interval '1 day')",
            [account, days],
        )
    insert = "INSERT INTO sync_runs DEFAULT VALUES ON CONFLICT DO NOTHING"
    shop.database.execute(insert)
    shop.database.execute(insert)
    shop.database.execute("INSERT INTO sync_runs (account) VALUES ('…abcd')")
    assert shop.database.execute("SELECT account FROM sync_runs ORDER BY id") == [("…wxyz",), ("…abcd",)]


async def test_an_api_that_answers_500_to_everything_costs_nobody_anything(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.fault({"status": 500})

    outcome = await shop.run()

    assert isinstance(outcome, Snooze)
    assert shop.budget.told[-1] == "outage"
    assert shop.database.execute("SELECT status, attempts FROM sync_runs") == [("Pending", 0)]
    assert shop.database.execute("SELECT count(*) FROM sync_quarantine") == [(0,)]


async def test_a_row_that_cannot_be_stored_costs_only_itself(shop: Station, api: Client) -> None:
    shop.upload("1", "2")
    api.fault({"null_fields": ["orderStatus"], "count": 2, "path": "/orders"})  # the first call asks for their time

    stats = await shop.sync()

    assert stats["quarantined"] == 2
    [(error, row)] = shop.database.execute(
        "SELECT error, row ->> 'orderNumber' FROM sync_quarantine ORDER BY id LIMIT 1"
    )
    assert (error, row) == ("orders: orderStatus is missing", "1")
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    await shop.sync()
    assert shop.row("2")["fulfillment_status"] == "awaiting_shipment"
    assert shop.database.execute("SELECT count(*) FROM sync_quarantine WHERE resolved_at IS NULL") == [(0,)]


@pytest.mark.parametrize(
    "fault",
    [{"unknown_fields": True}, {"duplicate_row": True}, {"big_ids": True}, {"null_fields": ["shipDate", "storeId"]}],
)
async def test_what_they_may_add_or_leave_out_harms_nothing(shop: Station, api: Client, fault: dict[str, Any]) -> None:
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "\x00\N{DELIVERY TRUCK}"})
    api.fault(fault)

    stats = await shop.sync()

    assert stats["quarantined"] == 0
    assert shop.row("1")["fulfillment_status"] == "shipped"
    assert shop.row("1")["tracking_number"].startswith("\N{SYMBOL FOR NULL}")


# --- the run ---------------------------------------------------------------------------------------------------------


async def test_a_run_that_lost_its_claim_writes_nothing(shop: Station, api: Client) -> None:
    shop.upload("1")
    job, inner = await shop.claim(), shop.shipstation

    class Loses:
        """The claim goes to somebody else while the first page is on its way."""

        async def list_page(self, *args: Any, **more: Any) -> Any:
            shop.database.execute("UPDATE sync_runs SET claim_id = claim_id + 1")
            return await inner.list_page(*args, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    shop.client = Loses()  # type: ignore[assignment]
    (outcome,) = await shop.handler()([job])

    assert isinstance(outcome, Release)
    assert shop.row("1")["fulfillment_status"] is None
    assert set(shop.marks().values()) == {None}
    assert shop.database.execute("SELECT count(*) FROM polling_state WHERE cursor ? 'upper'") == [(0,)]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lookback_minutes": -1}, "params.lookback_minutes"),
        ({"lookback": 5}, "known: lookback_minutes"),
        ({"batch_size": "all"}, "params.batch_size"),
    ],
)
async def test_params_that_cannot_be_read_fail_the_run(shop: Station, params: dict[str, Any], words: str) -> None:
    outcome = await shop.run(**params)

    assert isinstance(outcome, Fail)
    assert words in outcome.error


async def test_a_run_of_another_account_is_not_ours(shop: Station) -> None:
    shop.database.execute("INSERT INTO sync_runs (account) VALUES ('other')")
    job = (await shop.table.claim(limit=1, session_key=7)).jobs[0]

    (outcome,) = await shop.handler()([job])

    assert isinstance(outcome, Fail)
    assert "no credentials for shipstation other" in outcome.error
    assert "name 'default'" in outcome.error


async def test_an_idle_cycle_makes_three_calls_and_reads_voids_and_fulfillments_in_turn(
    shop: Station, api: Client
) -> None:
    api.control("PUT", "clock", {"offset_s": -300})
    shop.upload("1")
    await shop.sync()
    before, figures = shop.marks(), []

    for offset_s in (-200, -100):
        api.control("PUT", "clock", {"offset_s": offset_s})
        figures.append(await shop.sync(reason="schedule"))

    print(f"\nidle cycles: {[each['calls'] for each in figures]} calls")  # noqa: T201
    assert [each["calls"] for each in figures] == [3, 3]
    assert all(at > before[name] for name, at in shop.marks().items())


async def test_figures_add_up_over_the_claims_of_one_run(shop: Station) -> None:
    shop.upload("1")
    job = await shop.claim()
    job = replace(job, row={**job.row, "stats": {"calls": 5, "read": 7}})

    (outcome,) = await shop.handler()([job])

    assert isinstance(outcome, Done)
    assert (outcome.values["stats"]["calls"], outcome.values["stats"]["read"]) == (10, 8)


async def test_the_number_of_statements_does_not_depend_on_the_number_of_rows(shop: Station, api: Client) -> None:
    asked: list[str] = []

    class Counting(SyncState):
        async def _ask(self, conn: Any, name: str, params: Any) -> Any:
            asked.append(name)
            return await super()._ask(conn, name, params)

    shop.state = Counting(shop.state._pool, account=ACCOUNT)
    await shop.sync()
    asked.clear()
    shop.upload("1")
    await shop.sync()
    few, asked[:] = list(asked), []
    shop.upload(*map(str, range(2, 402)))

    stats = await shop.sync()

    assert stats["changed"] == 400
    assert asked == few


async def test_an_hour_of_syncs_and_uploads_stays_below_two_hundred_calls(shop: Station, api: Client) -> None:
    """An hour at 120 s, by ShipStation's clock: thirty cycles, and every tenth minute a batch that is then shipped."""
    api.control("PUT", "clock", {"offset_s": -3_700})
    await shop.sync()
    before, uploads = api.stats()["total"], 0
    for cycle in range(30):
        api.control("PUT", "clock", {"offset_s": -3_600 + 120 * cycle})
        if cycle % 5 == 0:
            shop.upload(*(f"{cycle}-{number}" for number in range(50)))
            uploads += 1
        if cycle % 5 == 3:
            api.control("POST", "ship", {"orderNumber": f"{cycle - 3}-1"})
        await shop.sync(reason="schedule")

    calls = api.stats()["total"] - before

    print(f"\nan hour: {calls} calls, 30 cycles and {uploads} uploads of 50 orders, some of them shipped")  # noqa: T201
    assert calls - uploads >= 90
    assert calls < 200


async def test_a_dry_run_changes_nothing_and_says_what_would_change(shop: Station, api: Client) -> None:
    shop.upload("1", "2")

    stats = await shop.sync(dry_run=True)

    assert (stats["dry_run"], stats["rows"]) == (True, 2)
    assert shop.row("1")["fulfillment_status"] is None
    assert shop.marks() == {}
    assert shop.database.execute("SELECT count(*) FROM shipstation_orders") == [(0,)]


async def test_a_dry_run_tells_the_figures_of_the_real_one_and_is_in_no_sum(shop: Station, api: Client) -> None:
    """Of a shipped order the list of orders and that of shipments tell; pages may repeat a record."""
    shop.upload(*map(str, range(6)))
    first = await shop.sync()
    shop.upload(*map(str, range(6, 12)))
    api.create(order("by hand", orderKey="theirs"))
    for number in ("3", "4"):
        api.control("POST", "ship", {"orderNumber": number, "trackingNumber": number})
    api.fault({"duplicate_row": True})
    names = ("changed", "rows", "unknown", "quarantined", "complete")

    dry = await shop.sync(dry_run=True, batch_size=5)
    real = await shop.sync(batch_size=5)

    assert {name: dry[name] for name in names} == {name: real[name] for name in names}
    assert (real["rows"], real["unknown"]) == (8, 1)
    sums = await shop.runs.monitor()
    assert (sums["rows"], sums["changed"]) == (14, first["changed"] + real["changed"])
    assert sums["calls"] == sum(each["calls"] for each in (first, dry, real))


async def test_a_dry_run_that_takes_longer_than_it_may_ends(shop: Station, api: Client) -> None:
    """It leaves nothing behind from where another claim of it could go on."""
    shop.upload(*map(str, range(30)))
    api.fault({"latency_s": 0.2, "method": "GET"})
    with anyio.fail_after(2.0):
        outcome = await shop.run(dry_run=True, batch_size=1)

    assert isinstance(outcome, Done)
    assert 0 < outcome.values["stats"]["read"] < 30
    assert outcome.values["stats"]["complete"] is False


async def test_a_row_that_not_even_the_database_could_hold_is_put_aside_as_text(shop: Station, api: Client) -> None:
    row = {"orderId": 1, "orderNumber": "\ud83d\x00", "orderStatus": "on_hold", "orderTotal": float("nan"), "x": [{}]}

    read = read_rows(ORDERS, [row, {**row, "orderId": 2, "orderTotal": 1.5}, "no row", None])

    assert [record["order_id"] for record in read.records] == [2]
    assert len(read.unread) == 3
    batch = Batch(list="orders", orders=read.records, unread=[{**asdict(each), "query": None} for each in read.unread])
    job = await shop.claim()
    holder = Holder(run_id=job.id, claim_id=job.claim_id, begun_at=datetime.now(UTC))
    stored = await shop.state.store(batch, holder, stats={})
    assert (stored.changed, stored.quarantined) == (1, 3)


async def test_finished_runs_and_webhooks_are_forgotten_after_their_days(shop: Station) -> None:
    """Whatever waits, works or is younger stays, and so does another account's."""
    for status, days in (("Succeeded", 31), ("Failed", 31), ("Superseded", 31), ("Pending", 31), ("Succeeded", 29)):
        shop.database.execute(
            "INSERT INTO sync_runs (account, status, finished_at, updated_at) VALUES (%s, %s, "
            " CASE WHEN %s <> 'Superseded' THEN now() - %s * interval '1 day' END,"
            " now() - %s * interval '1 day')",
            [ACCOUNT, status, status, days, days],
        )
    shop.database.execute(
        "INSERT INTO sync_runs (account, status, finished_at)"
        " VALUES ('another', 'Succeeded', now() - interval '99 days')"
    )
    for key, days in (("old", 31), ("young", 29)):
        shop.database.execute(
            "INSERT INTO webhook_events (connector, account, dedupe_key, body, last_received_at)"
            " VALUES ('shipstation', %s, %s, '', now() - %s * interval '1 day')",
            [ACCOUNT, key, days],
        )

    def left() -> list[tuple[Any, ...]]:
        return shop.database.execute("SELECT account = 'another', status FROM sync_runs ORDER BY 1, 2")

    async with anyio.create_task_group() as group:
        group.start_soon(Retention(shop.runs, shop.events.append, days=lambda: 30).run)
        await until_async(lambda: len(left()) == 3, what="the clean-up")
        group.cancel_scope.cancel()
    assert left() == [(False, "Pending"), (False, "Succeeded"), (True, "Succeeded")]
    assert shop.database.execute("SELECT dedupe_key FROM webhook_events") == [("young",)]
