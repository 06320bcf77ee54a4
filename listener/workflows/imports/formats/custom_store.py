"""ShipStation's custom store XML: `<Orders><Order>…`. Children come in any order; unknown ones are kept. Pure."""

from typing import Any

from listener.workflows.imports.formats.figures import order_number, time_of, whole
from listener.workflows.imports.formats.tree import read_node, split
from listener.workflows.imports.found import Found, OrderTrouble, Rules
from listener.workflows.imports.words import SHIPPED

ROOT, ORDER, LEVEL = "Orders", "Order", 1
# Element → field, for texts that are taken as they are.
_ORDER = {
    "TaxAmount": "tax_amount",
    "ShippingAmount": "shipping_amount",
    "CurrencyCode": "currency",
    "PaymentMethod": "payment_method",
    "ShippingMethod": "requested_shipping_service",
    "CustomerNotes": "customer_notes",
    "InternalNotes": "internal_notes",
    "GiftMessage": "gift_message",
    "Source": "source",
}
_CUSTOM = {"CustomField1": "1", "CustomField2": "2", "CustomField3": "3"}
_ELSEWHERE = frozenset({"OrderNumber", "OrderDate", "OrderStatus", "LastModified", "OrderTotal", "Gift"})
_ADDRESS = {
    "Name": "name",
    "Company": "company",
    "Address1": "street1",
    "Address2": "street2",
    "City": "city",
    "State": "state",
    "PostalCode": "postal_code",
    "Country": "country",
    "Phone": "phone",
}
_ITEM = {"LineItemID": "line_item_key", "SKU": "sku", "Name": "name", "UnitPrice": "unit_price"}
_OPTION = {"Name": "name", "Value": "value"}
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
# Depth of what is in an order, and in an item.
_ORDER_DEPTH, _ITEM_DEPTH = 2, 4


def read_order(element: Any, rules: Rules) -> Found:
    """Read one `Order`. Raises OrderTrouble, and FileTrouble over a limit."""
    texts, inner = split(element, rules)
    number = order_number(texts.get("OrderNumber"), "OrderNumber")
    try:
        return _found(texts, inner, number, rules)
    except OrderTrouble as trouble:
        raise OrderTrouble(str(trouble), number=number) from None


def meaning(word: object, rules: Rules) -> str:
    """Return what a shop's status word means. Raises OrderTrouble for one that is not known."""
    known = rules.words.get(word.lower()) if isinstance(word, str) else None
    if known is None:
        shown = "is missing" if word is None else f"{word!r:.60} is not known; name it in IMPORT_STATUS_WORDS"
        raise OrderTrouble(f"OrderStatus {shown}")
    return known


def _found(texts: dict[str, str], inner: dict[str, Any], number: str, rules: Rules) -> Found:
    status = meaning(texts.get("OrderStatus"), rules)
    version = time_of(texts.get("LastModified"), "LastModified", rules)
    if status == SHIPPED:
        return Found(number=number, version=version, payload={}, is_shipped=True)
    payload: dict[str, Any] = {"status": status}
    ordered_at = time_of(texts.get("OrderDate"), "OrderDate", rules)
    if ordered_at is not None:
        payload["order_date"] = ordered_at
    others: dict[str, Any] = {}
    for tag, text in texts.items():
        if tag in _ORDER:
            payload[_ORDER[tag]] = text
        elif tag in _CUSTOM:
            payload.setdefault("custom_fields", {})[_CUSTOM[tag]] = text
        elif tag not in _ELSEWHERE:
            others[tag] = text
    if "OrderTotal" in texts and status != "awaiting_payment":  # what is not paid yet has no amount paid
        payload["amount_paid"] = texts["OrderTotal"]
    if "Gift" in texts:
        payload["gift"] = _flag(texts["Gift"])
    for tag, child in inner.items():
        if tag == "Customer":
            _add_customer(payload, child, rules)
        elif tag == "Items":
            payload["items"] = [_item(item, rules) for item in child]
        else:
            others[tag] = read_node(child, rules, _ORDER_DEPTH + 1)
    payload.setdefault("items", [])
    if others:
        payload["shop_fields"] = others
    return Found(number=number, version=version, payload=payload)


def _add_customer(payload: dict[str, Any], customer: Any, rules: Rules) -> None:
    texts, inner = split(customer, rules)
    who = {"username": texts["CustomerCode"]} if "CustomerCode" in texts else {}
    if "BillTo" in inner:
        bill_to = _texts(inner["BillTo"], rules)
        if "Email" in bill_to:
            who["email"] = bill_to["Email"]
        if "Name" in bill_to:
            payload["bill_to"] = {_ADDRESS[tag]: text for tag, text in bill_to.items() if tag in _ADDRESS}
    payload["customer"] = who
    if "ShipTo" in inner:
        ship_to = _texts(inner["ShipTo"], rules)
        payload["ship_to"] = {_ADDRESS[tag]: text for tag, text in ship_to.items() if tag in _ADDRESS}


def _item(element: Any, rules: Rules) -> dict[str, Any]:
    texts, inner = split(element, rules)
    item: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for tag, text in texts.items():
        if tag in _ITEM:
            item[_ITEM[tag]] = text
        elif tag == "Quantity":
            item["quantity"] = whole(text)
        elif tag == "Adjustment":
            item["adjustment"] = _flag(text)
        else:
            others[tag] = text
    if item.get("adjustment") is True:
        item.setdefault("quantity", 1)
    for tag, child in inner.items():
        if tag == "Options":
            item["options"] = [_option(option, rules) for option in child]
        else:
            others[tag] = read_node(child, rules, _ITEM_DEPTH + 1)
    if others:
        item["shop_fields"] = others
    return item


def _option(element: Any, rules: Rules) -> dict[str, str]:
    texts = _texts(element, rules)
    return {_OPTION[tag]: text for tag, text in texts.items() if tag in _OPTION}


def _texts(element: Any, rules: Rules) -> dict[str, str]:
    """Return the texts of an element whose children should have no children; raises when a text holds an entity."""
    texts, inner = split(element, rules)
    for child in inner.values():
        read_node(child, rules, _ITEM_DEPTH + 1)
    return texts


def _flag(text: str) -> object:
    return _FLAGS.get(text.lower(), text)
