"""What an upload sends and how the reply is read."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.core.errors import ConfigError
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Retry
from listener.workflows import pacific as pacific_time
from listener.workflows.order import Order, parse_order
from listener.workflows.pacific import pacific
from listener.workflows.upload import plan
from listener.workflows.upload.plan import MalformedReply, encode, order_key, read_results, split

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=80)


def order(**changes: Any) -> Order:
    return parse_order(
        {
            "order_date": "2026-11-20T14:03:00.123456Z",
            "ship_to": {
                "name": "A Buyer",
                "street1": "1 Main St",
                "city": "Austin",
                "state": "TX",
                "postal_code": "78701",
                "country": "US",
            },
            "items": [
                {
                    "line_item_key": "L1",
                    "sku": "ABC",
                    "name": "Thing",
                    "quantity": 2,
                    "unit_price": 9.99,
                    "options": [{"name": "Colour", "value": "red"}],
                },
                {"name": "Discount", "quantity": 1, "unit_price": "-1.00", "adjustment": True},
            ],
            "amount_paid": "18.98",
            **changes,
        }
    )


def jobs(*keys: str) -> dict[str, Job]:
    return {key: Job(queue="upload", id=i, claim_id=1, attempt=1, revision=0, row={}) for i, key in enumerate(keys)}


def result(key: str, **changes: Any) -> dict[str, Any]:
    return {"orderId": 1, "orderKey": key, "orderNumber": key, "success": True, "errorMessage": None} | changes


# --- the key ---------------------------------------------------------------------------------------------------------


def test_a_short_key_is_source_and_number() -> None:
    assert order_key("shop", "1001") == "shop-1001"
    assert order_key("a-b", "c") != order_key("a", "b-c")
    assert order_key(None, "1001") == "manual-1001"
    assert order_key("s", "n" * 48) == "s-" + "n" * 48


def test_a_long_key_keeps_its_head_and_a_hash_of_the_whole() -> None:
    whole = "shöp-" + "9" * 46
    assert order_key("shöp", "9" * 46) == whole[:17] + "-" + hashlib.md5("shöp\x1f".encode() + b"9" * 46).hexdigest()


@settings(deadline=None)
@given(st.none() | TEXT, TEXT)
def test_a_key_is_short_and_always_the_same(source: str | None, number: str) -> None:
    key = order_key(source, number)
    assert len(key) <= 50
    assert key == order_key(source, number)


@settings(deadline=None)
@given(TEXT, st.lists(TEXT, unique=True, max_size=30))
def test_orders_of_one_source_never_share_a_key(source: str, numbers: list[str]) -> None:
    assert len({order_key(source, number) for number in numbers}) == len(numbers)


# --- the body --------------------------------------------------------------------------------------------------------


def test_the_whole_body() -> None:
    full = order(
        payment_date="2026-11-20T14:04:00Z",
        customer={"username": "abuyer", "email": "a@example.org"},
        bill_to={"name": "Payer"},
        tax_amount="0.00",
        gift=True,
        gift_message="Enjoy",
        payment_method="card",
        requested_shipping_service="Ground",
        customer_notes="ring",
        internal_notes="vip",
        store_id=12345,
        source="web",
        custom_fields={"1": "batch-7", "2": "", "3": None},
    )
    body = plan.to_shipstation(full, order_number="1001", order_key="shop-1001")
    assert json.loads(encode([body])) == [
        {
            "orderNumber": "1001",
            "orderKey": "shop-1001",
            "orderDate": "2026-11-20T06:03:00.1234560",
            "paymentDate": "2026-11-20T06:04:00.0000000",
            "orderStatus": "awaiting_shipment",
            "customerUsername": "abuyer",
            "customerEmail": "a@example.org",
            "billTo": {"name": "Payer"},
            "shipTo": {
                "name": "A Buyer",
                "street1": "1 Main St",
                "city": "Austin",
                "state": "TX",
                "postalCode": "78701",
                "country": "US",
            },
            "items": [
                {
                    "lineItemKey": "L1",
                    "sku": "ABC",
                    "name": "Thing",
                    "quantity": 2,
                    "unitPrice": 9.99,
                    "options": [{"name": "Colour", "value": "red"}],
                    "adjustment": False,
                },
                {"name": "Discount", "quantity": 1, "unitPrice": -1.0, "options": [], "adjustment": True},
            ],
            "amountPaid": 18.98,
            "taxAmount": 0.0,
            "customerNotes": "ring",
            "internalNotes": "vip",
            "gift": True,
            "giftMessage": "Enjoy",
            "paymentMethod": "card",
            "requestedShippingService": "Ground",
            "advancedOptions": {"storeId": 12345, "customField1": "batch-7", "source": "web"},
        }
    ]


def test_a_cancelled_order_is_sent_whole() -> None:
    body = plan.to_shipstation(order(status="cancelled"), order_number="1", order_key="a-1")
    assert body["orderStatus"] == "cancelled"
    assert body["items"]


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "wall"),
    [
        # March 8th 2026: 02:00 PST becomes 03:00 PDT
        ("2026-03-08T09:59:59.999999+00:00", "2026-03-08T01:59:59.9999990"),
        ("2026-03-08T10:00:00+00:00", "2026-03-08T03:00:00.0000000"),
        # November 1st 2026: 02:00 PDT becomes 01:00 PST, and the hour is told twice
        ("2026-11-01T08:30:00+00:00", "2026-11-01T01:30:00.0000000"),
        ("2026-11-01T09:30:00+00:00", "2026-11-01T01:30:00.0000000"),
        ("2026-11-01T10:00:00+00:00", "2026-11-01T02:00:00.0000000"),
        ("2026-07-01T00:00:00+09:00", "2026-06-30T08:00:00.0000000"),
    ],
)
def test_times_are_pacific_wall_clock_on_both_nights_of_the_change(moment: str, wall: str) -> None:
    assert pacific(datetime.fromisoformat(moment)) == wall


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 2), datetime(2199, 1, 1)))  # noqa: DTZ001
def test_the_wall_clock_is_7_or_8_hours_behind_utc(naive: datetime) -> None:
    wall = datetime.fromisoformat(pacific(naive.replace(tzinfo=UTC)))
    assert naive - wall in (timedelta(hours=7), timedelta(hours=8))


def test_a_machine_without_time_zone_data_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(pacific_time, "ZoneInfo", missing)
    pacific_time.zone.cache_clear()
    with pytest.raises(ConfigError, match="pip install tzdata"):
        pacific(datetime(2026, 1, 1, tzinfo=UTC))


# --- the bytes -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.decimals(min_value=-(10**12), max_value=10**12, places=6) | st.decimals(min_value=0, max_value=999, places=2))
def test_money_is_written_digit_by_digit(amount: Decimal) -> None:
    text = encode([{"a": amount, "b": [amount, str(amount)]}]).decode()
    assert text == f'[{{"a":{amount:f},"b":[{amount:f},"{amount}"]}}]'
    assert json.loads(text, parse_float=Decimal, parse_int=Decimal)[0]["a"] == amount


def test_numbers_are_plain() -> None:
    assert encode([{"a": Decimal("9.99"), "b": Decimal("1E+3"), "c": 0, "d": True}]) == (
        b'[{"a":9.99,"b":1000,"c":0,"d":true}]'
    )


@settings(deadline=None)
@given(st.lists(st.dictionaries(TEXT, TEXT | st.integers() | st.booleans() | st.none()), max_size=5))
def test_texts_arrive_as_they_are(bodies: list[dict[str, object]]) -> None:
    assert json.loads(encode(bodies)) == bodies


@pytest.mark.parametrize(
    "bad",
    [Decimal("NaN"), Decimal("Infinity"), Decimal("1E+999999"), float("nan"), object(), "\x00number:1"],
)
def test_what_json_cannot_say_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"JSON|NUL"):
        encode([{"a": bad}])


def test_a_text_that_looks_like_a_number_mark_stays_text() -> None:
    assert json.loads(encode([{"a": "\\u0000number:1", "b": Decimal(1)}])) == [{"a": "\\u0000number:1", "b": 1}]


# --- the reply -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.permutations([f"k{i}" for i in range(8)]), st.sets(st.integers(0, 7)))
def test_results_are_matched_by_key_in_any_order(keys: list[str], refused: set[int]) -> None:
    def answer(key: str) -> dict[str, Any]:
        number = int(key[1:])
        bad = {"success": False, "orderId": None, "errorMessage": f"no {key}"}
        return result(key, **(bad if number in refused else {"orderId": 100 + number}))

    outcomes = read_results(jobs(*sorted(keys)), {"hasErrors": True, "results": [answer(key) for key in keys]})
    for i in range(8):
        key = f"k{i}"
        done = Done({"shipstation_order_id": str(100 + i), "order_key": key})
        assert outcomes[key] == (Fail(f"ShipStation refused the order: no {key}") if i in refused else done)


@pytest.mark.parametrize(
    "words",
    [
        "Execution Timeout Expired. The timeout period elapsed",
        "Request timed out",
        "Transaction was deadlocked on lock resources",
        "Please try again later",
        "Service temporarily unavailable",
        "Internal Server Error",
        "An error has occurred.",
    ],
)
def test_words_of_a_passing_trouble_are_tried_again(words: str) -> None:
    outcome = read_results(jobs("a"), {"results": [result("a", success=False, errorMessage=words)]})["a"]
    assert outcome == Retry(f"ShipStation could not store the order now: {words}")


@pytest.mark.parametrize(
    "words",
    [
        "'Ship Name' must not be empty.",
        "Please use a 2 character country code",
        "The order has already been shipped and cannot be updated",
        "Cancelled orders cannot be updated. Do not try again.",
        "time outside of business hours",
    ],
)
def test_words_about_the_order_fail_it_in_shipstations_words(words: str) -> None:
    outcome = read_results(jobs("a"), {"results": [result("a", success=False, errorMessage=words)]})["a"]
    assert outcome == Fail(f"ShipStation refused the order: {words}")


def test_a_missing_result_is_tried_again_and_a_foreign_one_ignored() -> None:
    outcomes = read_results(jobs("a", "b"), {"results": [result("b"), result("z"), {"orderKey": None}, {}]})
    assert outcomes["a"] == Retry("ShipStation's reply has no result for orderKey a")
    assert list(outcomes) == ["a", "b"]


@pytest.mark.parametrize("order_id", [None, True, 1.5, "x", "\u0661", []])
def test_success_without_a_usable_id_is_success(order_id: object) -> None:
    outcomes = read_results(jobs("a"), {"results": [result("a", orderId=order_id)]})
    assert outcomes == {"a": Done({"order_key": "a"})}


def test_of_two_results_for_one_key_the_success_counts() -> None:
    bad = result("a", success=False, errorMessage="no")
    for results in ([bad, result("a")], [result("a"), bad]):
        assert isinstance(read_results(jobs("a"), {"results": results})["a"], Done)


def test_a_refusal_without_words_is_tried_again() -> None:
    outcomes = read_results(jobs("a"), {"results": [result("a", success=False)]})
    assert outcomes == {"a": Retry("ShipStation did not accept orderKey a and gave no reason")}


def test_shipstations_words_are_cut_and_made_storable() -> None:
    words = "bad\x00\ud800\n " + "x" * 5_000
    outcome = read_results(jobs("a"), {"results": [result("a", success=False, errorMessage=words)]})["a"]
    assert isinstance(outcome, Fail)
    assert outcome.error.startswith("ShipStation refused the order: bad?? xxx")
    assert len(outcome.error) < 1_100


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (None, "not a JSON object but null"),
        ("<html>", "not a JSON object but text"),
        ([], "not a JSON object but a list"),
        (5, "not a JSON object but a number"),
        ({}, "not a list but null; it has no fields"),
        ({"Message": "x"}, "not a list but null; it has 'Message'"),
        ({"results": {}}, "'results' in ShipStation's reply is not a list but an object"),
        ({"results": [result("a"), 5]}, r"results\[1\] in ShipStation's reply is not an object but a number"),
    ],
)
def test_a_reply_of_another_shape_is_refused(reply: object, message: str) -> None:
    with pytest.raises(MalformedReply, match=message):
        read_results(jobs("a"), reply)


# --- the batch -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=101))
def test_halves_make_up_the_whole(batch: list[int]) -> None:
    first, second = split(batch)
    assert first + second == batch
    assert 0 <= len(first) - len(second) <= 1
