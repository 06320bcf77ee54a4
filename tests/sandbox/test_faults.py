"""Each fault, seen by a real client over a real connection."""

import itertools
import json
import time
from email.utils import parsedate_to_datetime

import httpx2
import pytest

from listener.sandbox.shipstation import SandboxSettings
from listener.sandbox.shipstation.store import BIG_ID_BASE
from sandbox.server import Client, Server, order

BATCH = json.dumps([order()]).encode()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 403])
def test_a_status_comes_instead_of_the_effect(api: Client, status: int) -> None:
    api.fault({"status": status, "count": 1})
    assert api.create(order()).status_code == status
    assert api.held() == {}
    assert api.create(order()).status_code == 200


def test_a_500_has_the_apis_words_and_a_gateway_error_is_html(api: Client) -> None:
    api.fault({"status": 500, "message": "Too Many Requests", "count": 1}, {"status": 503, "count": 2})
    gateway = api.create(order())
    assert gateway.status_code == 503
    assert gateway.headers["Content-Type"].startswith("text/html")
    assert "X-Rate-Limit-Limit" not in gateway.headers
    api.fault({"status": 500, "message": "Too Many Requests"})
    assert api.create(order()).json()["ExceptionMessage"] == "Too Many Requests"


def test_a_status_may_come_after_the_effect(api: Client) -> None:
    api.fault({"status": 504, "effect": True})
    assert api.create(order()).status_code == 504
    assert set(api.held()) == {"shop-1001"}


def test_401_by_fault_and_by_rotated_credentials(api: Client) -> None:
    api.fault({"status": 401, "count": 1})
    assert api.create(order()).json() == {"message": "Unauthorized"}
    assert api.create(order()).status_code == 200
    api.control("PUT", "credentials", {"key": "new", "secret": "pair"})
    assert api.create(order()).status_code == 401
    assert api.http.get("/orders", auth=("new", "pair")).status_code == 200


def test_429_with_and_without_headers_and_although_calls_remain(api: Client) -> None:
    api.control("PUT", "limits", {"limit": 40})
    api.fault({"status": 429, "retry_after": 7})
    reply = api.create(order())
    assert (reply.status_code, reply.json()) == (429, {"message": "Too Many Requests"})
    assert (reply.headers["X-Rate-Limit-Remaining"], reply.headers["Retry-After"]) == ("0", "7")
    api.fault({"status": 429, "headers": False})
    assert not any(name.startswith("x-rate-limit") for name in api.create(order()).headers)
    api.fault({"status": 429, "remaining": 17})
    assert api.create(order()).headers["X-Rate-Limit-Remaining"] == "17"
    assert api.stats()["throttled"] == 3


def test_retry_after_can_be_added_to_the_real_429(api: Client) -> None:
    api.control("PUT", "limits", {"limit": 1})
    api.fault({"retry_after": "Wed, 21 Oct 2031 07:28:00 GMT"})
    assert "Retry-After" not in api.create(order()).headers
    assert api.create(order()).headers["Retry-After"] == "Wed, 21 Oct 2031 07:28:00 GMT"


def test_html_at_200(api: Client) -> None:
    api.fault({"html200": True})
    reply = api.create(order())
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<html>" in reply.text
    assert api.held() == {}


def test_cut_json_takes_effect(api: Client) -> None:
    api.fault({"cut_json": True})
    reply = api.create(order())
    assert reply.status_code == 200
    with pytest.raises(ValueError):
        reply.json()
    assert set(api.held()) == {"shop-1001"}


@pytest.mark.parametrize(
    ("fault", "has_effect"),
    [({"reset_before": True}, False), ({"reset_after": True}, True), ({"reset_after": "mid"}, True)],
)
def test_a_reset_is_a_reset(api: Client, fault: dict[str, object], has_effect: bool) -> None:
    api.fault(fault)
    with pytest.raises(httpx2.ReadError):
        api.create(order())
    assert bool(api.held()) is has_effect
    api.control("DELETE", "faults")
    assert api.create(order()).status_code == 200
    assert api.stats()["calls"]["POST /orders/createorders"] == {"reset": 1, "200": 1}


def test_half_a_reply_arrives_before_the_reset(api: Client) -> None:
    api.fault({"reset_after": "mid"})
    with api.open_call(BATCH) as peer:
        received = iter(lambda: peer.recv(1), b"")
        head = b"".join(itertools.takewhile(lambda byte: byte != b"{", received))
        with pytest.raises(ConnectionResetError):
            list(received)
    assert head.startswith(b"HTTP/1.1 200")


def test_latency_delays_the_call(api: Client) -> None:
    api.fault({"latency_s": 0.2})
    started = time.monotonic()
    assert api.create(order()).status_code == 200
    assert time.monotonic() - started >= 0.2
    assert api.control("GET", "requests")["requests"][-1]["duration_s"] >= 0.2


def test_a_client_that_leaves_during_the_latency_has_no_effect(api: Client) -> None:
    api.fault({"latency_s": 60})
    with api.open_call(BATCH):
        api.until_in_flight(1)
    api.until_in_flight(0)
    assert api.held() == {}
    assert api.stats()["calls"]["POST /orders/createorders"] == {"gone": 1}


@pytest.mark.parametrize("effect", [True, False])
def test_a_hang_answers_nothing_and_ends_when_the_client_leaves(api: Client, effect: bool) -> None:
    api.fault({"hang_s": 600, "effect": effect})
    with pytest.raises(httpx2.ReadTimeout):
        api.http.post("/orders/createorders", content=BATCH, timeout=0.1)
    api.until_in_flight(0)
    assert bool(api.held()) is effect


def test_a_hang_that_is_over_answers(api: Client) -> None:
    api.fault({"hang_s": 0.06})
    assert api.create(order()).json()["hasErrors"] is False


@pytest.mark.parametrize("says_close", [True, False])
def test_a_hang_ends_when_the_server_stops(says_close: bool) -> None:
    server = Server(SandboxSettings())
    with server:
        client = Client(server.address)
        client.fault({"hang_s": 600})
        peer = client.open_call(BATCH)
        client.until_in_flight(1)
        client.close()
        if says_close:
            server.sandbox.close()
    with peer, pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_one_poisoned_order_breaks_the_whole_call(api: Client) -> None:
    api.fault({"poison": ["shop-2", "9"]})
    assert api.create(order("1"), order("2")).status_code == 500
    assert api.create(order("9")).status_code == 500
    assert api.held() == {}
    assert api.create(order("1")).status_code == 200


def test_one_poisoned_order_breaks_the_page_that_shows_it(api: Client) -> None:
    api.create(order("1"), order("2"), order("3"))
    api.fault({"poison": ["2"]})
    replies = [api.http.get("/orders", params={"pageSize": 1, "page": page}) for page in (1, 2, 3)]
    assert [reply.status_code for reply in replies] == [200, 500, 200]
    assert api.http.post("/orders/holduntil", json={"orderId": 1}).status_code == 404
    order_id = api.held()["shop-2"]["orderId"]
    assert api.http.post("/orders/holduntil", json={"orderId": order_id}).status_code == 500


def test_reject_400_refuses_the_whole_call(api: Client) -> None:
    api.fault({"reject_400": ["shop-2"], "message": "No."})
    reply = api.create(order("1"), order("2"))
    assert (reply.status_code, reply.json()) == (400, {"Message": "No."})
    assert api.held() == {}


def test_an_order_error_fails_one_order_and_counts_only_calls_that_have_it(api: Client) -> None:
    text = "Execution Timeout Expired.  The timeout period elapsed prior to completion of the operation."
    api.fault({"order_error": {"shop-2": text}, "count": 1})
    assert api.create(order("1")).json()["hasErrors"] is False
    results = api.create(order("1"), order("2")).json()["results"]
    assert [each["errorMessage"] for each in results] == [None, text]
    assert set(api.held()) == {"shop-1"}
    assert api.create(order("2")).json()["hasErrors"] is False


def test_an_order_error_breaks_the_single_call(api: Client) -> None:
    api.fault({"order_error": {"1001": "Execution Timeout Expired."}})
    reply = api.http.post("/orders/createorder", json=order())
    assert (reply.status_code, reply.json()["ExceptionMessage"]) == (500, "Execution Timeout Expired.")


def test_faults_of_different_orders_do_not_mix(api: Client) -> None:
    api.fault({"poison": ["1"], "order_error": {"2": "no"}}, {"order_error": {"3": "never"}})
    results = api.create(order("2"), order("3"), order("4")).json()["results"]
    assert [each["errorMessage"] for each in results] == ["no", "never", None]


def test_the_date_header_can_be_off(api: Client) -> None:
    true = parsedate_to_datetime(api.http.get("/stores").headers["Date"])
    api.fault({"date_offset_s": -600})
    dates = api.http.get("/stores").headers.get_list("Date")
    assert len(dates) == 1
    assert 590 <= (true - parsedate_to_datetime(dates[0])).total_seconds() <= 600


def test_unknown_fields_and_nulls(api: Client) -> None:
    api.create(order())
    api.fault({"unknown_fields": True, "null_fields": ["customerId", "items"]})
    page = api.get("/orders")
    assert page["addedLater"] == page["orders"][0]["shipTo"]["addedLater"]
    assert (page["orders"][0]["customerId"], page["orders"][0]["items"]) == (None, None)
    api.control("DELETE", "faults")
    assert "addedLater" not in api.get("/orders")["orders"][0]["shipTo"]


def test_big_ids_are_beyond_a_float_and_can_be_used(api: Client) -> None:
    api.fault({"big_ids": True})
    results = api.create(order("1"), order("2")).json()["results"]
    order_id = results[0]["orderId"]
    assert order_id > BIG_ID_BASE > 2**53
    assert any(int(float(each["orderId"])) != each["orderId"] for each in results) or order_id % 2 == 0
    assert api.get(f"/orders/{order_id}")["orderId"] == order_id
    assert api.control("POST", "ship", {"orderId": order_id})["orderNumber"] == "1"
    shipments = api.get("/shipments", orderId=order_id)["shipments"]
    assert [each["orderId"] for each in shipments] == [order_id]
    api.control("POST", "void", {"shipmentId": shipments[0]["shipmentId"]})


def test_results_in_another_order(api: Client) -> None:
    sent = [order(str(n)) for n in range(2)]
    api.fault({"shuffle": True})
    for _ in range(5):
        keys = [each["orderKey"] for each in api.create(*sent).json()["results"]]
        assert keys == ["shop-1", "shop-0"]


def test_a_result_goes_missing(api: Client) -> None:
    api.fault({"drop_result": True})
    results = api.create(order("1"), order("2"), order("3")).json()["results"]
    assert [each["orderKey"] for each in results] == ["shop-1", "shop-3"]
    assert len(api.held()) == 3


def test_a_row_comes_twice(api: Client) -> None:
    api.create(order("1"), order("2"))
    api.fault({"duplicate_row": True})
    assert api.numbers() == ["1", "2", "1"]


def test_path_method_probability_and_count_choose_the_calls(api: Client) -> None:
    api.fault({"path": "/orders/create*", "status": 500, "count": 2})
    assert api.http.get("/orders").status_code == 200
    assert [api.create(order()).status_code for _ in range(3)] == [500, 500, 200]
    api.fault({"method": "get", "status": 500})
    assert api.create(order()).status_code == 200
    assert api.http.get("/stores").status_code == 500
    api.fault({"probability": 0.5, "status": 500})
    assert {api.http.get("/stores").status_code for _ in range(64)} == {200, 500}


def test_the_plan_can_be_read_replaced_and_cleared(api: Client) -> None:
    plan = api.control("PUT", "faults", {"faults": [{"status": 500, "count": 2}, {"latency_s": 0}]})
    assert plan == {"faults": [{"status": 500, "count": 2}, {"latency_s": 0.0, "count": None}]}
    api.create(order())
    assert api.control("GET", "faults")["faults"][0]["count"] == 1
    assert "wrong" in api.control("PUT", "faults", {"wrong": 1}, status=400)["message"]
    assert len(api.control("GET", "faults")["faults"]) == 2
    assert api.control("PUT", "faults", {"html200": True}) == {"faults": [{"html200": True, "count": None}]}
    assert api.control("DELETE", "faults") == {"faults": []}
    assert api.create(order()).status_code == 200


def test_a_connection_is_kept_alive_after_ordinary_faults(api: Client) -> None:
    for fault in ({"status": 500}, {"cut_json": True}, {"html200": True}):
        api.fault(fault)
        streams = [api.http.get("/stores").extensions["network_stream"] for _ in range(2)]
        addresses = [stream.get_extra_info("client_addr") for stream in streams]
        assert addresses[0] == addresses[1]
