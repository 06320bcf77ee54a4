"""Routes. Each asks the service, which `figures.py` implements; none knows the engine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from listener.core.errors import DatabaseError
from listener.obs.metrics import CONTENT_TYPE
from listener.web.access import Refused, guard, guarded
from listener.web.description import describe


class Service(Protocol):
    """What the routes ask. All values are JSON-ready."""

    async def metrics(self) -> bytes:
        """Exposition text with fresh gauges."""

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not, and every part by name."""

    def pool(self) -> dict[str, Any]:
        """The connection pool's figures."""

    def operations(self) -> list[dict[str, Any]]:
        """Handler calls under way in this process."""

    async def queues(self) -> list[dict[str, Any]]:
        """Every queue's figures."""


def build(service: Service, *, token: SecretStr | None, routes: Sequence[Route] = ()) -> Starlette:
    """Return the application. Errors are JSON: {"error": {"code", "message"}}. routes guard themselves."""
    check = guard(token)
    told = [*_probes(service), *(guarded(route, check) for route in _figures(service)), *routes]

    async def openapi(_: Request) -> JSONResponse:
        return JSONResponse(describe(told))

    return Starlette(
        routes=[*told, Route("/openapi.json", openapi)],
        exception_handlers={
            Refused: _refused,
            DatabaseError: _no_database,
            HTTPException: _http,
            Exception: _surprise,
        },
    )


def _probes(service: Service) -> list[Route]:
    async def livez(_: Request) -> Response:
        """The process runs and its event loop turns."""
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        """Database, session, configuration and connectors, each named. 503 when one that is needed is not there."""
        is_ready, parts = await service.readiness()
        return JSONResponse({"status": "ready" if is_ready else "not ready", **parts}, 200 if is_ready else 503)

    async def metrics(_: Request) -> Response:
        """Prometheus exposition."""
        return Response(await service.metrics(), media_type=CONTENT_TYPE)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]


def _figures(service: Service) -> list[Route]:
    async def pool(_: Request) -> Response:
        """Size, idle, checked out and waiting of the connection pool, and active operations."""
        return _success(service.pool())

    async def operations(_: Request) -> Response:
        """Handler calls under way in this process, oldest first."""
        return _success(service.operations())

    async def queues(_: Request) -> Response:
        """Pending, processing and failed rows of each queue."""
        return _success(await service.queues())

    return [
        Route("/api/health/pool", pool),
        Route("/api/v1/operations", operations),
        Route("/api/v1/queues", queues),
    ]


def _success(data: Any) -> JSONResponse:
    return JSONResponse({"status": "success", "data": data})


async def _refused(_: Request, error: Any) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return _error(error.status, error.code, str(error), headers)


async def _no_database(_: Request, error: Exception) -> Response:
    return _error(503, "database_unavailable", str(error))


async def _http(request: Request, error: Any) -> Response:
    code, message = {
        404: ("not_found", f"There is nothing at {request.url.path}; /openapi.json lists what there is."),
        405: ("method_not_allowed", f"{request.url.path} does not take {request.method}."),
    }.get(error.status_code, ("http_error", str(error.detail)))
    return _error(error.status_code, code, message, error.headers)


async def _surprise(_: Request, error: Exception) -> Response:  # the server logs it with its traceback
    return _error(500, "internal_error", f"{type(error).__name__} in the service; its log tells more.")


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
