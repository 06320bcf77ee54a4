"""Routes. Each asks the service, which `figures.py` implements; none knows the engine."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from listener.core.errors import DatabaseError
from listener.obs.metrics import CONTENT_TYPE
from listener.web.access import Refused, guard


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


def build(service: Service, *, token: SecretStr | None, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application. Errors are JSON: {"error": {"code", "message"}}. routers guard themselves."""
    api = FastAPI(title="order-listener", docs_url=None, redoc_url=None)
    api.include_router(_probes(service))
    api.include_router(_figures(service), dependencies=[Depends(guard(token))])
    for router in routers:
        api.include_router(router)

    @api.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
        return _error(error.status, error.code, str(error), headers)

    @api.exception_handler(DatabaseError)
    def database(_: Request, error: DatabaseError) -> JSONResponse:
        return _error(503, "database_unavailable", str(error))

    @api.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        code, message = {
            404: ("not_found", f"There is nothing at {request.url.path}; /openapi.json lists what there is."),
            405: ("method_not_allowed", f"{request.url.path} does not take {request.method}."),
        }.get(error.status_code, ("http_error", str(error.detail)))
        return _error(error.status_code, code, message, error.headers)

    @api.exception_handler(Exception)
    def surprise(_: Request, error: Exception) -> JSONResponse:  # the server logs it with its traceback
        return _error(500, "internal_error", f"{type(error).__name__} in the service; its log tells more.")

    return api


def _probes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/livez")
    def livez() -> dict[str, str]:
        """The process runs and its event loop turns."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Database, session, configuration and connectors, each named. 503 when one that is needed is not there."""
        is_ready, parts = await service.readiness()
        return JSONResponse({"status": "ready" if is_ready else "not ready", **parts}, 200 if is_ready else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus exposition."""
        return Response(await service.metrics(), media_type=CONTENT_TYPE)

    return router


def _figures(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/api/health/pool")
    def pool() -> dict[str, Any]:
        """Size, idle, checked out and waiting of the connection pool, and active operations."""
        return {"status": "success", "data": service.pool()}

    @router.get("/api/v1/operations")
    def operations() -> dict[str, Any]:
        """Handler calls under way in this process, oldest first."""
        return {"status": "success", "data": service.operations()}

    @router.get("/api/v1/queues")
    async def queues() -> dict[str, Any]:
        """Pending, processing and failed rows of each queue."""
        return {"status": "success", "data": await service.queues()}

    return router


def _error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
