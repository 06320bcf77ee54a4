"""Writing orders: the upsert, what is refused, and what a reply says."""

import pytest

from sandbox.server import Client, order


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic bm86bm8="}, {"Authorization": "Bearer x"}])
def test_wrong_credentials_are_refused_with_401(api: Client, headers: dict[str, str]) -> None:
    reply = api.anonymous.get("/orders", headers=headers)
    assert (reply.status_code, reply.json()) == (401, {"message": "Unauthorized"})


def test_a_new_key_creates_and_a_known_key_updates(api: Client) -> None:
    first = api.create(order()).json()
    assert first["hasErrors"] is False
    assert first["results"] == [
        {
            "orderId": first["results"][0]["orderId"],
            "orderKey": "shop-1001",
            "orderNumber": "1001",
            "success": True,
            "errorMessage": None,
        }
    ]
    second = api.create(order(amountPaid=5)).json()
    assert second["results"][0]["orderId"] == first["results"][0]["orderId"]
    held = api.held()["shop-1001"]
    assert (len(api.held()), held["writes"]) == (1, 2)


def test_an_order_without_key_gets_one_and_a_blind_repeat_makes_a_duplicate(api: Client) -> None:
    bare = {name: value for name, value in order().items() if name != "orderKey"}
    keys = {api.create(bare).json()["results"][0]["orderKey"] for _ in range(2)}
    assert len(keys) == 2
    assert set(api.held()) == keys


def test_the_same_key_twice_in_one_batch_is_one_order(api: Client) -> None:
    results = api.create(order(), order(amountPaid=1)).json()["results"]
    assert results[0]["orderId"] == results[1]["orderId"]
    assert len(api.held()) == 1


def test_an_order_id_also_updates_and_the_key_stays(api: Client) -> None:
    order_id = api.create(order()).json()["results"][0]["orderId"]
    stored = api.http.post("/orders/createorder", json=order(orderId=order_id, orderKey="other", amountPaid=3)).json()
    assert (stored["orderId"], stored["orderKey"], stored["amountPaid"]) == (order_id, "shop-1001", 3)
    assert api.http.post("/orders/createorder", json=order(orderId=1)).status_code == 404


def test_createorder_replies_with_the_whole_order(api: Client) -> None:
    stored = api.http.post("/orders/createorder", json=order(taxAmount=1.1, shippingAmount="2.2")).json()
    assert stored["orderTotal"] == 23.28
    assert stored["modifyDate"] == stored["createDate"]
    assert stored["advancedOptions"]["storeId"] == 12345
    assert stored["items"][0]["orderItemId"] > 0
    assert stored["customerEmail"] is None
    assert stored["shipTo"]["addressVerified"] == "Address not yet validated"
    assert api.get(f"/orders/{stored['orderId']}") == stored


def test_missing_fields_are_cleared_and_the_store_stays(api: Client) -> None:
    api.create(order(customerEmail="a@example.org", customerNotes="ring twice", gift=True))
    changed = {name: value for name, value in order().items() if name not in ("items", "advancedOptions")}
    api.create({**changed, "advancedOptions": {"storeId": 999}})
    stored = api.get("/orders")["orders"][0]
    assert (stored["customerEmail"], stored["customerNotes"], stored["gift"]) == (None, None, False)
    assert (stored["items"], stored["orderTotal"]) == ([], 0)
    assert (stored["advancedOptions"]["storeId"], stored["advancedOptions"]["customField1"]) == (12345, None)
    assert stored["modifyDate"] > stored["createDate"]


@pytest.mark.parametrize("status", ["shipped", "cancelled"])
def test_shipped_and_cancelled_orders_are_refused_one_by_one(api: Client, status: str) -> None:
    api.create(order(orderStatus=status))
    reply = api.create(order(), order("1002"))
    results = {each["orderKey"]: each for each in reply.json()["results"]}
    assert (reply.status_code, reply.json()["hasErrors"]) == (200, True)
    assert results["shop-1001"]["success"] is False
    assert results["shop-1001"]["orderId"] is None
    assert status in results["shop-1001"]["errorMessage"]
    assert results["shop-1002"]["success"] is True
    assert api.held()["shop-1001"]["writes"] == 1
    assert api.http.post("/orders/createorder", json=order()).status_code == 400


@pytest.mark.parametrize("status", ["awaiting_payment", "awaiting_shipment", "pending_fulfillment", "on_hold"])
def test_open_orders_can_be_cancelled(api: Client, status: str) -> None:
    api.create(order(orderStatus=status))
    assert api.create(order(orderStatus="cancelled")).json()["hasErrors"] is False
    assert api.held()["shop-1001"]["orderStatus"] == "cancelled"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shipTo": {"name": "", "country": "US"}}, "'Ship Name' must not be empty."),
        ({"shipTo": {"name": "A", "country": "USA"}}, "Please use a 2 character country code"),
        ({"billTo": {"city": "Austin"}}, "'Bill Name' must not be empty."),
        ({"billTo": None}, "'Bill To' must not be empty."),
        ({"orderNumber": ""}, "'Order Number' must not be empty."),
        ({"orderDate": None}, "'Order Date' must not be empty."),
        ({"orderStatus": None}, "'Order Status' must not be empty."),
        ({"orderStatus": "sold"}, "'sold' is not a valid order status."),
        ({"items": [{"sku": "A", "quantity": 1}]}, "'Item Name' must not be empty."),
        ({"orderKey": "k" * 51}, "The field orderKey must be a string with a maximum length of 50."),
    ],
)
def test_a_wrong_order_fails_alone_at_http_200(api: Client, changes: dict[str, object], text: str) -> None:
    reply = api.create(order("1"), order("2", **changes), order("3"))
    assert (reply.status_code, reply.json()["hasErrors"]) == (200, True)
    assert [each["success"] for each in reply.json()["results"]] == [True, False, True]
    assert reply.json()["results"][1]["errorMessage"] == text
    assert len(api.held()) == 2
    single = api.http.post("/orders/createorder", json=order("2", **changes))
    assert (single.status_code, single.json()) == (400, {"Message": text})


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"shipTo": "Austin"}, "[1].shipTo"),
        ({"items": {"sku": "A"}}, "[1].items"),
        ({"items": [{"name": "A", "quantity": "two"}]}, "[1].items[0].quantity"),
        ({"items": [{"name": "A", "quantity": 1.5}]}, "[1].items[0].quantity"),
        ({"items": [{"name": "A", "quantity": 2**31}]}, "[1].items[0].quantity"),
        ({"items": [None]}, "[1].items[0]"),
        ({"amountPaid": "much"}, "[1].amountPaid"),
        ({"amountPaid": 10**400}, "[1].amountPaid"),
        ({"amountPaid": True}, "[1].amountPaid"),
        ({"orderDate": "yesterday"}, "[1].orderDate"),
        ({"orderDate": 20250123}, "[1].orderDate"),
        ({"gift": "maybe"}, "[1].gift"),
        ({"orderNumber": ["1001"]}, "[1].orderNumber"),
    ],
)
def test_a_wrong_json_type_rejects_the_whole_body(api: Client, changes: dict[str, object], path: str) -> None:
    reply = api.create(order("1"), order("2", **changes), order("3"))
    assert reply.status_code == 400
    assert f"Path '{path}'" in reply.json()["Message"]
    assert api.held() == {}


@pytest.mark.parametrize("body", [b"{", b'{"a": 1}', b'"text"', b"\xff", b"[NaN]", b"", b"[null]", b"[" * 100_000])
def test_a_body_that_is_no_array_of_orders_is_a_400(api: Client, body: bytes) -> None:
    reply = api.http.post("/orders/createorders", content=body)
    assert reply.status_code == 400
    assert "Message" in reply.json()


def test_harmless_types_are_read_as_the_real_api_reads_them(api: Client) -> None:
    item = {"sku": 12, "name": "A", "quantity": "3", "unitPrice": "2.50"}
    odd = order(
        "7", orderNumber=7, gift="true", items=[item], unknownField={"a": 1}, customerUsername="\x00 \U0001f600"
    )
    assert api.create(odd).json()["hasErrors"] is False
    stored = api.get("/orders")["orders"][0]
    assert (stored["orderNumber"], stored["gift"], stored["orderTotal"]) == ("7", True, 7.5)
    assert (stored["items"][0]["sku"], stored["items"][0]["quantity"]) == ("12", 3)
    assert stored["customerUsername"] == "\x00 \U0001f600"
    assert "unknownField" not in stored


def test_zero_quantity_and_an_empty_sku_are_nobodys_business(api: Client) -> None:
    reply = api.create(order(items=[{"sku": "", "name": "A", "quantity": 0, "unitPrice": -5, "adjustment": True}]))
    assert reply.json()["hasErrors"] is False


def test_a_batch_takes_100_orders_and_not_101(api: Client) -> None:
    assert api.create(*(order(str(n)) for n in range(101))).status_code == 400
    assert api.held() == {}
    reply = api.create(*(order(str(n)) for n in range(100)))
    assert (reply.status_code, len(reply.json()["results"])) == (200, 100)


def test_a_deleted_order_is_gone_and_its_key_is_free(api: Client) -> None:
    order_id = api.create(order()).json()["results"][0]["orderId"]
    assert api.http.delete(f"/orders/{order_id}").json()["success"] is True
    assert api.get("/orders")["total"] == 0
    assert api.http.get(f"/orders/{order_id}").status_code == 404
    assert api.http.delete(f"/orders/{order_id}").status_code == 404
    assert api.create(order()).json()["results"][0]["orderId"] != order_id


def test_holduntil_holds(api: Client) -> None:
    order_id = api.create(order()).json()["results"][0]["orderId"]
    body = {"orderId": order_id, "holdUntilDate": "2031-05-01"}
    assert api.http.post("/orders/holduntil", json=body).json()["success"] is True
    stored = api.get(f"/orders/{order_id}")
    assert (stored["orderStatus"], stored["holdUntilDate"]) == ("on_hold", "2031-05-01T00:00:00.0000000")
    assert api.http.post("/orders/holduntil", json={"orderId": order_id, "holdUntilDate": "soon"}).status_code == 400
    assert api.http.post("/orders/holduntil", json={"orderId": 1, "holdUntilDate": "2031-05-01"}).status_code == 404


def test_an_unknown_address_is_a_404(api: Client) -> None:
    reply = api.http.get("/ordrs")
    assert reply.status_code == 404
    assert "No HTTP resource was found" in reply.json()["Message"]
