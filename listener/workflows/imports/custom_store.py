"""ShipStation's custom store XML: `<Orders><Order>…`. Children come in any order; unknown ones are kept. Pure."""

from typing import Any

from listener.workflows.imports.found import Found, OrderTrouble, Rules
from listener.workflows.imports.moments import BadMoment, moment
from listener.workflows.imports.tree import Node, read_node
from listener.workflows.imports.words import SHIPPED

ROOT, ORDER = "Orders", "Order"
_LISTS = frozenset({"Items", "Options"})
_TEXTS = (
    ("TaxAmount", "tax_amount"),
    ("ShippingAmount", "shipping_amount"),
    ("CurrencyCode", "currency"),
    ("PaymentMethod", "payment_method"),
    ("ShippingMethod", "requested_shipping_service"),
    ("CustomerNotes", "customer_notes"),
    ("InternalNotes", "internal_notes"),
    ("GiftMessage", "gift_message"),
    ("Source", "source"),
)
_ADDRESS = (
    ("Name", "name"),
    ("Company", "company"),
    ("Address1", "street1"),
    ("Address2", "street2"),
    ("City", "city"),
    ("State", "state"),
    ("PostalCode", "postal_code"),
    ("Country", "country"),
    ("Phone", "phone"),
)
_ITEM = (("LineItemID", "line_item_key"), ("SKU", "sku"), ("Name", "name"), ("UnitPrice", "unit_price"))
_READ = frozenset(
    {name for name, _ in _TEXTS}
    | {"OrderNumber", "OrderDate", "OrderStatus", "LastModified", "OrderTotal", "Gift", "Customer", "Items"}
    | {"CustomField1", "CustomField2", "CustomField3"}
)
_ITEM_READ = frozenset({name for name, _ in _ITEM} | {"Quantity", "Adjustment", "Options"})
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
MAX_NUMBER_CHARS = 50  # ShipStation's orderNumber


def read_order(element: Any, rules: Rules) -> Found:
    """Read one `Order`. Raises OrderTrouble, and FileTrouble over a limit."""
    node = read_node(element, rules, _LISTS)
    number = order_number(node.get("OrderNumber"), "OrderNumber")
    try:
        return _found(node, number, rules)
    except OrderTrouble as trouble:
        raise OrderTrouble(str(trouble), number=number) from None


def order_number(text: object, name: str) -> str:
    """Check an order's number. Raises OrderTrouble."""
    number = " ".join(text.split()) if isinstance(text, str) else ""
    if not number:
        raise OrderTrouble(f"{name} is missing")
    if len(number) > MAX_NUMBER_CHARS:
        raise OrderTrouble(f"{name} has {len(number):,} characters; limit {MAX_NUMBER_CHARS}", number=number[:80])
    return number


def meaning(word: object, rules: Rules) -> str:
    """Return what a shop's status word means. Raises OrderTrouble for one that is not known."""
    known = rules.words.get(word.lower()) if isinstance(word, str) else None
    if known is None:
        shown = "is missing" if word is None else f"{word!r:.60} is not known; name it in IMPORT_STATUS_WORDS"
        raise OrderTrouble(f"OrderStatus {shown}")
    return known


def time_of(node: Node, name: str, rules: Rules) -> Any:
    """Return a time, None when there is none. Raises OrderTrouble."""
    text = node.get(name)
    if text is None:
        return None
    try:
        return moment(text, rules.zone)
    except (BadMoment, TypeError) as error:
        raise OrderTrouble(f"{name}: {error}") from None


def _found(node: Node, number: str, rules: Rules) -> Found:
    status = meaning(node.get("OrderStatus"), rules)
    version = time_of(node, "LastModified", rules)
    if status == SHIPPED:
        return Found(number=number, version=version, payload={}, is_shipped=True)
    ordered_at = time_of(node, "OrderDate", rules)
    payload: dict[str, Any] = {"status": status}
    if ordered_at is not None:
        payload["order_date"] = ordered_at.isoformat()
    for name, field in _TEXTS:
        value = node.get(name)
        if value is not None:
            payload[field] = value
    total = node.get("OrderTotal")
    if total is not None and status != "awaiting_payment":  # what is not paid yet has no amount paid
        payload["amount_paid"] = total
    gift = node.get("Gift")
    if gift is not None:
        payload["gift"] = _flag(gift)
    _add_customer(payload, node.get("Customer"))
    payload["items"] = [_item(item) for item in _list(node.get("Items"), "Items")]
    fields = {number: text for number in "123" if (text := node.get(f"CustomField{number}")) is not None}
    if fields:
        payload["custom_fields"] = fields
    _keep_others(payload, node, _READ)
    return Found(number=number, version=version, payload=payload)


def _add_customer(payload: dict[str, Any], customer: object) -> None:
    if not isinstance(customer, dict):
        return  # the order's check says that ship_to is missing
    bill_to, ship_to = customer.get("BillTo"), customer.get("ShipTo")
    who = {"username": customer.get("CustomerCode")}
    if isinstance(bill_to, dict):
        who["email"] = bill_to.get("Email")
        if bill_to.get("Name") is not None:
            payload["bill_to"] = _address(bill_to)
    payload["customer"] = {name: value for name, value in who.items() if value is not None}
    if isinstance(ship_to, dict):
        payload["ship_to"] = _address(ship_to)


def _address(node: Node) -> dict[str, Any]:
    return {field: value for name, field in _ADDRESS if (value := node.get(name)) is not None}


def _item(node: Node) -> dict[str, Any]:
    item: dict[str, Any] = {field: value for name, field in _ITEM if (value := node.get(name)) is not None}
    quantity = node.get("Quantity")
    if quantity is not None:
        item["quantity"] = _whole(quantity)
    adjustment = node.get("Adjustment")
    if adjustment is not None:
        item["adjustment"] = _flag(adjustment)
        if item["adjustment"] is True:
            item.setdefault("quantity", 1)
    options = [
        {
            field: value
            for name, field in (("Name", "name"), ("Value", "value"))
            if (value := option.get(name)) is not None
        }
        for option in _list(node.get("Options"), "Options")
    ]
    if options:
        item["options"] = options
    _keep_others(item, node, _ITEM_READ)
    return item


def _keep_others(to: dict[str, Any], node: Node, read: frozenset[str]) -> None:
    others = {name: value for name, value in node.items() if name not in read and value is not None}
    if others:
        to["shop_fields"] = others


def _whole(text: object) -> object:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 16 else text


def _flag(text: object) -> object:
    return _FLAGS.get(text.lower(), text) if isinstance(text, str) else text


def _list(value: object, name: str) -> list[Node]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise OrderTrouble(f"{name} holds text, not elements")
    return value
