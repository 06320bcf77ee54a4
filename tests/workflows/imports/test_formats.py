"""Each format as its documents really look: every element that counts, and what is told when it is wrong."""

import io
import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from workflows.imports import shop

from listener.workflows.imports.found import FileTrouble, Rules
from listener.workflows.imports.reader import Reader
from listener.workflows.order import parse_order

RULES = Rules(zone=UTC)


def read(content: str | bytes, rules: Rules = RULES, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Number → payload of the orders that were taken, and the rejects; version under the key `version`."""
    data = content.encode() if isinstance(content, str) else content
    reader = Reader(io.BytesIO(data), rules, **options)
    found = {}
    for batch in reader.batches():
        for line in batch.rows.decode().splitlines():
            _, number, version, payload = line.split("\t")
            order = json.loads(payload.replace("\\\\", "\\"))
            parse_order(order)  # whatever is taken must be an order
            found[number.replace("\\\\", "\\")] = {"version": version, **order}
    return found, reader.rejects


def reasons(content: str | bytes, rules: Rules = RULES) -> list[str]:
    return [reject["reason"] for reject in read(content, rules)[1]]


# ShipStation's custom store

WHOLE = """<Orders pages="1"><Order>
  <Items><Item>
      <LineItemID>7</LineItemID><SKU>ABC</SKU><Name> Thing &amp; more </Name><Adjustment>false</Adjustment>
      <ImageUrl>https://example.org/a.jpg</ImageUrl><Weight>8</Weight><WeightUnits>Ounces</WeightUnits>
      <Quantity>2</Quantity><UnitPrice>9.99</UnitPrice><UPC>123456789012</UPC><Location>A1</Location>
      <Options><Option><Name>Colour</Name><Value>red</Value><Weight>1</Weight></Option>
        <Option><Name>Size</Name></Option></Options>
    </Item><Item>
      <SKU></SKU><Name>total-discount</Name><Quantity>1</Quantity><UnitPrice>-5.00</UnitPrice><Adjustment>true</Adjustment>
  </Item></Items>
  <Customer><ShipTo><Country>us</Country><Name>A Buyer</Name><Company>C</Company>
      <Address1>1 Main St</Address1><Address2>Apt 2</Address2>
      <City>Austin</City><State>TX</State><PostalCode>01234</PostalCode><Phone>512</Phone></ShipTo>
    <BillTo><Name>B Payer</Name><Company>D</Company><Phone>513</Phone><Email>b@example.org</Email>
      <Address1>2 Main St</Address1></BillTo>
    <CustomerCode>buyer</CustomerCode></Customer>
  <LastModified>12/8/2011 12:56 PM</LastModified><OrderStatus>PROCESSING</OrderStatus>
  <OrderDate>10/18/2019 21:56 PM</OrderDate><OrderID>123456</OrderID><OrderNumber> A-1\t2 </OrderNumber>
  <ShippingMethod>USPSPriorityMail</ShippingMethod><PaymentMethod>Card</PaymentMethod><CurrencyCode>eur</CurrencyCode>
  <OrderTotal>14.98</OrderTotal><TaxAmount>0.10</TaxAmount><ShippingAmount>4.95</ShippingAmount>
  <CustomerNotes><![CDATA[<b>Hi</b> "you" \\ there
line 2]]></CustomerNotes><InternalNotes>n</InternalNotes><Gift>TRUE</Gift><GiftMessage>g</GiftMessage>
  <CustomField1>c1</CustomField1><CustomField2/><CustomField3>c3</CustomField3>
  <RequestedWarehouse>W</RequestedWarehouse><Source>eBay</Source>
  <Dimensions><DimensionUnits>in</DimensionUnits><Length>1</Length></Dimensions><CostOfGoods>3</CostOfGoods>
</Order></Orders>"""


def test_every_element_of_the_custom_store() -> None:
    found, rejects = read(WHOLE)
    assert rejects == []
    assert found == {
        "A-1 2": {
            "version": "2011-12-08T12:56:00+00:00",
            "status": "awaiting_shipment",
            "order_date": "2019-10-18T21:56:00+00:00",
            "tax_amount": "0.10",
            "shipping_amount": "4.95",
            "currency": "eur",
            "payment_method": "Card",
            "requested_shipping_service": "USPSPriorityMail",
            "customer_notes": '<b>Hi</b> "you" \\ there\nline 2',
            "internal_notes": "n",
            "gift_message": "g",
            "source": "eBay",
            "amount_paid": "14.98",
            "gift": True,
            "customer": {"username": "buyer", "email": "b@example.org"},
            "bill_to": {"name": "B Payer", "company": "D", "street1": "2 Main St", "phone": "513"},
            "ship_to": {
                "name": "A Buyer",
                "company": "C",
                "street1": "1 Main St",
                "street2": "Apt 2",
                "city": "Austin",
                "state": "TX",
                "postal_code": "01234",
                "country": "us",
                "phone": "512",
            },
            "items": [
                {
                    "line_item_key": "7",
                    "sku": "ABC",
                    "name": "Thing & more",
                    "unit_price": "9.99",
                    "quantity": 2,
                    "adjustment": False,
                    "options": [{"name": "Colour", "value": "red"}, {"name": "Size"}],
                    "shop_fields": {
                        "ImageUrl": "https://example.org/a.jpg",
                        "Weight": "8",
                        "WeightUnits": "Ounces",
                        "UPC": "123456789012",
                        "Location": "A1",
                    },
                },
                {"name": "total-discount", "unit_price": "-5.00", "quantity": 1, "adjustment": True},
            ],
            "custom_fields": {"1": "c1", "3": "c3"},
            "shop_fields": {
                "OrderID": "123456",
                "RequestedWarehouse": "W",
                "Dimensions": {"DimensionUnits": "in", "Length": "1"},
                "CostOfGoods": "3",
            },
        }
    }


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("paid", "awaiting_shipment"), ("Processing", "awaiting_shipment"), ("unpaid", "awaiting_payment"),
        ("on-hold", "on_hold"), ("pending", "awaiting_payment"),
        ("cancelled", "cancelled"), ("Refunded", "cancelled"), ("awaiting_shipment", "awaiting_shipment"),
    ],
)  # fmt: skip
def test_status_word(word: str, status: str) -> None:
    [order] = read(shop.document([shop.order(status=word)]))[0].values()
    assert order["status"] == status
    assert ("amount_paid" in order) == (status != "awaiting_payment")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("<OrderNumber><![CDATA[N-1]]></OrderNumber>", ""), "OrderNumber is missing"),
        (("N-1]]></OrderNumber>", "N-1" + 50 * "x" + "]]></OrderNumber>"), "OrderNumber has 53 characters; limit 50"),
        (("paid", "mystery"), "OrderStatus 'mystery' is not known; name it in IMPORT_STATUS_WORDS"),
        (("<OrderDate>11/20/2026 14:03</OrderDate>", ""), "order_date: is required"),
        (("11/20/2026 14:03", "20/11/2026 14:03"), "OrderDate: expected a time such as 11/20/2026 14:03"),
        (("11/20/2026 15:03", "soon"), "LastModified: expected a time such as"),
        (("<Quantity>2</Quantity>", "<Quantity>1.5</Quantity>"), "items[0].quantity = '1.5': expected a whole number"),
        (("<Quantity>2</Quantity>", "<Quantity>0</Quantity>"), "items[0].quantity = 0: expected 1 or more"),
        (("13.99", "1,399.00"), "items[0].unit_price = '1,399.00': expected a decimal number"),
        (("13.99", "-1.00"), "items[0].unit_price = '-1.00': expected 0 or more unless adjustment is true"),
        (("123.45", "$123.45"), "amount_paid = '$123.45': expected a decimal number"),
        (("[US]", "[USA]"), "ship_to.country = 'USA': expected exactly 2 letters"),
        (("<City><![CDATA[Austin]]></City>", "<City> </City>"), "ship_to.city: is required"),
        (("<Items>", "<Lines>"), "items = a list of 0: expected at least 1"),
        (("<Gift>false</Gift>", "<Gift>perhaps</Gift>"), "gift = 'perhaps': expected true or false"),
        (("USD", "DOLLAR"), "currency = 'DOLLAR': expected exactly 3 letters"),
        (("Dec. 22nd!", 5_001 * "x"), "customer_notes ="),
        (("Dec. 22nd!", "a\u0085b"), "contains the control character U+0085"),
        (("<Gift>false</Gift>", "<OrderNumber>N-2</OrderNumber>"), "OrderNumber stands there twice, with different"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_reason_of_a_reject(change: tuple[str, str], reason: str) -> None:
    """One of three orders; the others are taken."""
    before, after = change
    bad = shop.order().replace(before, after).replace("</Items>", "</Items>" if after != "<Lines>" else "</Lines>")
    found, rejects = read(shop.document([shop.order("N-8"), bad, shop.order("N-9")]))
    assert sorted(found) == ["N-8", "N-9"]
    assert [(reject["position"], reason in reject["reason"]) for reject in rejects] == [(2, True)], rejects


def test_an_order_inside_an_order_is_none() -> None:
    inner = shop.order("INNER").replace("<Order>", "<Order>")
    found, _ = read(shop.document([shop.order("N-1").replace("<Gift>false</Gift>", f"<Extra>{inner}</Extra>")]))
    assert list(found) == ["N-1"]


def test_times_are_of_the_shops_zone() -> None:
    [order] = read(shop.document([shop.order()]), Rules(zone=ZoneInfo("America/Chicago")))[0].values()
    assert order["version"] == datetime(2026, 11, 20, 21, 3, tzinfo=UTC).isoformat()


# cXML

CXML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE cXML SYSTEM "http://xml.cxml.org/schemas/cXML/1.2.014/cXML.dtd">
<cXML payloadID="1@example.org" timestamp="2026-11-20T15:03:00-06:00">
 <Header><From><Credential domain="DUNS"><Identity>1</Identity></Credential></From></Header>
 <Request deploymentMode="production"><OrderRequest>
  <OrderRequestHeader orderID="PO-77" orderDate="2026-11-20T14:03:00-06:00" type="{kind}" orderVersion="2">
   <Total><Money currency="USD">120.00</Money></Total>
   <ShipTo><Address isoCountryCode="US" addressID="12"><Name xml:lang="en">Examples Inc.</Name>
     <PostalAddress name="default"><DeliverTo>A Buyer</DeliverTo><DeliverTo>Dock 4</DeliverTo>
       <Street>1 Main St</Street><Street>Floor 2</Street>
       <City>Austin</City><State isoStateCode="TX">Texas</State><PostalCode>78701</PostalCode>
       <Country isoCountryCode="US">United States</Country></PostalAddress>
     <Phone><TelephoneNumber><CountryCode isoCountryCode="US">1</CountryCode><AreaOrCityCode>512</AreaOrCityCode>
       <Number>5550100</Number></TelephoneNumber></Phone></Address></ShipTo>
   <BillTo><Address><Name>Examples Inc. Accounts</Name><Email>ap@example.org</Email></Address></BillTo>
   <Shipping><Money currency="USD">5.00</Money><Description>Ground</Description></Shipping>
   <Tax><Money currency="USD">1.00</Money></Tax><Comments>Ring twice</Comments>
  </OrderRequestHeader>
  <ItemOut quantity="10.000" lineNumber="1"><ItemID><SupplierPartID>ABC</SupplierPartID></ItemID>
   <ItemDetail><UnitPrice><Money currency="USD">11.40</Money></UnitPrice><Description>Thing</Description>
     <UnitOfMeasure>EA</UnitOfMeasure></ItemDetail></ItemOut>
 </OrderRequest></Request></cXML>"""


def test_cxml_with_its_document_type() -> None:
    found, rejects = read(CXML.format(kind="new"))
    assert rejects == []
    assert found == {
        "PO-77": {
            "version": "2026-11-20T21:03:00+00:00",
            "status": "awaiting_shipment",
            "order_date": "2026-11-20T20:03:00+00:00",
            "customer": {"email": "ap@example.org"},
            "ship_to": {
                "name": "A Buyer",
                "company": "Examples Inc.",
                "street1": "1 Main St",
                "street2": "Floor 2",
                "city": "Austin",
                "state": "TX",
                "postal_code": "78701",
                "country": "US",
                "phone": "1 512 5550100",
            },
            "bill_to": {"name": "Examples Inc. Accounts"},
            "items": [
                {"line_item_key": "1", "sku": "ABC", "name": "Thing", "quantity": 10, "unit_price": "11.40"},
            ],
            "amount_paid": "120.00",
            "tax_amount": "1.00",
            "shipping_amount": "5.00",
            "currency": "USD",
            "requested_shipping_service": "Ground",
            "customer_notes": "Ring twice",
            "shop_fields": {"order_version": "2"},
        }
    }


def test_cxml_delete_cancels_and_an_unknown_type_is_rejected() -> None:
    assert read(CXML.format(kind="delete"))[0]["PO-77"]["status"] == "cancelled"
    assert reasons(CXML.format(kind="sample")) == ["type 'sample' is not known; known: new, update, delete"]
    assert reasons(CXML.format(kind="new").replace('quantity="10.000"', 'quantity="2.5"')) == [
        "items[0].quantity = '2.5': expected a whole number"
    ]


# UBL

UBL = """<Order xmlns="urn:oasis:names:specification:ubl:schema:xsd:Order-2"
 xmlns:a="urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
 xmlns:b="urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2">
 <b:UBLVersionID>2.1</b:UBLVersionID><b:ID>34</b:ID><b:IssueDate>2026-11-20</b:IssueDate><b:IssueTime>12:30:00Z</b:IssueTime>
 <b:Note>Ring twice</b:Note><b:DocumentCurrencyCode>EUR</b:DocumentCurrencyCode>
 <a:BuyerCustomerParty><a:Party><a:PartyName><b:Name>Beispiel GmbH</b:Name></a:PartyName>
   <a:PostalAddress><b:StreetName>Hauptstr.</b:StreetName><b:BuildingNumber>1</b:BuildingNumber><b:CityName>Berlin</b:CityName>
     <b:PostalZone>10115</b:PostalZone><a:Country><b:IdentificationCode>DE</b:IdentificationCode></a:Country></a:PostalAddress>
   <a:Contact><b:Name>Eva Käufer</b:Name><b:Telephone>030</b:Telephone>
     <b:ElectronicMail>eva@example.org</b:ElectronicMail></a:Contact>
 </a:Party></a:BuyerCustomerParty>
 <a:Delivery><a:DeliveryLocation><a:Address><b:StreetName>Nebenstr.</b:StreetName><b:BuildingNumber>2</b:BuildingNumber>
   <b:CityName>Köln</b:CityName><b:PostalZone>50667</b:PostalZone><a:Country><b:IdentificationCode>DE</b:IdentificationCode></a:Country>
 </a:Address></a:DeliveryLocation></a:Delivery>
 <a:TaxTotal><b:TaxAmount currencyID="EUR">19.00</b:TaxAmount></a:TaxTotal>
 <a:AnticipatedMonetaryTotal><b:PayableAmount currencyID="EUR">119.00</b:PayableAmount></a:AnticipatedMonetaryTotal>
 <a:OrderLine><a:LineItem><b:ID>1</b:ID><b:Quantity unitCode="C62">5</b:Quantity>
   <a:Price><b:PriceAmount currencyID="EUR">20.00</b:PriceAmount></a:Price>
   <a:Item><b:Name>Ding</b:Name><a:SellersItemIdentification><b:ID>ABC</b:ID></a:SellersItemIdentification></a:Item>
 </a:LineItem></a:OrderLine></Order>"""


def test_ubl_order() -> None:
    found, rejects = read(UBL)
    assert rejects == []
    assert found == {
        "34": {
            "version": "2026-11-20T12:30:00+00:00",
            "status": "awaiting_shipment",
            "order_date": "2026-11-20T12:30:00+00:00",
            "customer": {"email": "eva@example.org"},
            "ship_to": {
                "name": "Eva Käufer",
                "company": "Beispiel GmbH",
                "street1": "Nebenstr. 2",
                "city": "Köln",
                "postal_code": "50667",
                "country": "DE",
                "phone": "030",
            },
            "bill_to": {
                "name": "Eva Käufer",
                "company": "Beispiel GmbH",
                "street1": "Hauptstr. 1",
                "city": "Berlin",
                "postal_code": "10115",
                "country": "DE",
                "phone": "030",
            },
            "items": [{"line_item_key": "1", "sku": "ABC", "name": "Ding", "quantity": 5, "unit_price": "20.00"}],
            "amount_paid": "119.00",
            "tax_amount": "19.00",
            "currency": "EUR",
            "customer_notes": "Ring twice",
        }
    }


# other roots

KNOWN = "known: Orders (ShipStation custom store), cXML (cXML OrderRequest), "


@pytest.mark.parametrize(
    "content",
    ["<html><Orders/></html>", "<Order/>", '<Orders xmlns="urn:x"/>', UBL.replace(":Order-2", ":OrderChange-2")],
)
def test_an_unknown_root_is_told_with_what_is_known(content: str) -> None:
    with pytest.raises(
        FileTrouble, match=r"^the root element is .*, which is no format that is known; known: "
    ) as trouble:
        read(content)
    assert KNOWN in str(trouble.value)
