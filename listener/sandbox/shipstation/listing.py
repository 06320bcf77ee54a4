"""Lists as the API gives them: filters, sort order, pages. Pure; a parameter nobody knows is ignored, as there."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from listener.sandbox.clock import read_bound
from listener.sandbox.shipstation.order import Body
from listener.sandbox.shipstation.store import BIG_ID_BASE, Held, Refused

Row = TypeVar("Row")
Query: TypeAlias = Mapping[str, str]
Test: TypeAlias = Callable[[Any], bool]

PAGE_SIZE = 100
LARGEST_PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one sort of rows is read.

    fields: gives a named field of a row. dates: fields with `…Start` and `…End` filters. equal: fields compared
    without regard to case. numbers: numeric ids. sorts: lower-case word of `sortBy` → field; the first is the default.
    row_id: breaks ties.
    """

    fields: Callable[[Any, str], Any]
    dates: tuple[str, ...]
    equal: Mapping[str, str]
    numbers: Mapping[str, str]
    sorts: Mapping[str, str]
    row_id: str
    special: Mapping[str, Callable[[str], Test]]


def page_of(rows: Iterable[Row], query: Query, kind: Kind) -> tuple[list[Row], dict[str, int]]:
    """Give the rows of one page and the numbers that go with it. Raises Refused for a parameter it cannot read."""
    tests = _tests(query, kind)
    found = [row for row in rows if all(test(row) for test in tests)]
    word = query.get("sortby") or next(iter(kind.sorts))
    direction = (query.get("sortdir") or "asc").lower()
    if word.lower() not in kind.sorts:
        raise Refused(f"The value '{word[:50]}' is not valid for sortBy.")
    if direction not in ("asc", "desc"):
        raise Refused(f"The value '{direction[:50]}' is not valid for sortDir.")
    by, read = kind.sorts[word.lower()], kind.fields
    found.sort(key=lambda row: (read(row, by) or "", read(row, kind.row_id)), reverse=direction == "desc")
    size = min(max(_whole(query, "pagesize", PAGE_SIZE), 1), LARGEST_PAGE)
    page = max(_whole(query, "page", 1), 1)
    counts = {"total": len(found), "page": page, "pages": -(-len(found) // size)}
    return found[(page - 1) * size : page * size], counts


def _tests(query: Query, kind: Kind) -> list[Test]:
    tests: list[Test] = []
    for name in kind.dates:
        for suffix in ("start", "end"):
            text = query.get(f"{name}{suffix}".lower())
            if text:
                tests.append(_bounded(kind, name, text, is_start=suffix == "start"))
    for parameter, name in kind.equal.items():
        text = query.get(parameter.lower())
        if text:
            tests.append(_equal(kind, name, text.casefold()))
    for parameter, name in kind.numbers.items():
        if query.get(parameter.lower()):
            number = _whole(query, parameter.lower(), 0)
            tests.append(_same_number(kind, name, number - BIG_ID_BASE if number > BIG_ID_BASE else number))
    for parameter, make in kind.special.items():
        text = query.get(parameter.lower())
        if text:
            tests.append(make(text))
    return tests


def _bounded(kind: Kind, name: str, text: str, *, is_start: bool) -> Test:
    """Compare wall clocks as text: all have one width, and both ends belong to the window."""
    try:
        bound = read_bound(text)
    except ValueError:
        raise Refused(f"The value '{text[:50]}' is not valid for {name}{'Start' if is_start else 'End'}.") from None

    def test(row: Any) -> bool:
        value = kind.fields(row, name)
        if not value:
            return False
        stamp = value if len(value) > 10 else f"{value}T00:00:00.0000000"
        return bool(stamp >= bound if is_start else stamp <= bound)

    return test


def _equal(kind: Kind, name: str, text: str) -> Test:
    return lambda row: str(kind.fields(row, name) or "").casefold() == text


def _same_number(kind: Kind, name: str, number: int) -> Test:
    return lambda row: kind.fields(row, name) == number


def _whole(query: Query, name: str, default: int) -> int:
    text = query.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise Refused(f"The value '{text[:50]}' is not valid for Int32.") from None


def _order_field(held: Held, name: str) -> Any:
    match name:
        case "createDate":
            return held.created
        case "modifyDate":
            return held.modified
        case "orderId":
            return held.order_id
        case "storeId":
            return held.store_id
        case _:
            return held.body.get(name)


def _parcel_field(parcel: Body, name: str) -> Any:
    match name:
        case "recipientName":
            return parcel["shipTo"]["name"]
        case "recipientCountryCode":
            return parcel["shipTo"]["country"]
        case "storeId":
            return parcel["advancedOptions"]["storeId"]
        case _:
            return parcel[name]


def _number_starts(text: str) -> Test:
    return lambda held: held.number.casefold().startswith(text.casefold())


def _customer(text: str) -> Test:
    word = text.casefold()

    def test(held: Held) -> bool:
        addresses = (held.body.get("shipTo", {}), held.body.get("billTo", {}))
        return any(word in address.get("name", "").casefold() for address in addresses)

    return test


def _item(text: str) -> Test:
    word = text.casefold()

    def test(held: Held) -> bool:
        items = held.body.get("items", ())
        return any(word in item.get(name, "").casefold() for item in items for name in ("sku", "name"))

    return test


ORDERS = Kind(
    fields=_order_field,
    dates=("createDate", "modifyDate", "orderDate", "paymentDate"),
    equal={"orderStatus": "orderStatus"},
    numbers={"storeId": "storeId"},
    sorts={"orderdate": "orderDate", "modifydate": "modifyDate", "createdate": "createDate"},
    row_id="orderId",
    special={"orderNumber": _number_starts, "customerName": _customer, "itemKeyword": _item},
)
_PARCEL_WORDS = ("orderNumber", "trackingNumber", "recipientName")
SHIPMENTS = Kind(
    fields=_parcel_field,
    dates=("createDate", "shipDate", "voidDate"),
    equal={name: name for name in (*_PARCEL_WORDS, "recipientCountryCode", "carrierCode", "serviceCode")},
    numbers={"orderId": "orderId", "storeId": "storeId"},
    sorts={"createdate": "createDate", "shipdate": "shipDate"},
    row_id="shipmentId",
    special={},
)
FULFILLMENTS = Kind(
    fields=_parcel_field,
    dates=("createDate", "shipDate"),
    equal={name: name for name in _PARCEL_WORDS},
    numbers={"orderId": "orderId", "fulfillmentId": "fulfillmentId"},
    sorts={"createdate": "createDate", "shipdate": "shipDate"},
    row_id="fulfillmentId",
    special={},
)
