"""UBL 2.x `Order`: one order is the whole document; its version is its time of issue. Pure."""

from typing import Any

from listener.workflows.imports.formats.figures import order_number, time_of, whole_decimal
from listener.workflows.imports.formats.tree import Elements, compact, require_plain
from listener.workflows.imports.found import Found, OrderTrouble, Rules

_BASE = "urn:oasis:names:specification:ubl:schema:xsd:"
_SPACES = {"cac": f"{_BASE}CommonAggregateComponents-2", "cbc": f"{_BASE}CommonBasicComponents-2"}
ROOT = ORDER = f"{{{_BASE}Order-2}}Order"
LEVEL = 0


def read_order(element: Any, rules: Rules) -> Found:
    """Read the `Order`. Raises OrderTrouble, and FileTrouble over a limit."""
    require_plain(element, rules, LEVEL)
    order = Elements(element, _SPACES)
    number = order_number(order.text("cbc:ID"), "cbc:ID")
    try:
        day, clock = order.text("cbc:IssueDate"), order.text("cbc:IssueTime")
        issued_at = time_of(f"{day}T{clock}" if day and clock else day, "cbc:IssueDate", rules)
        payload = _payload(order)
        if issued_at is not None:
            payload["order_date"] = issued_at
        return Found(number=number, version=issued_at, payload=payload)
    except OrderTrouble as trouble:
        raise OrderTrouble(str(trouble), number=number) from None


def _payload(order: Elements) -> dict[str, Any]:
    buyer = order.first("cac:BuyerCustomerParty/cac:Party")
    payer = order.first("cac:AccountingCustomerParty/cac:Party")
    delivery = order.first("cac:Delivery")
    email = buyer.text("cac:Contact/cbc:ElectronicMail") if buyer is not None else None
    bill_to = _party(payer if payer is not None else buyer)
    return compact(
        status="awaiting_shipment",
        customer=compact(email=email) or None,
        ship_to=_ship_to(delivery, buyer),
        bill_to=bill_to if bill_to and "name" in bill_to else None,
        items=[_item(line) for line in order.all("cac:OrderLine/cac:LineItem")],
        amount_paid=order.text("cac:AnticipatedMonetaryTotal/cbc:PayableAmount"),
        tax_amount=order.text("cac:TaxTotal/cbc:TaxAmount"),
        currency=order.text("cbc:DocumentCurrencyCode"),
        customer_notes=order.text("cbc:Note"),
    )


def _ship_to(delivery: Elements | None, buyer: Elements | None) -> dict[str, Any]:
    """The place of delivery; where the document names none, the buyer's own."""
    if delivery is None:
        return _party(buyer)
    place = delivery.first("cac:DeliveryLocation/cac:Address", "cac:DeliveryAddress")
    receiver = _party(delivery.first("cac:DeliveryParty"))
    return {**_party(buyer), **receiver, **({} if place is None else _address(place))}


def _party(party: Elements | None) -> dict[str, Any]:
    if party is None:
        return {}
    address = party.first("cac:PostalAddress")
    company, person = party.text("cac:PartyName/cbc:Name"), party.text("cac:Contact/cbc:Name")
    return compact(
        name=person or company,
        company=company if person else None,
        phone=party.text("cac:Contact/cbc:Telephone"),
        **({} if address is None else _address(address)),
    )


def _address(address: Elements) -> dict[str, Any]:
    street, house = address.text("cbc:StreetName"), address.text("cbc:BuildingNumber")
    return compact(
        street1=f"{street} {house}" if street and house else street,
        street2=address.text("cbc:AdditionalStreetName"),
        city=address.text("cbc:CityName"),
        state=address.text("cbc:CountrySubentityCode", "cbc:CountrySubentity"),
        postal_code=address.text("cbc:PostalZone"),
        country=address.text("cac:Country/cbc:IdentificationCode"),
    )


def _item(line: Elements) -> dict[str, Any]:
    sku = line.text("cac:Item/cac:SellersItemIdentification/cbc:ID", "cac:Item/cac:StandardItemIdentification/cbc:ID")
    return compact(
        line_item_key=line.text("cbc:ID"),
        sku=sku,
        name=(line.text("cac:Item/cbc:Name", "cac:Item/cbc:Description") or "")[:250] or None,
        quantity=whole_decimal(line.text("cbc:Quantity")),
        unit_price=line.text("cac:Price/cbc:PriceAmount"),
        tax_amount=line.text("cac:TaxTotal/cbc:TaxAmount"),
    )
