"""The order: what is accepted, and that a refusal names every fault in few words."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.workflows.order import MAX_PAYLOAD_BYTES, STATUSES, Order, OrderFaults, parse_order


def payload(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "order_date": "2026-11-20T14:03:00Z",
        "ship_to": {
            "name": "A Buyer",
            "street1": "1 Main St",
            "city": "Austin",
            "postal_code": "78701",
            "country": "US",
        },
        "items": [{"sku": "ABC", "name": "Thing", "quantity": 2, "unit_price": "9.99"}],
    }
    return base | changes


def ship_to(**changes: Any) -> dict[str, Any]:
    return payload(ship_to=payload()["ship_to"] | changes)


def item(**changes: Any) -> dict[str, Any]:
    return payload(items=[payload()["items"][0] | changes])


def faults(value: object) -> list[str]:
    with pytest.raises(OrderFaults) as caught:
        parse_order(value)
    text = str(caught.value)
    assert len(text) <= 2_000
    assert text.isprintable() or "\n" in text
    assert text.replace("\n", "").isprintable()
    return text.split("\n")


def test_defaults_of_the_smallest_order() -> None:
    order = parse_order(payload())
    assert order.status == "awaiting_shipment"
    assert order.order_date == datetime(2026, 11, 20, 14, 3, tzinfo=UTC)
    assert (order.amount_paid, order.gift, order.custom_fields) == (None, False, {})
    assert order.bill_to.model_dump() == order.ship_to.model_dump()
    assert order.items[0].adjustment is False


def test_nulls_and_blanks_of_optional_fields_count_as_missing() -> None:
    order = parse_order(payload(status=None, bill_to=None, gift=None, customer_notes="  ", currency="", customer=None))
    assert order == parse_order(payload())


def test_the_bill_address_needs_only_a_name() -> None:
    order = parse_order(payload(bill_to={"name": "Payer"}))
    assert (order.bill_to.name, order.bill_to.street1) == ("Payer", None)


def test_unknown_fields_are_kept_everywhere_even_under_names_of_methods() -> None:
    order = parse_order(item(colour="red", model_dump=1) | {"tags": [1, None, {"a": 1.5}], "_x": "y"})
    dump = order.model_dump(mode="json")
    assert (dump["tags"], dump["_x"]) == ([1, None, {"a": 1.5}], "y")
    assert (dump["items"][0]["colour"], dump["items"][0]["model_dump"]) == ("red", 1)


def test_an_order_serialises_back() -> None:
    whole = item(options=[{"name": "Colour", "value": "red"}], tax_amount="0.00", extra=1) | {
        "amount_paid": "19.98",
        "payment_date": "2026-11-20T15:00:00-08:00",
        "custom_fields": {"1": "a", "2": None, "3": ""},
        "store_id": "12",
    }
    order = parse_order(whole)
    dump = json.loads(json.dumps(order.model_dump(mode="json")))
    assert parse_order(dump) == order
    assert dump["amount_paid"] == "19.98"
    assert dump["items"][0]["unit_price"] == "9.99"


def test_an_order_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_order(payload()).gift = True  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (9.99, "9.99"),
        ("9.99", "9.99"),
        ("9.90", "9.90"),
        (" 7 ", "7"),
        (7, "7"),
        (Decimal("9.90"), "9.90"),
        (Decimal("1E+5"), "100000"),
        (0.1 + 0.2, "0.3"),
        (19.979999999999997, "19.98"),
        (-0.0, "0.0"),
        (999999999999.99, "999999999999.99"),
        ("0.123456", "0.123456"),
    ],
)
def test_money_is_exact(given_value: object, expected: str) -> None:
    amount = parse_order(payload(amount_paid=given_value)).amount_paid
    assert str(amount) == expected


@pytest.mark.parametrize(
    "bad",
    [
        True, float("nan"), float("inf"), "NaN", "Infinity", "1e5", "$5", "1,000.00", "9.9999999", "\u0661", "1_0",
        1e12, 10**12, 10**400, Decimal("sNaN"), Decimal("1E+999999"), Decimal("0E+99999999"), "-0.01", -1,
        "1" * 5_000, [], {},
    ],
)  # fmt: skip
def test_what_is_no_money_is_refused_with_its_path(bad: object) -> None:
    (line,) = faults(payload(amount_paid=bad))
    assert line.startswith("amount_paid = ")


@settings(deadline=None)  # a busy machine is no fault
@given(st.decimals(min_value=0, max_value=999_999_999, places=2))
def test_money_survives_as_text_as_decimal_and_as_float(amount: Decimal) -> None:
    for form in (str(amount), amount, float(amount), json.loads(str(amount))):
        assert parse_order(payload(amount_paid=form)).amount_paid == amount


@pytest.mark.parametrize("word", STATUSES)
def test_every_uploadable_status_is_known(word: str) -> None:
    assert parse_order(payload(status=f" {word.upper()} ")).status == word


def test_a_shipped_order_is_refused_with_a_reason() -> None:
    (line,) = faults(payload(status="shipped"))
    assert line == "status = 'shipped': a shipped order cannot be uploaded: ShipStation takes no changes to it"


@pytest.mark.parametrize("word", ["awaiting", "processing", 5, ["on_hold"], {}])
def test_an_unknown_status_is_a_fault(word: object) -> None:
    (line,) = faults(payload(status=word))
    assert line.startswith("status = ")
    assert line.endswith("expected one of " + ", ".join(STATUSES))


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-20T14:03:00Z",
        "2026-11-20 14:03:00.1234567+02:00",
        "2026-11-20T14:03-08:00",
        datetime(2026, 11, 20, tzinfo=timezone(timedelta(hours=3))),
    ],
)
def test_times_with_an_offset_are_accepted(moment: object) -> None:
    assert parse_order(payload(order_date=moment)).order_date.utcoffset() is not None


@pytest.mark.parametrize(
    "moment",
    ["2026-11-20T14:03:00", "2026-11-20", "yesterday", 1_700_000_000, "1700000000", True, "0001-01-01T00:00:00+23:00",
     "9999-12-31T23:59:59Z", "2026-02-30T00:00:00Z", datetime(2026, 1, 1), [], "x" * 5_000],  # noqa: DTZ001
)  # fmt: skip
def test_times_without_an_offset_or_sense_are_refused(moment: object) -> None:
    (line,) = faults(payload(order_date=moment))
    assert line.endswith("expected a time with an offset, such as 2026-11-20T14:03:00Z")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ship_to(country="us"), "US"),
        (ship_to(country=" De "), "DE"),
    ],
)
def test_countries_are_written_large(value: object, expected: str) -> None:
    assert parse_order(value).ship_to.country == expected


BAD: list[tuple[object, str]] = [
    (ship_to(country="USA"), "ship_to.country = 'USA': expected exactly 2 letters (ISO 3166), such as US"),
    (ship_to(country="U1"), "ship_to.country = 'U1': expected exactly 2 letters (ISO 3166), such as US"),
    (ship_to(country="ÄÖ"), "ship_to.country = 'ÄÖ': expected exactly 2 letters (ISO 3166), such as US"),
    (ship_to(country=None), "ship_to.country: is required"),
    (ship_to(name="  "), "ship_to.name: is required"),
    (ship_to(name="a\x00b"), "ship_to.name = 'a\\x00b': contains the control character U+0000"),
    (ship_to(name="a\x85b"), "ship_to.name = 'a\\x85b': contains the control character U+0085"),
    (ship_to(name="\ud800"), "ship_to.name = '\\ud800': contains the control character U+D800"),
    (ship_to(postal_code=2134), "ship_to.postal_code = 2134: expected text"),
    (ship_to(city=["x"]), "ship_to.city = a list of 1: expected text"),
    (item(quantity=0), "items[0].quantity = 0: expected 1 or more"),
    (item(quantity=-3), "items[0].quantity = -3: expected 1 or more"),
    (item(quantity=1.5), "items[0].quantity = 1.5: expected a whole number"),
    (item(quantity=True), "items[0].quantity = True: expected a whole number"),
    (item(quantity="two"), "items[0].quantity = 'two': expected a whole number"),
    (item(quantity="1_0"), "items[0].quantity = '1_0': expected a whole number"),
    (item(quantity=None), "items[0].quantity: is required"),
    (item(sku=None), "items[0].sku: is required unless adjustment is true"),
    (item(unit_price="-1"), "items[0].unit_price = '-1': expected 0 or more unless adjustment is true"),
    (item(name="x" * 251), f"items[0].name = '{'x' * 61}… (251 characters): expected at most 250 characters"),
    (item(line_item_key="k" * 51), "items[0].line_item_key = '" + "k" * 51 + "': expected at most 50 characters"),
    (payload(items=[]), "items = a list of 0: expected at least 1"),
    (payload(items={}), "items = an object of 0: expected a list"),
    (payload(items=["x"]), "items[0] = 'x': expected an object"),
    (payload(items=[None]), "items[0]: expected an object"),
    (payload(ship_to="here"), "ship_to = 'here': expected an object"),
    (payload(bill_to={"country": "US"}), "bill_to.name: is required"),
    (payload(gift="perhaps"), "gift = 'perhaps': expected true or false"),
    (payload(currency="$"), "currency = '$': expected exactly 3 letters (ISO 4217), such as USD"),
    (payload(custom_fields=[]), "custom_fields = a list of 0: expected an object"),
    (payload(extra="a\x01"), "extra = 'a\\x01': contains the control character U+0001"),
    (payload(extra={"a\x00": 1}), "extra.a? = 'a\\x00': contains the control character U+0000"),
    (payload(extra=float("nan")), "extra = nan: expected a finite number"),
    (payload(extra=10**5_000), "extra = a number of about 4,983 digits: expected a number of fewer digits"),
    (payload(extra=b"x"), "extra = b'x': expected a JSON value"),
    ("x", "payload = 'x': expected an object"),
    ([], "payload = a list of 0: expected an object"),
    (None, "payload: expected an object"),
    (5, "payload = 5: expected an object"),
]


@pytest.mark.parametrize(("value", "line"), BAD, ids=[line[:40] for _, line in BAD])
def test_a_fault_says_where_what_and_what_is_expected(value: object, line: str) -> None:
    assert faults(value) == [line]


def test_custom_fields_are_three() -> None:
    (line,) = faults(payload(custom_fields={"1": "a", "4": "b"}))
    assert line.startswith("custom_fields.4 = '4': ")


def test_texts_are_trimmed_and_keep_tabs_and_line_ends() -> None:
    order = parse_order(payload(customer_notes="  a\tb\r\nc\n") | {"customer": {"username": 7}})
    assert (order.customer_notes, order.customer.username) == ("a\tb\r\nc", "7")


def test_a_discount_needs_no_sku_and_may_be_negative() -> None:
    line = parse_order(item(sku="", adjustment=True, unit_price="-2.50")).items[0]
    assert (line.sku, line.unit_price) == (None, Decimal("-2.50"))


def test_all_faults_come_at_once() -> None:
    value = ship_to(country="USA", city=None) | {
        "order_date": "soon",
        "items": [{"name": "a\x00", "quantity": 0}, {"sku": "b", "quantity": 1}],
    }
    assert len(faults(value)) == 7


def test_a_fault_of_ship_to_is_not_told_again_for_bill_to() -> None:
    assert faults({**payload(), "ship_to": None}) == ["ship_to: is required"]


def test_long_lists_of_faults_are_cut_and_counted() -> None:
    lines = faults(payload(items=[{}] * 500))
    assert len(lines) <= 21
    assert lines[-1] == f"and {1_500 - len(lines) + 1:,} more"
    with pytest.raises(OrderFaults) as caught:
        parse_order(payload(items=[{}] * 500))
    assert len(caught.value.faults) == 1_500


def test_too_much_text_is_refused_with_figure_and_limit() -> None:
    assert faults("x" * 10_000_000) == ["payload: has at least 10,000,000 bytes of text; limit 1,000,000"]
    (line,) = faults(payload(notes=["é" * (MAX_PAYLOAD_BYTES // 2)]))
    assert line.startswith("payload: has at least 1,000,")
    assert parse_order(payload(notes="x" * 900_000)).model_extra


def test_too_many_values_are_refused() -> None:
    (line,) = faults(payload(items=[{}] * 60_000))
    assert line == "items[49983]: is beyond 64 levels or 50,000 values"
    assert len(parse_order(payload(items=payload()["items"] * 1_000)).items) == 1_000


def test_a_payload_that_contains_itself_ends() -> None:
    inside: list[Any] = []
    inside += [inside, inside]
    deep: list[Any] = []
    for _ in range(1_000):
        deep = [deep]
    for endless in (inside, deep):
        (line,) = faults(payload(x=endless))
        assert line.endswith("is beyond 64 levels or 50,000 values")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(sorted(Order.model_fields))


@settings(deadline=None)  # a busy machine is no fault
@given(st.dictionaries(FIELDS | st.text(max_size=5), JSON, max_size=6) | JSON)
def test_any_json_is_an_order_or_faults(value: Any) -> None:
    whole = {**payload(), **value} if isinstance(value, dict) else value
    try:
        order = parse_order(whole)
    except OrderFaults:
        faults(whole)
    else:
        assert parse_order(json.loads(json.dumps(order.model_dump(mode="json"), allow_nan=False))) == order
