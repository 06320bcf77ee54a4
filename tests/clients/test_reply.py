"""What each reply of ShipStation means: whose fault it is, and how long to wait."""

import json
from typing import Any

import pytest

from listener.clients.http import Raw
from listener.clients.shipstation.reply import BLIND_WAIT_S, CONTENT_STATUSES, rate, read, read_results
from listener.core.budget import RateHeaders
from listener.core.errors import Broken, ListenerError, Rejected, Unavailable

PAGE = b"<!DOCTYPE html>\n<html><head><title>Down for maintenance</title></head></html>"
RESULTS = {"hasErrors": False, "results": []}


def raw(status: int, body: Any = None, **headers: str) -> Raw:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Raw(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def error(reply: Raw) -> ListenerError:
    with pytest.raises(ListenerError) as caught:
        read(reply)
    return caught.value


@pytest.mark.parametrize(
    ("reply", "reason", "words"),
    [
        (raw(429, {"message": "Too Many Requests"}), "throttled", "Too Many Requests"),
        (raw(429, b""), "throttled", "429"),
        (raw(503, {"message": "Too Many Requests"}), "throttled", "503"),
        (raw(400, {"Message": "too many requests, slow down"}), "throttled", "slow down"),
        (raw(500, b"Too Many Requests"), "throttled", "500"),
        (raw(200, {"message": "Too Many Requests"}), "throttled", "200"),
        (raw(200, b"<html>Too Many Requests</html>"), "throttled", "200"),
        (raw(401, {"message": "Unauthorized"}), "credentials", "SHIPSTATION_API_KEY"),
        (raw(402, {"message": "Upgrade your plan"}), "credentials", "Upgrade your plan"),
        (raw(403, {"Message": "Forbidden"}), "credentials", "403: Forbidden"),
        (raw(404, {"Message": "No HTTP resource was found"}), "outage", "SHIPSTATION_BASE_URL"),
        (raw(502, PAGE), "outage", "Down for maintenance"),
        (raw(503, PAGE), "outage", "Down for maintenance"),
        (raw(504, PAGE), "outage", "504"),
        (raw(599, b""), "outage", "599"),
        (raw(301, b"", location="https://elsewhere.example"), "outage", "301"),
        (raw(302, PAGE), "outage", "302"),
        (raw(405, {"Message": "The method is not allowed"}), "outage", "not allowed"),
        (raw(407, PAGE), "outage", "407"),
        (raw(408, b""), "outage", "408"),
        (raw(410, b""), "outage", "410"),
        (raw(418, b""), "outage", "418"),
        (raw(200, PAGE), "outage", "not JSON"),
        (raw(200, b""), "outage", "not JSON"),
        (raw(204, b""), "outage", "not JSON"),
        (raw(200, b'{"results": [{"orderKey": "A'), "outage", "not JSON"),
        (raw(200, b"[" * 100_000), "outage", "not JSON"),
        (raw(200, b"\xff\xfe"), "outage", "not JSON"),
    ],
)
def test_the_api_as_a_whole_is_at_fault(reply: Raw, reason: str, words: str) -> None:
    """No order may pay for any of these."""
    unavailable = error(reply)

    assert isinstance(unavailable, Unavailable)
    assert unavailable.reason == reason
    assert words in str(unavailable)


@pytest.mark.parametrize("status", sorted(CONTENT_STATUSES))
def test_a_refusal_of_what_was_sent_is_told_in_shipstations_words(status: int) -> None:
    rejected = error(raw(status, {"Message": "The request is invalid.", "ExceptionMessage": "Path 'items'"}))

    assert isinstance(rejected, Rejected)
    assert rejected.status == status
    assert str(rejected) == f"ShipStation answered {status}: The request is invalid. Path 'items'"


def test_a_500_may_be_an_orders_fault_or_not() -> None:
    assert isinstance(error(raw(500, {"Message": "An error has occurred."})), Broken)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": "17"}, 17.0),
        ({"x_rate_limit_reset": "0"}, 1.0),
        ({"retry_after": "30", "x_rate_limit_reset": "17"}, 30.0),
        ({"retry_after": "5", "x_rate_limit_reset": "17"}, 17.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "x_rate_limit_reset": "17"}, 17.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": "1795000000"}, BLIND_WAIT_S),  # an epoch time: the documented trap
        ({"x_rate_limit_reset": "-3"}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": "nan"}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": "inf"}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": "soon"}, BLIND_WAIT_S),
        ({"x_rate_limit_reset": ""}, BLIND_WAIT_S),
    ],
)
def test_throttled_calls_wait_as_long_as_they_are_told(headers: dict[str, str], wait_s: float) -> None:
    throttled = error(raw(429, {"message": "Too Many Requests"}, **headers))

    assert isinstance(throttled, Unavailable)
    assert throttled.wait_s == wait_s


def test_an_outage_waits_by_its_own_backoff_unless_it_is_told() -> None:
    silent, told = error(raw(503, PAGE)), error(raw(503, PAGE, retry_after="120"))

    assert isinstance(silent, Unavailable)
    assert isinstance(told, Unavailable)
    assert (silent.wait_s, told.wait_s) == (None, 120.0)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, RateHeaders()),
        (
            {"x_rate_limit_limit": "40", "x_rate_limit_remaining": "7", "x_rate_limit_reset": "33"},
            RateHeaders(limit=40, remaining=7, reset_s=33.0),
        ),
        ({"x_rate_limit_remaining": " 0 ", "x_rate_limit_reset": "0.5"}, RateHeaders(remaining=0, reset_s=0.5)),
        ({"x_rate_limit_remaining": "-1", "x_rate_limit_reset": "9999999"}, RateHeaders()),
        ({"x_rate_limit_limit": "many", "x_rate_limit_remaining": "12345678901"}, RateHeaders()),
        ({"x_rate_limit_remaining": "٣"}, RateHeaders()),
    ],
)
def test_rate_headers_that_make_no_sense_count_as_absent(headers: dict[str, str], expected: RateHeaders) -> None:
    assert rate(raw(200, RESULTS, **headers)) == expected


def test_a_good_reply_is_its_json_and_what_it_says_of_the_window() -> None:
    reply = read_results(raw(200, RESULTS, x_rate_limit_remaining="39"))

    assert reply.body == RESULTS
    assert reply.rate == RateHeaders(remaining=39)


@pytest.mark.parametrize("words", ["Too Many Requests", "too many requests"])
def test_words_of_a_single_order_are_not_those_of_the_api(words: str) -> None:
    """Its neighbours in the same reply are stored."""
    results = [{"orderKey": "A", "orderNumber": words, "success": False, "errorMessage": words}]

    assert read_results(raw(200, {"results": results})).body["results"] == results


@pytest.mark.parametrize("body", [None, [], "ok", 7, {}, {"message": "Service is starting"}, {"results": None}])
def test_json_without_results_is_an_outage_where_results_are_due(body: Any) -> None:
    assert read(raw(200, body)).body == body

    with pytest.raises(Unavailable) as caught:
        read_results(raw(200, body))

    assert caught.value.reason == "outage"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            raw(
                200, b'{"orders": [{"customerEmail": "ann@example.com"', content_type="application/json; charset=utf-8"
            ),
            "with something that is not JSON: 47 bytes of application/json",
        ),
        (raw(200, {"orders": [{"customerEmail": "ann@example.com"}]}), "with JSON that has no results: 50 bytes"),
        (
            raw(200, b"<html><TITLE>Down for\nmaintenance</TITLE>ann@example.com"),
            "with something that is not JSON: 56 bytes, titled 'Down for maintenance'",
        ),
        (
            raw(200, {"message": "Starting", "customerEmail": "ann@example.com"}),
            "with JSON that has no results: Starting",
        ),
        (
            raw(200, b'{"orders": [{"note": "too many requests", "customerEmail": "ann@example.com"'),
            "answered 200: 76 bytes",
        ),
    ],
)
def test_what_should_have_been_data_is_not_repeated(reply: Raw, words: str) -> None:
    """It is customers' data, and the words reach the log and /readyz, which asks for no token."""
    with pytest.raises(Unavailable) as caught:
        read_results(reply)

    assert "ann@" not in str(caught.value)
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_vendor_words_are_one_short_line_that_can_be_stored(status: int) -> None:
    """NUL and lone surrogates reach no database, line ends no log line, a megabyte nobody's screen."""
    for body in ({"message": "a\x00b\ud800c\nd\u2028" + "x" * 1_000_000}, b"\x00\xff\n" * 500_000):
        text = str(error(raw(status, body)))

        assert text.isprintable()
        assert len(text) < 800
