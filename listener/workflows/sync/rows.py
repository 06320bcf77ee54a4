"""What a row of ShipStation's lists says, as the records that are stored. Pure; a row that cannot be read costs only
itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

from listener.workflows.pacific import read_pacific
from listener.workflows.sync.plan import Feed

Record = dict[str, Any]

_MOST_ID = 2**63 - 1  # bigint


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A row that cannot be stored. place: what it is known by."""

    place: str
    row: Any
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """The rows of one page, merged by id: of two with one id the later one counts."""

    records: list[Record]
    unread: list[Unread]


def read_rows(feed: Feed, rows: Sequence[Any]) -> Read:
    """Read the rows of a page."""
    read = _order if feed.rows == "orders" else _shipment if feed.rows == "shipments" else _fulfillment
    records: dict[int, Record] = {}
    unread: dict[str, Unread] = {}
    for row in rows:
        try:
            record = read(row)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            place = _place(feed, row)
            unread[place] = Unread(place=place, row=_storable(row), error=f"{feed.rows}: {error}")
        else:
            key = record["order_id" if feed.rows == "orders" else "parcel_id"]
            records.pop(key, None)
            records[key] = record
    return Read(records=list(records.values()), unread=list(unread.values()))


def _order(row: Any) -> Record:
    more = row.get("advancedOptions") or {}
    return {
        "order_id": _id(row, "orderId"),
        "order_key": _text(row, "orderKey"),
        "order_number": _text(row, "orderNumber"),
        "order_status": _required(_text, row, "orderStatus"),
        "parent_id": _id(more, "parentId") if more.get("parentId") is not None else None,
        "store_id": _id(more, "storeId") if more.get("storeId") is not None else None,
        "order_total": _money(row, "orderTotal"),
        "created_there_at": _time(row, "createDate"),
        "modified_there_at": _time(row, "modifyDate"),
    }


def _shipment(row: Any) -> Record:
    return {
        **_parcel(row, "shipment", "shipmentId"),
        "service_code": _text(row, "serviceCode"),
        "cost": _money(row, "shipmentCost"),
        "is_return": row.get("isReturnLabel") is True,
    }


def _fulfillment(row: Any) -> Record:
    return {
        **_parcel(row, "fulfillment", "fulfillmentId"),
        "service_code": _text(row, "fulfillmentServiceCode"),
        "cost": _money(row, "fulfillmentFee"),
        "is_return": False,
    }


def _parcel(row: Any, kind: str, name: str) -> Record:
    return {
        "kind": kind,
        "parcel_id": _id(row, name),
        "order_id": _id(row, "orderId"),
        "order_number": _text(row, "orderNumber"),
        "tracking_number": _text(row, "trackingNumber"),
        "carrier_code": _text(row, "carrierCode"),
        "shipped_at": _time(row, "shipDate"),
        "created_there_at": _time(row, "createDate"),
        "voided_at": _time(row, "voidDate"),
        "is_void": row.get("voided") is True,
    }


def _required(read: Callable[[Any, str], Any], row: Any, name: str) -> Any:
    value = read(row, name)
    if value is None:
        raise ValueError(f"{name} is missing")
    return value


def _id(row: Mapping[str, Any], name: str) -> int:
    value = row.get(name)
    if type(value) is not int or not 0 <= value <= _MOST_ID:
        raise ValueError(f"{name} is no id: {value!r:.60}")
    return value


def _text(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, str | int):
        raise TypeError(f"{name} is no text: {value!r:.60}")
    return _plain(str(value)).strip() or None


def _plain(text: str) -> str:
    # Postgres text holds neither NUL nor half of a surrogate pair
    return text.replace("\x00", "\N{SYMBOL FOR NULL}").encode(errors="backslashreplace").decode()


def _money(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{name} is no number: {value!r:.60}") from None
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError(f"{name} is no amount of money: {value!r:.60}")
    return f"{number:f}"


def _time(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if not value:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is no time: {value!r:.60}")
    moment: datetime = read_pacific(value)
    return moment.isoformat()


def _place(feed: Feed, row: Any) -> str:
    if not isinstance(row, dict):
        return f"not an object: {row!r:.60}"
    named = {name: row.get(name) for name in (feed.row_id, "orderId", "orderNumber", "orderKey") if row.get(name)}
    return _plain(", ".join(f"{name} {value!r:.60}" for name, value in named.items())) or "a row without any id"


def _storable(value: Any) -> Any:
    """As jsonb can hold it, which knows neither NUL nor half of a surrogate pair nor NaN."""
    match value:
        case dict():
            return {_plain(name): _storable(each) for name, each in value.items()}
        case list():
            return [_storable(each) for each in value]
        case str():
            return _plain(value)
        case float():
            return value if isfinite(value) else str(value)
    return value
