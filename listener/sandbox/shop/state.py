"""What one shop holds: orders with the time of their last change, and what it was told of shipments."""

import base64
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from listener.sandbox.clock import Clock
from listener.sandbox.exchange import Box


class ShopSettings(BaseModel):
    """How a shop begins.

    Attributes:
        user, password: Basic auth; `auth_key` in the query counts instead, as with plug-ins.
        page_size: orders of one page.
        newest_first: the order of a listing, by the last change; false = oldest first.
        skips: statuses that count for the pages but are not written, as plug-ins do with orders that need no shipping.
        tells_pages: the root says how many pages there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = "shop-user"
    password: SecretStr = SecretStr("shop-password")
    auth_key: str | None = None
    page_size: int = Field(default=50, ge=1)
    newest_first: bool = True
    skips: tuple[str, ...] = ()
    tells_pages: bool = True


@dataclass(slots=True)
class Sold:
    """One order of the shop. modified_at: seconds since 1970. fields: elements of `Order`, by name."""

    number: str
    modified_at: float
    status: str = "paid"
    fields: dict[str, Any] = field(default_factory=dict)


class Shop(Box):
    """The state of one shop."""

    def __init__(self, settings: ShopSettings, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.settings = settings
        self.orders: dict[str, Sold] = {}
        self.notices: list[dict[str, Any]] = []
        self._password = settings.password.get_secret_value()

    def sell(self, number: str, *, ago_s: float = 0.0, status: str = "paid", **fields: Any) -> None:
        """Put in an order, or change one. ago_s: the change was so long ago, and is only seen now."""
        sold = self.orders.setdefault(number, Sold(number, 0.0))
        sold.modified_at = self.clock.epoch_s() - ago_s
        sold.status = status
        sold.fields.update(fields)

    def change_password(self, password: str) -> None:
        """Admit nobody who knows the former one only."""
        self._password = password

    def admits(self, authorization: str, auth_key: str | None) -> bool:
        """Tell whether a call carries the credentials."""
        if self.settings.auth_key is not None:
            return auth_key == self.settings.auth_key
        token = base64.b64encode(f"{self.settings.user}:{self._password}".encode()).decode()
        return authorization == f"Basic {token}"

    def page(self, start: datetime, end: datetime, number: int) -> tuple[list[Sold], int]:
        """Give one page of what was modified from `start` to `end`, to the minute, and how many pages there are."""
        first_s, last_s = start.replace(tzinfo=UTC).timestamp(), end.replace(tzinfo=UTC).timestamp()
        found = [sold for sold in self.orders.values() if first_s <= sold.modified_at // 60 * 60 <= last_s]
        found.sort(key=lambda sold: sold.modified_at, reverse=self.settings.newest_first)
        size = self.settings.page_size
        rows = found[(number - 1) * size : number * size]
        return [sold for sold in rows if sold.status not in self.settings.skips], math.ceil(len(found) / size)
