"""Reading orders: filters, sort order, pages, and the vendor's wall clock."""

from datetime import UTC, datetime
from typing import Any

import pytest

from listener.sandbox.clock import Clock, read_bound, read_wall, to_wall
from listener.sandbox.shipstation import SandboxSettings
from sandbox.server import Client, Server, order


def test_the_order_number_matches_by_its_beginning(api: Client) -> None:
    api.create(*(order(number) for number in ("1001", "10010", "2001", "A1001")))
    assert sorted(api.numbers(orderNumber="1001")) == ["1001", "10010"]


def test_pages(api: Client) -> None:
    api.create(*(order(f"{n:03d}", orderDate=f"2025-01-01 00:00:{n:02d}") for n in range(7)))
    page = api.get("/orders", pageSize=3, page=2)
    assert [each["orderNumber"] for each in page["orders"]] == ["003", "004", "005"]
    assert (page["total"], page["page"], page["pages"]) == (7, 2, 3)
    past = api.get("/orders", pageSize=3, page=9)
    assert (past["orders"], past["total"], past["pages"]) == ([], 7, 3)


def test_nothing_found_is_zero_pages(api: Client) -> None:
    assert api.get("/orders") == {"orders": [], "total": 0, "page": 1, "pages": 0}


def test_a_page_holds_100_orders_unless_told_otherwise_and_500_at_most(api: Client) -> None:
    for start in range(0, 600, 100):
        api.create(*(order(str(start + n)) for n in range(100)))
    assert len(api.get("/orders")["orders"]) == 100
    page = api.get("/orders", pageSize=1000)
    assert (len(page["orders"]), page["pages"]) == (500, 2)


def test_sorting(api: Client) -> None:
    api.create(
        order("a", orderDate="2025-01-03"), order("b", orderDate="2025-01-01"), order("c", orderDate="2025-01-02")
    )
    api.create(order("a", orderDate="2025-01-03"))
    assert api.numbers() == ["b", "c", "a"]
    assert api.numbers(sortBy="OrderDate", sortDir="DESC") == ["a", "c", "b"]
    assert api.numbers(sortBy="CreateDate", sortDir="ASC") == ["a", "b", "c"]
    assert api.numbers(sortBy="ModifyDate") == ["b", "c", "a"]


@pytest.mark.parametrize(
    "query", [{"sortBy": "Price"}, {"sortDir": "up"}, {"page": "x"}, {"createDateStart": "x"}, {"storeId": "x"}]
)
def test_a_parameter_that_cannot_be_read_is_a_400(api: Client, query: dict[str, str]) -> None:
    reply = api.http.get("/orders", params=query)
    assert reply.status_code == 400
    assert "is not valid for" in reply.json()["Message"]


def test_filters(api: Client) -> None:
    item = {"sku": "RED-1", "name": "Red thing", "quantity": 1}
    api.create(
        order("a", shipTo={"name": "Zoe Example"}, paymentDate="2025-02-01 10:00:00"),
        order("b", items=[item], orderStatus="on_hold", orderDate="2025-03-01"),
        order("c", advancedOptions={"storeId": 77}),
    )
    assert api.numbers(customerName="zoe") == ["a"]
    assert api.numbers(itemKeyword="red-1") == ["b"]
    assert api.numbers(orderStatus="on_hold") == ["b"]
    assert api.numbers(storeId=77) == ["c"]
    assert api.numbers(orderDateStart="2025-03-01", orderDateEnd="2025-03-01") == ["b"]
    assert api.numbers(paymentDateStart="2025-02-01 10:00:00", paymentDateEnd="2025-02-01T10:00:00Z") == []
    assert api.numbers(paymentDateStart="2025-02-01 09:59:59") == ["a"]
    assert sorted(api.numbers(someoneElses="x")) == ["a", "b", "c"]


@pytest.mark.parametrize("field", ["createDate", "modifyDate"])
def test_date_filters_are_read_as_pacific_wall_clock(api: Client, field: str) -> None:
    api.create(order())
    api.control("POST", "edit", {"orderKey": "shop-1001", field: "2025-07-01T12:00:00.9970000"})
    found = {
        text: api.get("/orders", **{f"{field}Start": text, f"{field}End": "2025-07-02"})["total"]
        for text in (
            "2025-07-01 12:00:00",
            "2025-07-01 12:00:00.999",
            "2025-07-01 12:00:01",
            "2025-07-01T19:00:00-00:00",
        )
    }
    assert list(found.values()) == [1, 1, 0, 1]
    assert api.get("/orders", **{f"{field}End": "2025-07-01 12:00:00"})["total"] == 0


def test_replies_carry_the_pacific_wall_clock_with_seven_digits() -> None:
    now = datetime(2025, 7, 1, 19, 0, 0, 997_000, tzinfo=UTC)
    settings = SandboxSettings(limit=None, clock_offset_s=600)
    with Server(settings, Clock(source=now.timestamp)) as server:
        client = Client(server.address)
        client.create(order())
        stored, held = client.get("/orders")["orders"][0], client.held()["shop-1001"]
        date = client.http.get("/orders").headers.get_list("date")
        client.close()
    assert stored["createDate"] == stored["modifyDate"] == "2025-07-01T12:10:00.9970000"
    assert held["accepted_at"] == now.timestamp()
    assert held["accepted"] == "2025-07-01T19:00:00.997000+00:00"
    assert date == ["Tue, 01 Jul 2025 19:10:00 GMT"]


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("2025-01-23T07:30:00.0000000", "2025-01-23T07:30:00.0000000"),
        ("2025-1-3 7:30", "2025-01-03T07:30:00.0000000"),
        ("2025-01-23", "2025-01-23T00:00:00.0000000"),
        ("2025-01-23T07:30:00.1234567", "2025-01-23T07:30:00.1234567"),
        ("2025-01-23T15:30:00Z", "2025-01-23T07:30:00.0000000"),
        ("2025-07-23T15:30:00+01:00", "2025-07-23T07:30:00.0000000"),
        ("2025-11-02T08:30:00Z", "2025-11-02T01:30:00.0000000"),
        ("2025-11-02T09:30:00Z", "2025-11-02T01:30:00.0000000"),
    ],
)
def test_reading_dates(text: str, wall: str) -> None:
    assert read_wall(text) == wall


@pytest.mark.parametrize("text", ["", "soon", "2025-13-01", "2025-01-01 25:00", "2025-01-01T00:00:00 00:00"])
def test_dates_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        read_wall(text)


def test_in_the_ambiguous_hour_the_wall_clock_runs_twice() -> None:
    instants = [datetime(2025, 11, 2, hour, 30, tzinfo=UTC) for hour in (8, 9)]
    assert {to_wall(instant) for instant in instants} == {"2025-11-02T01:30:00.0000000"}
    assert read_bound("2025-11-02 01:30:00.7") == "2025-11-02T01:30:00.0000000"


def test_every_field_of_the_model_is_there(api: Client) -> None:
    api.create(order(weight={"value": 3, "units": "grams"}))
    stored: dict[str, Any] = api.get("/orders")["orders"][0]
    fields = """
        orderId orderNumber orderKey orderDate createDate modifyDate paymentDate shipByDate orderStatus customerId
        customerUsername customerEmail billTo shipTo items orderTotal amountPaid taxAmount shippingAmount
        customerNotes internalNotes gift giftMessage paymentMethod requestedShippingService carrierCode serviceCode
        packageCode confirmation shipDate holdUntilDate weight dimensions insuranceOptions internationalOptions
        advancedOptions tagIds userId externallyFulfilled externallyFulfilledBy externallyFulfilledById
        externallyFulfilledByName
    """
    assert set(stored) == set(fields.split())
    assert stored["weight"] == {"value": 3, "units": "grams", "WeightUnits": 2}
    assert {"mergedOrSplit", "mergedIds", "parentId", "billToParty", "customField3"} <= set(stored["advancedOptions"])
