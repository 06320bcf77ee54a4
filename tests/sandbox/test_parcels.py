"""Shipments, fulfillments, voids, and the small lists."""

import pytest

from sandbox.server import Client, order


@pytest.fixture
def order_id(api: Client) -> int:
    return int(api.create(order()).json()["results"][0]["orderId"])


def test_a_label_ships_the_order(api: Client, order_id: int) -> None:
    made = api.control("POST", "ship", {"orderId": order_id, "trackingNumber": "1Z9", "shipDate": "2031-02-03"})
    shipment = api.get("/shipments")["shipments"][0]
    assert (shipment["shipmentId"], shipment["orderKey"]) == (made["shipmentId"], "shop-1001")
    assert (shipment["trackingNumber"], shipment["shipDate"], shipment["voided"]) == ("1Z9", "2031-02-03", False)
    stored = api.get(f"/orders/{order_id}")
    assert (stored["orderStatus"], stored["shipDate"]) == ("shipped", "2031-02-03")
    assert api.get("/fulfillments")["total"] == 0


def test_shipment_items_come_only_on_demand(api: Client, order_id: int) -> None:
    api.control("POST", "ship", {"orderId": order_id})
    assert api.get("/shipments")["shipments"][0]["shipmentItems"] is None
    items = api.get("/shipments", includeShipmentItems="true")["shipments"][0]["shipmentItems"]
    assert [(item["sku"], item["quantity"]) for item in items] == [("ABC", 2)]


def test_markasshipped_makes_a_fulfillment_and_repeats_make_more(api: Client, order_id: int) -> None:
    body = {"orderId": order_id, "carrierCode": "ups", "trackingNumber": "T1", "notifySalesChannel": True}
    for _ in range(2):
        reply = api.http.post("/orders/markasshipped", json=body)
        assert reply.json() == {"orderId": order_id, "orderNumber": "1001"}
    fulfillments = api.get("/fulfillments", orderNumber="1001")["fulfillments"]
    assert [each["trackingNumber"] for each in fulfillments] == ["T1", "T1"]
    assert fulfillments[0]["marketplaceNotified"] is True
    assert api.get("/shipments")["total"] == 0
    stored = api.get(f"/orders/{order_id}")
    assert (stored["orderStatus"], stored["externallyFulfilled"]) == ("shipped", True)


def test_markasshipped_refuses(api: Client, order_id: int) -> None:
    assert api.http.post("/orders/markasshipped", json={"orderId": 1, "carrierCode": "ups"}).status_code == 404
    assert api.http.post("/orders/markasshipped", json={"orderId": order_id}).status_code == 400
    wrong_date = {"orderId": order_id, "carrierCode": "ups", "shipDate": "soon"}
    assert api.http.post("/orders/markasshipped", json=wrong_date).status_code == 400
    assert api.http.post("/orders/markasshipped", json=[]).status_code == 400
    api.create(order(orderStatus="cancelled"))
    assert api.http.post("/orders/markasshipped", json={"orderId": order_id, "carrierCode": "ups"}).status_code == 400


def test_a_void_is_found_by_void_date_only(api: Client, order_id: int) -> None:
    api.control("POST", "ship", {"orderId": order_id, "createDate": "2020-01-01 00:00:00"})
    assert api.get("/shipments", voidDateStart="2000-01-01")["total"] == 0
    voided = api.control("POST", "void", {"orderKey": "shop-1001"})
    assert api.get("/shipments", createDateStart="2021-01-01")["total"] == 0
    found = api.get("/shipments", voidDateStart="2021-01-01")["shipments"]
    assert [(each["shipmentId"], each["voided"]) for each in found] == [(voided["shipmentId"], True)]
    assert found[0]["voidDate"] is not None
    assert api.get(f"/orders/{order_id}")["orderStatus"] == "awaiting_shipment"
    api.control("POST", "void", {"shipmentId": voided["shipmentId"]}, status=400)
    api.control("POST", "void", {"orderKey": "shop-1001"}, status=404)


def test_return_labels_stay_in_the_list_and_ship_nothing(api: Client, order_id: int) -> None:
    api.control("POST", "ship", {"orderId": order_id, "isReturnLabel": True})
    assert api.get(f"/orders/{order_id}")["orderStatus"] == "awaiting_shipment"
    first = api.control("POST", "ship", {"orderId": order_id})
    api.control("POST", "void", {"shipmentId": first["shipmentId"]})
    assert api.get(f"/orders/{order_id}")["orderStatus"] == "awaiting_shipment"
    shipments = api.get("/shipments", orderId=order_id)["shipments"]
    assert [(each["isReturnLabel"], each["voided"]) for each in shipments] == [(True, False), (False, True)]


def test_an_order_with_another_label_stays_shipped(api: Client, order_id: int) -> None:
    first = api.control("POST", "ship", {"orderId": order_id})
    api.control("POST", "ship", {"orderId": order_id, "fulfillment": True, "trackingNumber": "F"})
    api.control("POST", "void", {"shipmentId": first["shipmentId"]})
    assert api.get(f"/orders/{order_id}")["orderStatus"] == "shipped"
    fulfillment = api.get("/fulfillments")["fulfillments"][0]
    assert api.control("POST", "void", {"fulfillmentId": fulfillment["fulfillmentId"]})["voided"] is True
    assert api.get(f"/orders/{order_id}")["orderStatus"] == "awaiting_shipment"


def test_shipment_filters(api: Client) -> None:
    api.create(order("1"), order("10", shipTo={"name": "Zoe", "country": "CA"}, advancedOptions={"storeId": 7}))
    api.control("POST", "ship", {"orderNumber": "1", "shipDate": "2031-01-02", "carrierCode": "ups"})
    api.control("POST", "ship", {"orderNumber": "10", "shipDate": "2031-01-01", "trackingNumber": "T2"})

    def found(**query: object) -> list[str]:
        return [each["orderNumber"] for each in api.get("/shipments", **query)["shipments"]]

    assert found(orderNumber="1") == ["1"]
    assert found(trackingNumber="T2") == found(recipientName="zoe") == found(storeId=7) == ["10"]
    assert found(carrierCode="ups") == found(shipDateStart="2031-01-02") == ["1"]
    assert found(recipientCountryCode="CA") == found(shipDateEnd="2031-01-01") == ["10"]
    assert found(sortBy="ShipDate") == ["10", "1"]
    assert found(sortBy="CreateDate") == ["1", "10"]
    assert found(pageSize=1, page=2, sortBy="CreateDate", sortDir="DESC") == ["1"]


def test_stores_and_carriers(api: Client) -> None:
    assert [store["storeId"] for store in api.get("/stores")] == [12345]
    assert "fedex" in {carrier["code"] for carrier in api.get("/carriers")}


def test_webhooks(api: Client) -> None:
    body = {"target_url": "https://example.org/hook", "event": "ORDER_NOTIFY", "store_id": None, "friendly_name": "x"}
    made = api.http.post("/webhooks/subscribe", json=body).json()
    (listed,) = api.get("/webhooks")["webhooks"]
    assert (listed["WebHookID"], listed["HookType"], listed["Url"]) == (made["id"], "ORDER_NOTIFY", body["target_url"])
    assert api.http.post("/webhooks/subscribe", json={**body, "event": "NEWS"}).status_code == 400
    assert api.http.delete(f"/webhooks/{made['id']}").status_code == 200
    assert api.http.delete(f"/webhooks/{made['id']}").status_code == 404
    assert api.get("/webhooks") == {"webhooks": []}
