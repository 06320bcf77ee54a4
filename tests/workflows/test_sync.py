"""The sync handler with the real client against the sandbox and a real database."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sandbox.server import Client, order, serving
from station import Station, station

pytestmark = pytest.mark.anyio


@pytest.fixture
def api() -> Iterator[Client]:
    with serving(seed=1) as api:
        yield api


@pytest.fixture
async def shop(database: Any, api: Client) -> AsyncIterator[Station]:
    async with station(database, api) as shop:
        yield shop


async def test_what_happens_at_shipstation_comes_back(shop: Station, api: Client) -> None:
    shop.upload("1", "2", "3", "4")
    api.control("POST", "ship", {"orderNumber": "1", "trackingNumber": "1Z1", "shipDate": "2026-11-20"})
    api.control("POST", "edit", {"orderNumber": "2", "set": {"orderStatus": "cancelled"}})
    api.control("POST", "ship", {"orderNumber": "3", "trackingNumber": "X3", "carrierCode": "dhl", "fulfillment": True})

    stats = await shop.sync()

    assert (stats["complete"], stats["rows"]) == (True, 6)
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


async def test_a_voided_fulfillment_is_found_though_no_list_tells_of_it(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.control("POST", "ship", {"orderNumber": "1", "fulfillment": True, "createDate": "2026-10-01T08:00:00.0000000"})
    await shop.sync(lookback_minutes=500_000)
    assert shop.row("1")["carrier_code"] == "fedex"
    api.control("POST", "void", {"orderNumber": "1"})

    await shop.sync()

    assert shop.row("1")["carrier_code"] is None
    assert shop.database.execute("SELECT must_check FROM shipstation_parcels") == [(False,)]


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
