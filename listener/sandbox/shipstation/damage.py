"""What faults do to a reply: the failures sent instead of it, and the changes made inside it. Pure functions."""

import random
from dataclasses import dataclass, field
from typing import Any

from listener.sandbox.faults import Fault
from listener.sandbox.limits import Verdict
from listener.sandbox.shipstation.store import BIG_ID_BASE

_IDS = frozenset({"orderId", "orderItemId", "customerId", "shipmentId", "fulfillmentId"})
_ROWS = ("orders", "shipments", "fulfillments")
_PAGE = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"
#: Answered by the machine in front of the API, which knows of no rate limit and speaks HTML.
_GATEWAY = {502: "502 Bad Gateway", 503: "503 Service Unavailable", 504: "504 Gateway Time-out"}


@dataclass(slots=True)
class Reply:
    """A reply before it becomes bytes. payload: JSON, or text that is sent as HTML."""

    status: int
    payload: Any
    headers: dict[str, str] = field(default_factory=dict)


def unauthorized() -> Reply:
    """Refuse the credentials."""
    return Reply(401, {"message": "Unauthorized"}, {"WWW-Authenticate": 'Basic realm="ShipStation"'})


def throttled(verdict: Verdict, fault: Fault) -> Reply:
    """Refuse a call over the limit."""
    headers = verdict.headers()
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    return Reply(429, {"message": "Too Many Requests"}, headers)


def failure(fault: Fault, verdict: Verdict) -> Reply | None:
    """Give the reply that the fault sends instead of the real one; None when it lets the call pass."""
    if fault.poison:
        return broken(fault.message, verdict)
    if fault.reject_400:
        return Reply(400, {"Message": fault.message or "The request is invalid."}, verdict.headers())
    if fault.html200:
        return Reply(200, _PAGE.format(fault.message or "ShipStation is down for maintenance"))
    if fault.status is None:
        return None
    reply = _status(fault.status, fault, verdict)
    if fault.retry_after is not None:
        reply.headers["Retry-After"] = str(fault.retry_after)
    return reply


def broken(message: str | None, verdict: Verdict) -> Reply:
    """Answer 500 in the API's own words."""
    detail = message or "Object reference not set to an instance of an object."
    return Reply(500, {"Message": "An error has occurred.", "ExceptionMessage": detail}, verdict.headers())


def _status(status: int, fault: Fault, verdict: Verdict) -> Reply:
    if status in _GATEWAY:
        return Reply(status, _PAGE.format(fault.message or _GATEWAY[status]))
    if status == 401:
        return unauthorized()
    if status == 429:
        headers = {}
        if fault.headers:
            left = fault.remaining if fault.remaining is not None else 0
            headers = {**verdict.headers(), "X-Rate-Limit-Remaining": str(left)}
        return Reply(429, {"message": fault.message or "Too Many Requests"}, headers)
    if status == 500:
        return broken(fault.message, verdict)
    return Reply(status, {"Message": fault.message or f"The request was answered with {status}."}, verdict.headers())


def names_in(payload: Any) -> set[str]:
    """Collect the order keys and numbers that a reply shows."""
    rows: list[Any] = [payload] if isinstance(payload, dict) else []
    for name in _ROWS:
        if isinstance(payload, dict) and name in payload:
            rows = payload[name]
    return {str(row[name]) for row in rows for name in ("orderKey", "orderNumber") if row.get(name)}


def damaged(payload: Any, fault: Fault, rng: random.Random) -> Any:
    """Give a changed copy of a JSON payload; the stored data stays as it is."""
    if isinstance(payload, dict):
        payload = _rearranged(payload, fault, rng)
    if fault.unknown_fields or fault.null_fields or fault.big_ids:
        return _rewritten(payload, fault)
    return payload


def _rearranged(payload: dict[str, Any], fault: Fault, rng: random.Random) -> dict[str, Any]:
    payload = dict(payload)
    results = payload.get("results")
    if isinstance(results, list) and results:
        results = list(results)
        if fault.drop_result:
            del results[len(results) // 2]
        if fault.shuffle:
            rng.shuffle(results)
            if results == payload["results"]:
                results.reverse()
        payload["results"] = results
    for name in _ROWS:
        if fault.duplicate_row and payload.get(name):
            payload[name] = [*payload[name], payload[name][0]]
    return payload


def _rewritten(value: Any, fault: Fault) -> Any:
    if isinstance(value, list):
        return [_rewritten(member, fault) for member in value]
    if not isinstance(value, dict):
        return value
    result = {name: _rewritten(member, fault) for name, member in value.items()}
    if fault.big_ids:
        for name in _IDS & result.keys():
            if isinstance(result[name], int):
                result[name] += BIG_ID_BASE
    for name in fault.null_fields:
        if name in result:
            result[name] = None
    if fault.unknown_fields:
        result["addedLater"] = {"since": "2031", "values": [1, "two", None]}
    return result
