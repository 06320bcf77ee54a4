"""cXML: `cXML/Request/OrderRequest`. Its document type is not loaded. `type="delete"` cancels. Pure."""

from typing import Any

from listener.workflows.imports.formats.figures import order_number, time_of, whole_decimal
from listener.workflows.imports.formats.tree import Elements, compact, require_plain
from listener.workflows.imports.found import Found, OrderTrouble, Rules

ROOT, ORDER, LEVEL = "cXML", "OrderRequest", 2
_STATUS = {"new": "awaiting_shipment", "update": "awaiting_shipment", "delete": "cancelled"}


def read_order(element: Any, rules: Rules) -> Found:
    """Read one `OrderRequest`; its version is the document's time. Raises OrderTrouble, FileTrouble over a limit."""
    require_plain(element, rules, LEVEL)
    request = Elements(element, {})
    header = request.first("OrderRequestHeader")
    if header is None:
        raise OrderTrouble("OrderRequestHeader is missing")
    number = order_number(header.attribute(".", "orderID"), "orderID")
    try:
        sent_at = time_of(element.getroottree().getroot().get("timestamp"), "timestamp", rules)
        return Found(number=number, version=sent_at, payload=_payload(request, header, rules))
    except OrderTrouble as trouble:
        raise OrderTrouble(str(trouble), number=number) from None


def _payload(request: Elements, header: Elements, rules: Rules) -> dict[str, Any]:
    kind = header.attribute(".", "type") or "new"
    if kind not in _STATUS:
        raise OrderTrouble(f"type {kind!r:.60} is not known; known: {', '.join(_STATUS)}")
    ship_to, bill_to = header.first("ShipTo/Address"), header.first("BillTo/Address")
    email = header.text("Contact/Email", "BillTo/Address/Email", "ShipTo/Address/Email")
    return compact(
        status=_STATUS[kind],
        order_date=time_of(header.attribute(".", "orderDate"), "orderDate", rules),
        customer=compact(email=email) or None,
        ship_to=None if ship_to is None else _address(ship_to),
        bill_to=_named(None if bill_to is None else _address(bill_to)),
        items=[_item(item) for item in request.all("ItemOut")],
        amount_paid=header.text("Total/Money"),
        tax_amount=header.text("Tax/Money"),
        shipping_amount=header.text("Shipping/Money"),
        currency=header.attribute("Total/Money", "currency"),
        requested_shipping_service=header.text("Shipping/Description"),
        customer_notes=header.text("Comments"),
        shop_fields=compact(order_version=header.attribute(".", "orderVersion")) or None,
    )


def _address(address: Elements) -> dict[str, Any]:
    company, people = address.text("Name"), address.texts("PostalAddress/DeliverTo")
    streets = [*address.texts("PostalAddress/Street"), None, None, None]
    name = people[0] if people else company
    return compact(
        name=name,
        company=company if company != name else None,
        street1=streets[0],
        street2=streets[1],
        city=address.text("PostalAddress/City"),
        state=address.attribute("PostalAddress/State", "isoStateCode") or address.text("PostalAddress/State"),
        postal_code=address.text("PostalAddress/PostalCode"),
        country=address.attribute("PostalAddress/Country", "isoCountryCode")
        or address.attribute(".", "isoCountryCode"),
        phone=_phone(address.first("Phone/TelephoneNumber")),
    )


def _named(address: dict[str, Any] | None) -> dict[str, Any] | None:
    return address if address and "name" in address else None


def _phone(number: Elements | None) -> str | None:
    if number is None:
        return None
    parts = [number.text(name) for name in ("CountryCode", "AreaOrCityCode", "Number")]
    return " ".join(part for part in parts if part) or None


def _item(item: Elements) -> dict[str, Any]:
    description = item.text("ItemDetail/Description", "ItemDetail/Description/ShortName")
    sku = item.text("ItemID/SupplierPartID")
    return compact(
        line_item_key=item.attribute(".", "lineNumber"),
        sku=sku,
        name=(description or sku or "")[:250] or None,
        quantity=whole_decimal(item.attribute(".", "quantity")),
        unit_price=item.text("ItemDetail/UnitPrice/Money"),
        tax_amount=item.text("Tax/Money"),
    )
