"""Who may call what reveals or changes data.

With a token: whoever shows it. Without one: only a program on this machine that says so itself — a loopback peer, a
loopback Host (a web page elsewhere reaches 127.0.0.1 under its own name: DNS rebinding) and no forwarding header (a
proxy on this machine speaks for others).
"""

import hmac
import ipaddress
from collections.abc import Callable
from functools import wraps

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FORWARDING = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"})


class Refused(Exception):  # noqa: N818
    """The caller may not do this. status 401 or 403, a machine code and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def guard(token: SecretStr | None) -> Callable[[Request], None]:
    """Return the check for guarded routes; it raises Refused."""

    expected = f"Bearer {token.get_secret_value()}".encode() if token else b""

    def with_token(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), expected):
            raise Refused(
                401, "unauthorized", "Send the header 'Authorization: Bearer …' with LISTENER_API_TOKEN's value."
            )

    def from_loopback(request: Request) -> None:
        peer = request.client.host if request.client else ""
        host = request.headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if not _is_loopback(peer) or not _is_loopback(name.strip("[]")) or _is_forwarded(request):
            raise Refused(
                403, "loopback_only", "Without LISTENER_API_TOKEN only this machine may call; set it to allow others."
            )

    return from_loopback if token is None else with_token


def guarded(route: Route, check: Callable[[Request], None]) -> Route:
    """Return the route with a check before it; which raises Refused."""
    endpoint = route.endpoint

    @wraps(endpoint)
    async def checked(request: Request) -> Response:
        check(request)
        response: Response = await endpoint(request)
        return response

    return Route(route.path, checked, methods=list(route.methods or ()))


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # a socket that serves both families shows IPv4 peers as ::ffff:127.0.0.1
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_forwarded(request: Request) -> bool:
    return any(name in _FORWARDING or name.startswith("x-forwarded") for name in request.headers)
