"""`GET /openapi.json`: the routes, described by what stands in the code. Made when somebody asks, not at the start."""

from collections.abc import Sequence
from importlib import metadata
from inspect import getdoc
from typing import Any

from starlette.routing import Route


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document: each path, its methods, the endpoint's docstring, the path's own parameters."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(route.path_format, {})[method.lower()] = _operation(route)
    about = {"title": "order-listener", "version": metadata.version("order-listener")}
    return {"openapi": "3.1.0", "info": about, "paths": paths}


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in sorted(route.param_convertors)
    ]
    return {
        "operationId": route.name,
        "summary": route.name.replace("_", " ").capitalize(),
        "description": getdoc(route.endpoint) or "",
        **({"parameters": parameters} if parameters else {}),
        "responses": {"200": {"description": 'JSON; an error is {"error": {"code", "message"}}'}},
    }
