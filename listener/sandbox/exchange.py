"""One call of a sandbox that has no vendor's pipeline of its own: log, faults, handler, reply.

    read → faults of this call → latency, reset → failure | handler → silence → reply

Handlers are plain functions and never wait, so that what a call changes is changed at once.
"""

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from listener.sandbox.clock import Clock
from listener.sandbox.faults import QUIET, Fault, FaultPlan
from listener.sandbox.mishap import Mishap
from listener.sandbox.traffic import Traffic, Visit
from listener.sandbox.wire import Wire

_LOG_SIZE = 2_000
_HTML = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


class Box:
    """What every sandbox has. answered: called after each reply that was sent; a test changes what is served then.

    Touched by the server's event loop only. `close()` may be called from any thread.
    """

    def __init__(self, clock: Clock | None = None, seed: int | None = None) -> None:
        self.clock = clock or Clock()
        self.plan = FaultPlan(random.Random(seed))
        self.traffic = Traffic(_LOG_SIZE)
        self.answered: Callable[[Call], None] = lambda _call: None
        self._is_closing = False

    def is_closing(self) -> bool:
        """Tell whether `close()` was called."""
        return self._is_closing

    def close(self) -> None:
        """End the calls that a fault keeps waiting; for whoever stops the server."""
        self._is_closing = True

    def failure(self, fault: Fault) -> "Answer | None":
        """Give the reply that a fault sends instead of the real one; None when it lets the call pass."""
        if fault.html200:
            return Answer(200, _HTML.format(fault.message or "down for maintenance").encode(), "text/html")
        if fault.status is None:
            return None
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        words = fault.message or f"The request was answered with {fault.status}."
        return Answer(fault.status, _HTML.format(words).encode(), "text/html", headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler sees. query: names as they were sent."""

    method: str
    path: str
    params: Mapping[str, Any]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Answer:
    """A reply before it is sent."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


Handler: TypeAlias = Callable[[Call], Answer]


class Endpoint:
    """One route, as an ASGI application."""

    def __init__(self, box: Box, route: str, handler: Handler) -> None:
        self._box = box
        self._route = route
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        box, wire = self._box, Wire(receive, send)
        box.traffic.arrive()
        try:
            body = await wire.read_body()
            if body is None:
                return
            visit = Visit(
                method=scope["method"],
                path=scope["path"],
                route=self._route,
                query=scope.get("query_string", b"").decode("latin-1"),
                received_at=box.clock.epoch_s(),
                order_keys=(),
                orders=0,
                is_gone=wire.is_gone,
            )
            started = box.clock.ticks()
            box.traffic.enter(visit, faults_on=box.plan.is_on)
            try:
                await self._serve(scope, body, wire, visit)
            finally:
                visit.duration_s = box.clock.ticks() - started
                box.traffic.leave(visit)
        finally:
            box.traffic.depart()

    async def _serve(self, scope: Scope, body: bytes, wire: Wire, visit: Visit) -> None:
        """Run the pipeline."""
        box, fault = self._box, QUIET
        if box.plan.is_on:
            fault = box.plan.take(visit.method, visit.path, set())
            visit.is_faulty = fault is not QUIET
        mishap = Mishap(fault, wire, visit, box.is_closing)
        if not await mishap.before():
            return
        call = Call(
            method=visit.method,
            path=visit.path,
            params=scope.get("path_params", {}),
            query=dict(parse_qsl(visit.query, keep_blank_values=True)),
            headers=Headers(scope=scope),
            body=body,
        )
        failed = box.failure(fault)
        answer = failed if failed is not None and not fault.effect else self._handler(call)
        if not await mishap.after():
            return
        answer = failed or answer
        date = box.clock.date_header(fault.date_offset_s)
        headers = {"Date": date, "Content-Type": answer.content_type, **answer.headers}
        if await mishap.send(answer.status, headers, answer.body):
            box.answered(call)


Action: TypeAlias = Callable[[Request, Any], Any]


def control_routes(box: Box, actions: Iterable[tuple[str, str, Action]]) -> list[Route]:
    """Give the routes under /sandbox/, that the real thing has not: faults and log, and a sandbox's own."""

    def put_faults(_request: Request, body: Any) -> Any:
        box.plan.replace(body)
        return {"faults": box.plan.describe()}

    def clear_faults(_request: Request, _body: Any) -> None:
        box.plan.clear()

    def requests(request: Request, _body: Any) -> Any:
        return {"requests": box.traffic.last(int(request.query_params.get("last", "100")))}

    table: tuple[tuple[str, str, Action], ...] = (
        ("GET", "faults", lambda _request, _body: {"faults": box.plan.describe()}),
        ("PUT", "faults", put_faults),
        ("DELETE", "faults", clear_faults),
        ("GET", "requests", requests),
        ("GET", "stats", lambda _request, _body: box.traffic.describe()),
        *actions,
    )
    return [Route(f"/sandbox/{path}", _endpoint(action), methods=[method]) for method, path, action in table]


def _endpoint(action: Action) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of an action: JSON in, JSON out (null becomes {}), mistakes as 400 with a sentence."""

    async def endpoint(request: Request) -> Response:
        try:
            answer = action(request, await request.json() if await request.body() else {})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            return JSONResponse({"message": wrong}, 400)
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"message": f"{type(error).__name__}: {error}"}, 400)
        return JSONResponse({} if answer is None else answer)

    return endpoint
