"""A sandbox behind a real server on a loopback port, and a client for it."""

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx2
import uvicorn
from starlette.applications import Starlette
from waiting import until

from listener.sandbox.clock import Clock
from listener.sandbox.shipstation import Sandbox, SandboxSettings, build


class AppServer(uvicorn.Server):
    """Uvicorn in a thread; `ready` is set when it listens."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    def __enter__(self) -> Self:
        self.thread.start()
        assert self.ready.wait(10)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.should_exit = True
        self.thread.join(10)
        assert not self.thread.is_alive(), "the server did not stop"

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.servers[0].sockets[0].getsockname()
        return host, port

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)


class Server(AppServer):
    """A ShipStation."""

    def __init__(self, settings: SandboxSettings, clock: Clock | None = None) -> None:
        app = build(settings, clock=clock)
        super().__init__(app)
        self.sandbox: Sandbox = app.state.sandbox


class Client:
    """The API with credentials, and the control endpoints without."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        base = f"http://{address[0]}:{address[1]}"
        # Nothing here is encrypted; loading the trusted certificates would take most of a test's time.
        plain: dict[str, Any] = {"base_url": base, "timeout": 10, "trust_env": False, "verify": False}
        self.http = httpx2.Client(auth=("sandbox-key", "sandbox-secret"), **plain)
        self.anonymous = httpx2.Client(**plain)

    def close(self) -> None:
        self.http.close()
        self.anonymous.close()

    def control(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        reply = self.anonymous.request(method, f"/sandbox/{path}", json=body)
        assert reply.status_code == status, reply.text
        return reply.json()

    def fault(self, *faults: dict[str, Any]) -> None:
        self.control("PUT", "faults", list(faults))

    def create(self, *orders: Any) -> httpx2.Response:
        return self.http.post("/orders/createorders", json=list(orders))

    def get(self, path: str, **query: Any) -> Any:
        reply = self.http.get(path, params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def numbers(self, **query: Any) -> list[str]:
        return [each["orderNumber"] for each in self.get("/orders", **query)["orders"]]

    def held(self) -> dict[str, Any]:
        return {each["orderKey"]: each for each in self.control("GET", "orders")}

    def stats(self) -> Any:
        return self.control("GET", "stats")

    def until_in_flight(self, count: int) -> None:
        """Wait until so many calls are under way."""
        until(lambda: self.stats()["in_flight"] == count, what=f"{count} calls under way")

    def open_call(self, body: bytes, path: str = "/orders/createorders") -> socket.socket:
        """Send a call and leave its reply unread."""
        token = base64.b64encode(b"sandbox-key:sandbox-secret").decode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        peer = socket.create_connection(self.address)
        peer.sendall(head.encode() + body)
        return peer


@contextmanager
def serving(**settings: Any) -> Iterator[Client]:
    """An empty sandbox of the caller's own, without a rate limit unless it is set."""
    with Server(SandboxSettings(**{"limit": 0, **settings})) as server:
        api = Client(server.address)
        try:
            yield api
        finally:
            api.control("DELETE", "faults")
            api.close()
            server.sandbox.close()


def order(number: str = "1001", **changes: Any) -> dict[str, Any]:
    """The minimal order that is accepted, with changes."""
    return {
        "orderNumber": number,
        "orderKey": f"shop-{number}",
        "orderDate": "2025-01-23T07:30:00.0000000",
        "orderStatus": "awaiting_shipment",
        "billTo": {"name": "A Buyer"},
        "shipTo": {
            "name": "A Buyer",
            "street1": "1 Main St",
            "city": "Austin",
            "state": "TX",
            "postalCode": "78701",
            "country": "US",
        },
        "items": [{"lineItemKey": "L1", "sku": "ABC", "name": "Thing", "quantity": 2, "unitPrice": 9.99}],
        "amountPaid": 19.98,
        "taxAmount": 0,
        "shippingAmount": 0,
        "advancedOptions": {"storeId": 12345, "customField1": "batch-7"},
        **changes,
    }
