"""The quick check says yes to nothing that `parse_order` would refuse, and to nearly everything that shops send."""

import copy
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from workflows.imports import shop
from workflows.imports.test_formats import read

from listener.workflows.imports.check import fits
from listener.workflows.order import parse_order

ORDER: dict[str, Any] = {
    "order_date": "2026-11-20T14:03:00+00:00",
    "status": "awaiting_shipment",
    "customer": {"username": "a", "email": "b"},
    "ship_to": {
        "name": "A",
        "company": "C",
        "street1": "1",
        "street2": "2",
        "city": "X",
        "state": "TX",
        "postal_code": "0",
        "country": "US",
        "phone": "5",
    },
    "bill_to": {"name": "B", "country": "us"},
    "items": [
        {
            "sku": "S",
            "name": "N",
            "quantity": 1,
            "unit_price": "1.00",
            "adjustment": False,
            "options": [{"name": "O", "value": "V"}],
        },
        {"name": "D", "quantity": 1, "unit_price": "-1.00", "adjustment": True},
    ],
    "amount_paid": "1.00",
    "tax_amount": "0.10",
    "shipping_amount": "2",
    "currency": "USD",
    "payment_method": "P",
    "customer_notes": 'line\nline\t\\ " ü €',
    "gift": False,
    "source": "eBay",
    "custom_fields": {"1": "x", "3": "y"},
    "shop_fields": {"UPC": "1", "Dimensions": {"Length": "2"}},
}

ODD = """\x00 \x7f \x85 \u00a0 \u2028 1 -1 1.2345678 1e5 NaN US usd ÜS true shipped 1111111111111 ٣ 2026-11-20T14:03:00
2026-02-30T00:00:00+00:00 2026-11-31T00:00:00+00:00 2028-02-29T00:00:00+00:00 1969-12-31T23:59:59+00:00
2026-11-20T24:00:00+00:00"""
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", " ", "\ud800", "x" * 51, "x" * 251, "x" * 5_001, *ODD.split(" "), *ODD.split()]),
)
VALUES = st.one_of(
    TEXTS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a payload."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


PLACES = [place for place in places(ORDER) if place]


@st.composite
def payloads(draw: st.DrawFn) -> dict[str, Any]:
    """An order with some values replaced, taken away or added."""
    payload = copy.deepcopy(ORDER)
    for _ in range(draw(st.integers(1, 3))):
        target: Any = payload
        *way, last = draw(st.sampled_from(PLACES))
        try:
            for step in way:
                target = target[step]
            match draw(st.integers(0, 3)):
                case 0:
                    del target[last]
                case 1:
                    target[draw(TEXTS)] = draw(VALUES)
                case _:
                    target[last] = draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue  # what an earlier change has taken away
    return payload


@settings(max_examples=500, deadline=None)
@given(payloads())
@example({**ORDER, "shop_fields": {"UPC": float("inf")}})
@example({**ORDER, "shop_fields": {"UPC": [float("nan")]}})
def test_what_fits_is_an_order(payload: dict[str, Any]) -> None:
    """Sound: a yes is never wrong. Whatever it says no to, parse_order decides."""
    try:
        written = to_json(payload)
    except ValueError:
        return  # half of a surrogate pair: no XML parser gives one
    if fits(payload, written):
        parse_order(payload)


def test_what_shops_send_fits() -> None:
    """Quick where it counts."""
    assert fits(ORDER, to_json(ORDER))
    for payload in read(shop.numbered(3))[0].values():
        payload.pop("version")
        assert fits(payload, to_json(payload))


def test_everything_at_its_longest_fits() -> None:
    payload = copy.deepcopy(ORDER)
    payload["ship_to"]["name"], payload["customer_notes"], payload["source"] = "x" * 250, "x" * 5_000, "x" * 50
    assert fits(payload, to_json(payload))
    for path, size in ((("ship_to", "name"), 251), (("customer_notes",), 5_001), (("source",), 51)):
        longer: Any = copy.deepcopy(payload)
        target = longer
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = "x" * size
        assert not fits(longer, to_json(longer))
