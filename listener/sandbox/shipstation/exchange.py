"""One call, from its body to its last byte: the pipeline around every handler of the API.

    read → faults of this call → latency, reset → credentials → rate limit → failure | handler → silence → reply

Handlers are plain functions and never wait, so that what a call changes is changed at once.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from listener.sandbox.faults import QUIET, Fault
from listener.sandbox.limits import Verdict
from listener.sandbox.mishap import Mishap
from listener.sandbox.shipstation.damage import Reply, broken, damaged, failure, names_in, throttled, unauthorized
from listener.sandbox.shipstation.order import Mismatch
from listener.sandbox.shipstation.state import Sandbox
from listener.sandbox.shipstation.store import Refused
from listener.sandbox.traffic import Visit
from listener.sandbox.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler sees. query: lower-case names. content: the JSON body, None without one.

    fault: what is to go wrong; handlers only look at `order_error`.
    """

    method: str
    path: str
    params: dict[str, Any]
    query: dict[str, str]
    content: Any
    fault: Fault


Handler: TypeAlias = Callable[[Sandbox, Call], Reply]

#: Stands for a body that is no JSON.
_UNREADABLE = object()


class Endpoint:
    """One route of the API, as an ASGI application."""

    def __init__(self, sandbox: Sandbox, route: str, handler: Handler) -> None:
        self._sandbox = sandbox
        self._route = route
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        traffic = self._sandbox.traffic
        wire = Wire(receive, send)
        traffic.arrive()
        try:
            body = await wire.read_body()
            if body is None:
                return
            received_at = self._sandbox.clock.epoch_s()
            content = _parse(body)
            visit = self._visit(scope, content, wire, received_at)
            started = self._sandbox.clock.ticks()
            traffic.enter(visit, faults_on=self._sandbox.plan.is_on)
            try:
                await self._serve(scope, content, wire, visit)
            finally:
                visit.duration_s = self._sandbox.clock.ticks() - started
                traffic.leave(visit)
        finally:
            traffic.depart()

    async def _serve(self, scope: Scope, content: Any, wire: Wire, visit: Visit) -> None:
        """Run the pipeline."""
        box, path = self._sandbox, str(scope["path"])
        fault = QUIET
        if box.plan.is_on:
            fault = box.plan.take(visit.method, path, _names(box, content))
            visit.is_faulty = fault is not QUIET
        mishap = Mishap(fault, wire, visit, box.is_closing)
        if not await mishap.before():
            return
        call = Call(
            method=visit.method,
            path=path,
            params=scope.get("path_params", {}),
            query={name.lower(): text for name, text in parse_qsl(visit.query)},
            content=content,
            fault=fault,
        )
        reply = self._answer(call, Headers(scope=scope).get("authorization", ""), visit)
        if await mishap.after():
            await mishap.send(reply.status, *self._written(reply, fault))

    def _answer(self, call: Call, authorization: str, visit: Visit) -> Reply:
        """Judge and carry out one call; never waits."""
        box, fault = self._sandbox, call.fault
        if not box.admits(authorization):
            return unauthorized()
        verdict = box.limiter.take(box.key)
        if not verdict.allowed:
            return throttled(verdict, fault)
        failed = failure(fault, verdict)
        if failed is not None and not fault.effect:
            return failed
        reply = self._handled(call)
        reply.headers.update(verdict.headers())
        return failed or self._poisoned(call, reply, verdict, visit) or reply

    def _handled(self, call: Call) -> Reply:
        try:
            if call.content is _UNREADABLE:
                return Reply(400, {"Message": "The request is invalid. The body is not valid JSON."})
            return self._handler(self._sandbox, call)
        except Mismatch as mismatch:
            return Reply(400, {"Message": f"The request is invalid. {mismatch}"})
        except Refused as refused:
            return Reply(404 if refused.is_unknown else 400, {"Message": str(refused)})

    def _poisoned(self, call: Call, reply: Reply, verdict: Verdict, visit: Visit) -> Reply | None:
        """Break a page that shows a poisoned order."""
        plan = self._sandbox.plan
        if call.method != "GET" or not plan.is_on:
            return None
        if not plan.take_poison(call.method, call.path, names_in(reply.payload)):
            return None
        visit.is_faulty = True
        return broken(None, verdict)

    def _written(self, reply: Reply, fault: Fault) -> tuple[dict[str, str], bytes]:
        """Write headers and body."""
        headers = {"Date": self._sandbox.clock.date_header(fault.date_offset_s), **reply.headers}
        if isinstance(reply.payload, str):
            headers["Content-Type"] = "text/html; charset=utf-8"
            body = reply.payload.encode()
        else:
            headers["Content-Type"] = "application/json; charset=utf-8"
            payload = reply.payload if fault is QUIET else damaged(reply.payload, fault, self._sandbox.rng)
            body = json.dumps(payload, separators=(",", ":")).encode()
        return headers, body

    def _visit(self, scope: Scope, content: Any, wire: Wire, received_at: float) -> Visit:
        orders = _orders(content)
        return Visit(
            method=scope["method"],
            path=scope["path"],
            route=self._route,
            query=scope.get("query_string", b"").decode("latin-1"),
            received_at=received_at,
            order_keys=tuple(key for order in orders if isinstance(key := order.get("orderKey"), str)),
            orders=len(content) if isinstance(content, list) else len(orders),
            is_gone=wire.is_gone,
        )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return _UNREADABLE


def _orders(content: Any) -> list[dict[str, Any]]:
    """Find what looks like orders in a body, whatever the body is."""
    members = content if isinstance(content, list) else [content]
    return [member for member in members if isinstance(member, dict)]


def _names(sandbox: Sandbox, content: Any) -> set[str]:
    """Collect the order keys and numbers that a body contains, also those it means by `orderId`."""
    names = set()
    for order in _orders(content):
        names |= {str(order[name]) for name in ("orderKey", "orderNumber") if order.get(name)}
        if isinstance(order.get("orderId"), int):
            try:
                held = sandbox.store.find(order["orderId"])
            except Refused:
                continue
            names |= {held.key, held.number}
    return names
