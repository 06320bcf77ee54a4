"""The endpoints under /sandbox/: looking inside, and playing the person at ShipStation."""

import json
import time

import anyio
import pytest

from listener.sandbox.shipstation import SandboxSettings, build
from sandbox.server import Client, order


def test_orders_tell_when_they_were_accepted_first(api: Client) -> None:
    before = time.time()
    api.create(order())
    between = time.time()
    api.create(order(amountPaid=2))
    held = api.held()["shop-1001"]
    assert before <= held["accepted_at"] <= between
    assert held == {
        "orderId": held["orderId"],
        "orderKey": "shop-1001",
        "orderNumber": "1001",
        "orderStatus": "awaiting_shipment",
        "writes": 2,
        "deleted": False,
        "accepted": held["accepted"],
        "accepted_at": held["accepted_at"],
    }
    assert held["accepted"].endswith("+00:00")


def test_stats_count_calls_batches_and_faults(api: Client) -> None:
    api.create(order("1"), order("2"))
    api.create(order("3"))
    api.fault({"status": 500, "path": "/orders/createorders"})
    api.create(order("4"))
    api.get("/stores")
    api.get(f"/orders/{api.held()['shop-1']['orderId']}")
    stats = api.stats()
    assert stats["calls"] == {
        "GET /orders/{order_id:int}": {"200": 1},
        "GET /stores": {"200": 1},
        "POST /orders/createorders": {"200": 2, "500": 1},
    }
    assert stats["batches"] == {"count": 2, "orders": 3, "max": 2, "sizes": [2, 1]}
    assert (stats["total"], stats["throttled"], stats["orders"]) == (5, 0, 3)
    assert (stats["calls_during_faults"], stats["calls_faulty"]) == (3, 1)
    assert (stats["in_flight"], stats["max_concurrent"], stats["overlaps"]) == (0, 1, 0)
    assert [window["calls"] for window in stats["windows"]] == [5]


def test_an_order_inside_two_calls_at_once_is_an_overlap(api: Client) -> None:
    api.fault({"hang_s": 600, "count": 1})
    body = json.dumps([order("1"), order("2")]).encode()
    with api.open_call(body):
        api.until_in_flight(1)
        api.create(order("2"), order("3"))
        assert (api.stats()["overlaps"], api.stats()["max_concurrent"]) == (1, 2)
        api.create(order("3"))
    api.until_in_flight(0)
    api.create(order("1"))
    assert api.stats()["overlaps"] == 1


def test_the_log_tells_when_a_body_was_complete(api: Client) -> None:
    before = time.time()
    api.create(order("1"), order("2"))
    after = time.time()
    api.get("/orders", pageSize=3)
    first, second = api.control("GET", "requests?last=5")["requests"]
    assert before <= first["received_at"] <= after <= second["received_at"]
    assert (first["method"], first["path"], first["status"]) == ("POST", "/orders/createorders", 200)
    assert (first["orders"], first["order_keys"], first["fault"]) == (2, ["shop-1", "shop-2"], False)
    assert second["query"] == "pageSize=3"
    assert [each["path"] for each in api.control("GET", "requests?last=1")["requests"]] == ["/orders"]
    assert api.control("GET", "requests?last=0")["requests"] == []


def test_a_person_edits(api: Client) -> None:
    api.create(order(customerNotes="ring"))
    changed = {"orderStatus": "rejected_fulfillment", "customerNotes": None, "amountPaid": "4.5"}
    shown = api.control("POST", "edit", {"orderNumber": "1001", "set": changed, "modifyDate": "2020-01-01"})
    assert (shown["orderStatus"], shown["customerNotes"], shown["amountPaid"]) == ("rejected_fulfillment", None, 4.5)
    assert shown["modifyDate"] == "2020-01-01T00:00:00.0000000"
    assert api.held()["shop-1001"]["writes"] == 1
    api.control("POST", "edit", {"orderKey": "shop-1001", "set": {"shipTo": None, "items": None}})
    assert api.get("/orders")["orders"][0]["items"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("edit", {"orderKey": "shop-1001", "set": {"color": "red"}}, 400),
        ("edit", {"orderKey": "shop-1001", "set": {"orderKey": "x"}}, 400),
        ("edit", {"orderKey": "shop-1001", "set": {"items": "x"}}, 400),
        ("edit", {"orderKey": "shop-1001", "modifyDate": "soon"}, 400),
        ("edit", {"orderKey": "nobody", "set": {}}, 404),
        ("edit", "text", 400),
        ("ship", {}, 404),
        ("ship", {"orderKey": "shop-1001", "shipDate": "soon"}, 400),
        ("ship", {"orderKey": "shop-1001", "colour": 1}, 400),
        ("void", {"shipmentId": 1}, 404),
    ],
)
def test_mistakes_are_answered_with_a_sentence(api: Client, path: str, body: object, status: int) -> None:
    api.create(order())
    assert api.control("POST", path, body, status=status)["message"]


def test_the_vendors_clock_can_be_moved(api: Client) -> None:
    api.create(order("1"))
    api.control("PUT", "clock", {"offset_s": 7200})
    api.create(order("2"))
    assert api.numbers(sortBy="CreateDate") == ["1", "2"]
    first, second = api.held()["shop-1"], api.held()["shop-2"]
    assert second["accepted_at"] - first["accepted_at"] < 60


def test_reset_forgets_everything(api: Client) -> None:
    api.create(order())
    api.fault({"status": 500})
    api.control("PUT", "limits", {"limit": 1})
    api.control("PUT", "credentials", {"key": "a", "secret": "b"})
    api.control("POST", "reset")
    assert api.control("GET", "orders") == []
    assert (api.stats()["total"], api.stats()["limit"]) == (0, None)
    assert api.control("GET", "requests") == {"requests": []}
    assert api.create(order()).status_code == 200


def test_the_log_is_bounded_and_holds_no_connection(api: Client) -> None:
    app = build(SandboxSettings(limit=None, log_size=3))
    sandbox = app.state.sandbox
    assert sandbox.traffic.last(10) == []
    for _ in range(5):
        anyio.run(_post, app, b"[]")
    assert len(sandbox.traffic.last(10)) == 3


def test_200_batches_of_100_orders_cost_less_than_two_seconds() -> None:
    app = build(SandboxSettings(limit=None))
    bodies = [json.dumps([order(str(start + n)) for n in range(100)]).encode() for start in range(0, 20_000, 100)]

    async def send_all() -> None:
        for body in bodies:
            await _post(app, body)

    started = time.process_time()
    anyio.run(send_all)
    spent_s = time.process_time() - started
    assert len(app.state.sandbox.store.orders) == 20_000
    assert spent_s < 2


async def _post(app: object, body: bytes) -> None:
    """Call the application in process, without a server."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/orders/createorders",
        "query_string": b"",
        "headers": [(b"authorization", b"Basic c2FuZGJveC1rZXk6c2FuZGJveC1zZWNyZXQ=")],
    }
    statuses = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, object]) -> None:
        statuses.append(message.get("status"))

    await app(scope, receive, send)  # type: ignore[operator]
    assert statuses[0] == 200
