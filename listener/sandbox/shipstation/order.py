"""The order as the API takes it: which JSON types it reads, what it refuses, and what it shows of it.

Reading is tolerant where the real API is (numbers for text, digits for numbers) and refuses the whole body where a
type cannot be read. An order of the right types may still be refused by itself, with the vendor's words.
A body is kept sparse, without the fields that are null: `expand` writes the full resource. All functions are pure.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from listener.sandbox.clock import read_wall

Body: TypeAlias = dict[str, Any]
Reader: TypeAlias = Callable[[Any], Any]

STATUSES = frozenset(
    {"awaiting_payment", "awaiting_shipment", "pending_fulfillment", "shipped", "on_hold", "cancelled"}
)
LOCKED_STATUSES = frozenset({"shipped", "cancelled"})

_INT32, _INT64 = 2**31 - 1, 2**63 - 1
_DECIMAL = 7.9e28
_LONGEST_NAME = 50


class Mismatch(Exception):  # noqa: N818 - reads as a state
    """A JSON value that cannot be read as the type that the field has; it rejects the whole body."""

    def __init__(self, value: Any, kind: str) -> None:
        super().__init__()
        self.value = value
        self.kind = kind
        self.path = ""

    def __str__(self) -> str:
        return (
            f"Error converting value {str(self.value)[:100]!r} to type '{self.kind}'. Path '{self.path.lstrip('.')}'."
        )


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, (dict, list)):
        raise Mismatch(value, "System.String")
    return str(value)


def _integer(value: Any, top: int = _INT32, kind: str = "System.Int32") -> int:
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            raise Mismatch(value, kind) from None
    if type(value) is not int or not -top - 1 <= value <= top:
        raise Mismatch(value, kind)
    return value


def _long(value: Any) -> int:
    return _integer(value, _INT64, "System.Int64")


def _number(value: Any) -> int | float:
    if isinstance(value, str):
        try:
            value = float(Decimal(value))
        except (InvalidOperation, ValueError):
            raise Mismatch(value, "System.Decimal") from None
    if type(value) not in (int, float) or abs(value) > _DECIMAL or math.isnan(value):
        raise Mismatch(value, "System.Decimal")
    return value  # type: ignore[no-any-return]


def _flag(value: Any) -> bool:
    if type(value) is bool:
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise Mismatch(value, "System.Boolean")


def _moment(value: Any) -> str:
    try:
        return read_wall(value)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise Mismatch(value, "System.DateTime") from None


def _record(fields: Mapping[str, Reader], kind: str) -> Reader:
    # Kept under our own copy of the name: each parsed body would bring another.
    known = {name: (name, reader) for name, reader in fields.items()}

    def read(value: Any) -> Body:
        if type(value) is not dict:
            raise Mismatch(value, kind)
        result: Body = {}
        name = ""
        try:
            for name, found in value.items():
                if found is not None and name in known:
                    kept, reader = known[name]
                    # Most values are text, and this loop is most of the time that a batch costs.
                    result[kept] = found if reader is _text and type(found) is str else reader(found)
        except Mismatch as mismatch:
            mismatch.path = f".{name}{mismatch.path}"
            raise
        return result

    return read


def _list(reader: Reader, kind: str) -> Reader:
    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Mismatch(value, kind)
        result = []
        try:
            for member in value:
                result.append(reader(member))  # noqa: PERF401 - its length tells where reading stopped
        except Mismatch as mismatch:
            mismatch.path = f"[{len(result)}]{mismatch.path}"
            raise
        return result

    return read


def _fields(reader: Reader, names: str) -> dict[str, Reader]:
    return dict.fromkeys(names.split(), reader)


_WEIGHT = _record({"value": _number, "units": _text}, "Weight")
_OPTION = _record({"name": _text, "value": _text}, "ItemOption")
_ADDRESS_FIELDS = {
    **_fields(_text, "name company street1 street2 street3 city state postalCode country phone"),
    "residential": _flag,
}
_ITEM_FIELDS = {
    **_fields(_text, "lineItemKey sku name imageUrl warehouseLocation fulfillmentSku upc"),
    **_fields(_number, "unitPrice taxAmount shippingAmount"),
    "quantity": _integer,
    "productId": _long,
    "adjustment": _flag,
    "weight": _WEIGHT,
    "options": _list(_OPTION, "List<ItemOption>"),
}
_CUSTOMS_ITEM = _record(
    {
        **_fields(_text, "description harmonizedTariffCode countryOfOrigin"),
        "quantity": _integer,
        "value": _number,
    },
    "CustomsItem",
)
_ADVANCED_FIELDS = {
    **_fields(_long, "warehouseId storeId billToMyOtherAccount"),
    **_fields(_flag, "nonMachinable saturdayDelivery containsAlcohol"),
    **_fields(_text, "customField1 customField2 customField3 source"),
    **_fields(_text, "billToParty billToAccount billToPostalCode billToCountryCode"),
}
_ORDER_FIELDS = {
    **_fields(_text, "orderNumber orderKey orderStatus customerUsername customerEmail customerNotes internalNotes"),
    **_fields(_text, "giftMessage paymentMethod requestedShippingService carrierCode serviceCode packageCode"),
    **_fields(_text, "confirmation"),
    **_fields(_moment, "orderDate paymentDate shipByDate"),
    **_fields(_number, "amountPaid taxAmount shippingAmount"),
    "orderId": _long,
    "gift": _flag,
    "billTo": _record(_ADDRESS_FIELDS, "Address"),
    "shipTo": _record(_ADDRESS_FIELDS, "Address"),
    "items": _list(_record(_ITEM_FIELDS, "OrderItem"), "List<OrderItem>"),
    "weight": _WEIGHT,
    "dimensions": _record({**_fields(_number, "length width height"), "units": _text}, "Dimensions"),
    "insuranceOptions": _record(
        {"provider": _text, "insureShipment": _flag, "insuredValue": _number}, "InsuranceOptions"
    ),
    "internationalOptions": _record(
        {**_fields(_text, "contents nonDelivery"), "customsItems": _list(_CUSTOMS_ITEM, "List<CustomsItem>")},
        "InternationalOptions",
    ),
    "advancedOptions": _record(_ADVANCED_FIELDS, "AdvancedOptions"),
    "tagIds": _list(_integer, "List<Int32>"),
}

#: Reads one order; raises Mismatch. Unknown fields are ignored, null ones left out.
read_order = _record(_ORDER_FIELDS, "Order")
#: Reads the array of a batch; raises Mismatch.
read_orders = _list(read_order, "List<Order>")


def refusals(body: Body) -> list[str]:
    """List what is wrong with an order of the right types, in the vendor's words; empty = acceptable."""
    found = []
    for name, label in (
        ("orderNumber", "Order Number"),
        ("orderDate", "Order Date"),
        ("orderStatus", "Order Status"),
        ("billTo", "Bill To"),
        ("shipTo", "Ship To"),
    ):
        if not body.get(name):
            found.append(f"'{label}' must not be empty.")
    for name, label in (("billTo", "Bill Name"), ("shipTo", "Ship Name")):
        address = body.get(name)
        if address and not address.get("name", "").strip():
            found.append(f"'{label}' must not be empty.")
        if address and address.get("country") and len(address["country"]) != 2:
            found.append("Please use a 2 character country code")
    if body.get("orderStatus") and body["orderStatus"] not in STATUSES:
        found.append(f"'{body['orderStatus'][:50]}' is not a valid order status.")
    found += [
        f"The field {name} must be a string with a maximum length of {_LONGEST_NAME}."
        for name in ("orderKey", "orderNumber")
        if len(body.get(name, "")) > _LONGEST_NAME
    ]
    if any(not item.get("name") for item in body.get("items", ())):
        found.append("'Item Name' must not be empty.")
    return list(dict.fromkeys(found))


def total(body: Body) -> float:
    """Compute `orderTotal`: lines, tax and shipping, exactly, and as the JSON number that the API shows."""
    amount = Decimal(str(body.get("taxAmount", 0))) + Decimal(str(body.get("shippingAmount", 0)))
    for item in body.get("items", ()):
        amount += item.get("quantity", 0) * Decimal(str(item.get("unitPrice", 0)))
    return round(float(amount), 2)


def expand(body: Body) -> Body:
    """Write the full resource: every field of the model, null where the last write left it out; shares nothing."""
    result: Body = {**_EMPTY_ORDER, **body}
    result["billTo"] = _expand_address(body.get("billTo"))
    result["shipTo"] = _expand_address(body.get("shipTo"))
    result["items"] = [_expand_item(item) for item in body.get("items", ())]
    result["advancedOptions"] = {**_EMPTY_ADVANCED, "mergedIds": [], **body.get("advancedOptions", {})}
    result["insuranceOptions"] = {**_EMPTY_INSURANCE, **body.get("insuranceOptions", {})}
    result["internationalOptions"] = {**_EMPTY_INTERNATIONAL, **body.get("internationalOptions", {})}
    result["weight"] = _expand_weight(body.get("weight"))
    for name in ("amountPaid", "taxAmount", "shippingAmount"):
        result[name] = body.get(name, 0.0)
    result["gift"] = body.get("gift", False)
    result["orderTotal"] = total(body)
    return result


def _expand_address(address: Body | None) -> Body:
    return {**_EMPTY_ADDRESS, "addressVerified": "Address not yet validated", **(address or {})}


def _expand_item(item: Body) -> Body:
    weight = _expand_weight(item.get("weight"))
    return {**_EMPTY_ITEM, "quantity": 0, "adjustment": False, "options": [], **item, "weight": weight}


def _expand_weight(weight: Body | None) -> Body | None:
    if weight is None:
        return None
    return {"value": 0.0, "units": "ounces", **weight, "WeightUnits": _WEIGHT_UNITS.get(weight.get("units", ""), 1)}


_WEIGHT_UNITS = {"pounds": 0, "ounces": 1, "grams": 2}
_EMPTY_ADDRESS: Body = dict.fromkeys(_ADDRESS_FIELDS)
_EMPTY_ITEM: Body = {"orderItemId": None, **dict.fromkeys(_ITEM_FIELDS), "createDate": None, "modifyDate": None}
_EMPTY_INSURANCE: Body = {"provider": None, "insureShipment": False, "insuredValue": 0.0}
_EMPTY_INTERNATIONAL: Body = {"contents": None, "customsItems": None, "nonDelivery": None}
_EMPTY_ADVANCED: Body = {
    **dict.fromkeys(_ADVANCED_FIELDS),
    **dict.fromkeys(("nonMachinable", "saturdayDelivery", "containsAlcohol", "mergedOrSplit"), False),
    "parentId": None,
}
_EMPTY_ORDER: Body = {
    **dict.fromkeys(_ORDER_FIELDS),
    **dict.fromkeys(("createDate", "modifyDate", "shipDate", "holdUntilDate", "customerId", "orderTotal", "userId")),
    **dict.fromkeys(("externallyFulfilledBy", "externallyFulfilledById", "externallyFulfilledByName")),
    "externallyFulfilled": False,
}
