"""The order: one JSON shape for every source (`orders_inbox.payload`). Pure: no I/O, no clock.

`parse_order` turns a payload into an `Order` or raises `OrderFaults` with every fault at once; its text goes into
`last_error`. Unknown fields are kept. `order.model_dump(mode="json")` gives the payload back, money as text.

Longest texts, in characters: `Code` 50, `Line` 250, `Note` 5,000: ShipStation documents less and refuses by itself.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic import StringConstraints as Chars
from pydantic import ValidationInfo as Info
from pydantic_core import ErrorDetails
from pydantic_core import PydanticCustomError as Problem

MAX_PAYLOAD_BYTES = 1_000_000  # UTF-8 text of one payload; real orders stay below a hundredth of it
MAX_DEPTH, MAX_VALUES = 64, 50_000  # pydantic serialises 255 levels; 50,000 faults are told in a second or two
STATUSES = ("awaiting_payment", "awaiting_shipment", "pending_fulfillment", "on_hold", "cancelled")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # surrogates: not storable either
_MONEY = re.compile(r"[+-]?[0-9]{1,12}(?:\.[0-9]{1,6}0{0,9})?")
_PROBLEMS = {
    "missing": "is required",
    "string": "expected text",
    "string_too_long": "expected at most {max_length:,} characters",
    "country": "expected exactly 2 letters (ISO 3166), such as US",
    "currency": "expected exactly 3 letters (ISO 4217), such as USD",
    "too_short": "expected at least {min_length}",
    **dict.fromkeys(("model", "dict"), "expected an object"),
    "tuple": "expected a list",
    **dict.fromkeys(("bool", "bool_parsing"), "expected true or false"),
    **dict.fromkeys(("int", "int_parsing", "int_from_float", "int_parsing_size"), "expected a whole number"),
    "greater_than_equal": "expected {ge} or more",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a payload. value: what stands there, shortened for a person; empty = nothing does."""

    path: str
    value: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path} = {self.value}: {self.problem}" if self.value else f"{self.path}: {self.problem}"


class OrderFaults(ValueError):  # noqa: N818 - it is the list of faults
    """A payload is not an order. `str()`: a line per fault, at most 20 lines and about 2,000 characters."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        lines: list[str] = []
        for line in map(str, self.faults[:20]):
            if lines and sum(map(len, lines)) + len(line) > 1_900:
                break
            lines.append(line)
        more = len(self.faults) - len(lines)
        return "\n".join([*lines, f"and {more:,} more"] if more else lines)


def parse_order(payload: object, *, max_bytes: int = MAX_PAYLOAD_BYTES) -> "Order":
    """Check a payload and give the order; raises OrderFaults with all faults. max_bytes: of its text in UTF-8."""
    faults = {fault.path: fault for fault in _survey(payload, max_bytes)}
    try:
        order = Order.model_validate(payload)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if details["type"] != "too_short" or not details["input"]:  # it is told of a list of bad items too
                faults.setdefault(_path(details["loc"]), _fault(details))
    if faults:
        raise OrderFaults(tuple(faults.values()))
    return order


def _survey(payload: object, max_bytes: int) -> Iterator[Fault]:
    """Walk the raw payload, unknown fields too, for what can be neither stored nor sent, and for its size."""
    seen, size = 0, 0
    waiting: list[tuple[tuple[object, ...], object]] = [((), payload)]
    while waiting:
        path, value = waiting.pop()
        seen += 1
        if isinstance(value, str):
            size += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
        if size > max_bytes:
            raise OrderFaults((Fault("payload", "", f"has at least {size:,} bytes of text; limit {max_bytes:,}"),))
        if len(path) > MAX_DEPTH or seen > MAX_VALUES:
            raise OrderFaults((Fault(_path(path), "", f"is beyond {MAX_DEPTH} levels or {MAX_VALUES:,} values"),))
        if trouble := _trouble(value):
            yield Fault(_path(path), _show(value), trouble)
        elif isinstance(value, dict):
            waiting += [((*path, name), item) for name, child in reversed(value.items()) for item in (child, name)]
        elif isinstance(value, list | tuple):
            waiting += [((*path, index), value[index]) for index in reversed(range(len(value)))]


def _trouble(value: object) -> str | None:
    match value:
        case str():
            found = _CONTROL.search(value)
            return f"contains the control character U+{ord(found[0]):04X}" if found else None
        case None | datetime() | dict() | list() | tuple():
            return None
        case int():  # int -> str refuses more than 4,300 digits
            return "expected a number of fewer digits" if value.bit_length() > 256 else None
        case float() | Decimal():
            return None if Decimal(value).is_finite() else "expected a finite number"
    return "expected a JSON value"


def _fault(details: ErrorDetails) -> Fault:
    """One of pydantic's errors in our words."""
    kind, path = details["type"], details["loc"]
    value = None if kind == "missing" else details["input"]
    words = _PROBLEMS.get(str(path[-1]) if kind == "string_pattern_mismatch" else kind.removesuffix("_type"))
    problem = words.format_map(details.get("ctx", {})) if words else details["msg"]
    return Fault(_path(path), "" if value is None else _show(value), problem)


def _path(parts: tuple[object, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{str(part)[:40]}" for part in parts if part != "[key]")
    return "".join(c if c.isprintable() else "?" for c in text[:200]).removeprefix(".") or "payload"


def _show(value: object) -> str:  # at most 80 printable characters
    if isinstance(value, dict | list | tuple):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of about {value.bit_length() * 3 // 10:,} digits"
    if not isinstance(value, str):
        return (str if isinstance(value, Decimal | datetime) else repr)(value)[:80]
    text, end = repr(value[:80]), f"… ({len(value):,} characters)"
    return text if len(text) <= 80 and len(value) <= 80 else text[: 80 - len(end)] + end


def _money(value: object) -> Decimal:
    """Exact for text; of a JSON number, what follows the 6th decimal place is the dust of float arithmetic."""
    text = value.strip() if isinstance(value, str) else ""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value))
        if number.is_finite() and number.adjusted() < 12:
            few_places = int(number.as_tuple().exponent) >= -6
            text = f"{number if few_places else number.quantize(Decimal('1E-6')).normalize():f}"
    if not _MONEY.fullmatch(text):
        raise Problem("money", "expected a decimal number of at most 12 digits and 6 decimal places, such as 9.99")
    return +Decimal(text)  # the + makes -0 a 0


def _moment(value: object) -> datetime:
    with suppress(ValueError):
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if isinstance(moment, datetime) and moment.utcoffset() is not None and 1970 <= moment.year < 2200:
            return moment
    raise Problem("moment", "expected a time with an offset, such as 2026-11-20T14:03:00Z")


def _status(value: object) -> object:
    word = value.strip().lower() if isinstance(value, str) else value
    if word == "shipped":
        raise Problem("shipped", "a shipped order cannot be uploaded: ShipStation takes no changes to it")
    if word not in STATUSES:
        raise Problem("status", "expected one of {words}", {"words": ", ".join(STATUSES)})
    return word


def _whole(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, str) and not re.fullmatch("[0-9]{1,20}", value.strip())):
        raise Problem("whole", "expected a whole number")
    return value


Code = Annotated[str, Chars(max_length=50)]
Line = Annotated[str, Chars(max_length=250)]
Note = Annotated[str, Chars(max_length=5_000)]
PostalCode = Annotated[Code, Chars(strict=True)]  # as a number it would have lost its leading zeros
Country = Annotated[str, Chars(to_upper=True, pattern="^[A-Za-z]{2}$")]
Currency = Annotated[str, Chars(to_upper=True, pattern="^[A-Za-z]{3}$")]
Money = Annotated[Decimal, BeforeValidator(_money)]  # negative on adjustment lines
Amount = Annotated[Decimal, Field(ge=0), BeforeValidator(_money)]
Whole = Annotated[int, Field(ge=1, le=10**12), BeforeValidator(_whole)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class Part(BaseModel):
    """What all parts share: frozen, unknown fields kept; null and blank text of a known field count as missing."""

    model_config = ConfigDict(frozen=True, extra="allow", str_strip_whitespace=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_missing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        blank = {k for k, v in data.items() if v is None or (isinstance(v, str) and not v.strip())}
        return {name: value for name, value in data.items() if name not in blank or name not in cls.model_fields}


class Customer(Part):
    """Who bought."""

    username: Line | None = None
    email: Line | None = None


class BillTo(Part):
    """An address of which only the name must be known."""

    name: Line
    company: Line | None = None
    street1: Line | None = None
    street2: Line | None = None
    street3: Line | None = None
    city: Line | None = None
    state: Line | None = None
    postal_code: PostalCode | None = None
    country: Country | None = None
    phone: Code | None = None
    residential: bool | None = None


class ShipTo(BillTo):
    """An address that a parcel can go to."""

    street1: Line
    city: Line
    postal_code: PostalCode
    country: Country


class Option(Part):
    """A choice of the buyer, such as a colour."""

    name: Line
    value: Note | None = None


class Item(Part):
    """One line. adjustment: a discount or fee, which needs no SKU and may be negative."""

    adjustment: bool = False
    line_item_key: Code | None = None
    sku: Line | None = Field(default=None, validate_default=True)
    name: Line
    quantity: Whole
    unit_price: Money | None = None
    tax_amount: Money | None = None
    options: tuple[Option, ...] = ()

    @field_validator("sku", "unit_price", "tax_amount")
    @classmethod
    def _or_adjustment(cls, value: str | Decimal | None, info: Info) -> str | Decimal | None:
        if info.data.get("adjustment") is False:
            if value is None and info.field_name == "sku":
                raise Problem("sku", "is required unless adjustment is true")
            if isinstance(value, Decimal) and value < 0:
                raise Problem("negative", "expected 0 or more unless adjustment is true")
        return value


class Order(Part):
    """An order as every source gives it. An amount of None: the source did not say."""

    order_date: Moment
    payment_date: Moment | None = None
    status: Annotated[str, BeforeValidator(_status)] = "awaiting_shipment"
    customer: Customer = Customer()
    ship_to: ShipTo
    bill_to: BillTo = Field(default=None, validate_default=True)
    items: tuple[Item, ...] = Field(min_length=1)
    amount_paid: Amount | None = None
    tax_amount: Amount | None = None
    shipping_amount: Amount | None = None
    currency: Currency | None = None
    payment_method: Line | None = None
    requested_shipping_service: Line | None = None
    customer_notes: Note | None = None
    internal_notes: Note | None = None
    gift: bool = False
    gift_message: Note | None = None
    store_id: Whole | None = None
    source: Code | None = None
    custom_fields: dict[Literal["1", "2", "3"], Annotated[str, Chars(max_length=250)] | None] = {}

    @field_validator("bill_to", mode="before")
    @classmethod
    def _bill_where_it_ships(cls, value: object, info: Info) -> object:
        if value is None:  # the faults of ship_to are not told twice
            return dict(info.data["ship_to"]) if "ship_to" in info.data else BillTo.model_construct(name="")
        return value
