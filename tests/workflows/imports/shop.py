"""A shop that writes ShipStation's custom store XML: one order, or files of any size."""

from collections.abc import Iterable, Iterator
from xml.sax.saxutils import escape

HEAD, FOOT = b'<?xml version="1.0" encoding="utf-8"?>\n<Orders pages="1">\n', b"</Orders>\n"

_ORDER = """  <Order>
    <OrderID><![CDATA[{id}]]></OrderID>
    <OrderNumber><![CDATA[{number}]]></OrderNumber>
    <OrderDate>{date}</OrderDate>
    <OrderStatus><![CDATA[{status}]]></OrderStatus>
    <LastModified>{modified}</LastModified>
    <ShippingMethod><![CDATA[USPSPriorityMail]]></ShippingMethod>
    <PaymentMethod><![CDATA[Credit Card]]></PaymentMethod>
    <CurrencyCode>USD</CurrencyCode>
    <OrderTotal>123.45</OrderTotal>
    <TaxAmount>0.00</TaxAmount>
    <ShippingAmount>4.95</ShippingAmount>
    <CustomerNotes><![CDATA[{notes}]]></CustomerNotes>
    <InternalNotes><![CDATA[Ship by December 18th via Priority Mail.]]></InternalNotes>
    <Gift>false</Gift>
    <GiftMessage></GiftMessage>
    <CustomField1></CustomField1>
    <Customer>
      <CustomerCode><![CDATA[{number}@example.org]]></CustomerCode>
      <BillTo>
        <Name><![CDATA[A Buyer]]></Name>
        <Company><![CDATA[Examples Inc.]]></Company>
        <Phone><![CDATA[512-555-0100]]></Phone>
        <Email><![CDATA[{number}@example.org]]></Email>
      </BillTo>
      <ShipTo>
        <Name><![CDATA[A Buyer]]></Name>
        <Company></Company>
        <Address1><![CDATA[1 Main St]]></Address1>
        <Address2></Address2>
        <City><![CDATA[Austin]]></City>
        <State><![CDATA[TX]]></State>
        <PostalCode><![CDATA[78701]]></PostalCode>
        <Country><![CDATA[{country}]]></Country>
        <Phone><![CDATA[512-555-0100]]></Phone>
      </ShipTo>
    </Customer>
    <Items>
      <Item>
        <SKU><![CDATA[FD88821]]></SKU>
        <Name><![CDATA[My Product Name]]></Name>
        <ImageUrl><![CDATA[https://www.example.org/products/12345.jpg]]></ImageUrl>
        <Weight>8</Weight>
        <WeightUnits>Ounces</WeightUnits>
        <Quantity>{quantity}</Quantity>
        <UnitPrice>13.99</UnitPrice>
        <Location><![CDATA[A1-B2]]></Location>
        <Options>
          <Option>
            <Name><![CDATA[Size]]></Name>
            <Value><![CDATA[Large]]></Value>
            <Weight>10</Weight>
          </Option>
        </Options>
      </Item>
    </Items>
  </Order>
"""


def order(number: object = "N-1", **parts: object) -> str:
    """One `Order` element. parts: id, date, status, modified, notes, country, quantity."""
    given = {
        "id": "",
        "date": "11/20/2026 14:03",
        "status": "paid",
        "modified": "11/20/2026 15:03",
        "notes": "Please make sure it gets here by Dec. 22nd!",
        "country": "US",
        "quantity": 2,
        **parts,
    }
    return _ORDER.format(number=number, **given)


def document(orders: Iterable[str]) -> str:
    """A whole file, as a text."""
    return "".join([HEAD.decode(), *orders, FOOT.decode()])


def numbered(count: int, *, first: int = 1, **parts: object) -> str:
    """A file of `count` orders N-1, N-2, …"""
    return document(order(f"N-{n}", **parts) for n in range(first, first + count))


def stream(count: int) -> Iterator[bytes]:
    """A file of any size, piece by piece."""
    yield HEAD
    for first in range(0, count, 1_000):
        yield "".join(order(f"N-{n:08}") for n in range(first, min(first + 1_000, count))).encode()
    yield FOOT


def element(name: str, text: str) -> str:
    """One element with a text."""
    return f"<{name}>{escape(text)}</{name}>"
