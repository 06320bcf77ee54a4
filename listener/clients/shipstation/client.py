"""Calls to ShipStation V1, each one paid from the account's shared budget."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from listener.clients.client import Client
from listener.clients.shipstation.lists import Page, address, read_page
from listener.clients.shipstation.reply import Reply, read, read_results
from listener.core.budget import Budget
from listener.core.errors import Broken, Rejected, Unavailable
from listener.core.events import Publish

CONNECTOR = "shipstation"
CREATE_ORDERS = "/orders/createorders"
# Orders know modifyDateStart, shipments know createDateStart, and neither has any of that year.
_NOTHING: Mapping[str, str | int] = {
    "modifyDateStart": "2999-01-01 00:00:00",
    "createDateStart": "2999-01-01 00:00:00",
    "pageSize": 1,
}


class ShipStation(Client):
    """One account. `account` is also the dispatcher's gate: no row is claimed before a call can be made."""

    def __init__(
        self, base_url: str, *, key: str, secret: str, timeout_s: float, budget: Budget, publish: Publish
    ) -> None:
        super().__init__(
            base_url,
            connector=CONNECTOR,
            name=account_name(key),
            auth=(key, secret),
            timeout_s=timeout_s,
            budget=budget,
            publish=publish,
        )

    async def create_orders(self, content: bytes) -> Any:
        """POST /orders/createorders: at most 100 orders as a JSON array; returns the reply's JSON.

        An upsert by `orderKey`, so a repeat is harmless. Raises Unavailable, Rejected, Broken.
        """

        async def send() -> Reply:
            return read_results(await self._http.request("POST", CREATE_ORDERS, content=content))

        return (await self.account.call(send)).body

    async def accepts_orders(self) -> bool:
        """POST /orders/createorders without an order: changes nothing, and tells a 500 of the API from an order's.

        Raises Unavailable.
        """

        async def send() -> Reply:
            return read(await self._http.request("POST", CREATE_ORDERS, content=b"[]"))

        try:
            await self.account.call(send)
        except Rejected:
            return True  # it looked at what was sent
        except Broken:
            return False
        return True

    async def list_page(
        self, path: str, name: str, query: Mapping[str, str | int], *, base_url: str | None = None
    ) -> Page:
        """GET one page of a list: /orders, /shipments, /fulfillments. base_url: another host of the API.

        Raises Unavailable (which pauses nothing yet, but for throttling: `empty_page` tells whose fault it is),
        Rejected, Broken.
        """
        send = self._page(path, name, query, base_url)
        if base_url is not None:
            return await self.account.call_elsewhere(send)
        return await self.account.call(send, is_doubtful=True)

    async def empty_page(self, *, besides: str = "/shipments") -> Page | None:
        """GET a list that no order is in, another one than `besides`; None when even that is answered with 500.

        Raises Unavailable, and then it is the account's.
        """
        name = "shipments" if besides == "/orders" else "orders"
        try:
            return await self.account.call(self._page(f"/{name}", name, _NOTHING, None))
        except Broken:
            return None

    def _page(
        self, path: str, name: str, query: Mapping[str, str | int], base_url: str | None
    ) -> Callable[[], Awaitable[Page]]:
        async def send() -> Page:
            return read_page(await self._http.request("GET", address(path, query), base_url=base_url), name)

        return send

    async def subscribe(self, url: str, event: str, name: str) -> int:
        """POST /webhooks/subscribe for all stores; returns its id. Raises Unavailable, Rejected, Broken."""
        wish = {"target_url": url, "event": event, "store_id": None, "friendly_name": name}
        return int((await self._ask("POST", "/webhooks/subscribe", wish)).body["id"])

    async def webhooks(self) -> list[dict[str, Any]]:
        """GET /webhooks: the subscriptions. Raises Unavailable, Rejected, Broken."""
        return list((await self._ask("GET", "/webhooks")).body["webhooks"])

    async def _ask(self, method: str, path: str, wish: Any = None) -> Reply:
        content = None if wish is None else json.dumps(wish).encode()

        async def send() -> Reply:
            return read(await self._http.request(method, path, content=content))

        return await self.account.call(send)

    async def report_down(self, error: Exception) -> Unavailable:
        """Say that it is the API's fault, not an order's; returns what to raise."""
        return await self.account.report_down(error)


def account_name(key: str) -> str:
    """Name an account in budgets and metrics without giving its key away: the key's last four characters."""
    return f"…{key[-4:]}" if len(key) > 8 else "default"
