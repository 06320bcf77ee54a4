"""A shop's export address, which speaks ShipStation's custom store protocol: `?action=export&start_date=…&page=N`.

Times are UTC, to the minute. The address's own query (an `auth_key`, say) is sent with each call and shown nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO
from urllib.parse import urlencode, urlsplit

from listener.clients.client import Client
from listener.clients.http import Raw
from listener.core.budget import Budget, RateHeaders
from listener.core.errors import Unavailable
from listener.core.events import Publish

CONNECTOR = "shop"
# Of a reply without a time in it that asks us to come back later.
_BLIND_WAIT_S = 60.0
_MOST_WAIT_S = 3_600.0


@dataclass(frozen=True, slots=True)
class _Answered:
    rate: RateHeaders


class ShopExport(Client):
    """One shop. `account`: its pauses, shared with the other processes. uri: its address without what may be secret."""

    def __init__(
        self, url: str, *, user: str | None, password: str | None, timeout_s: float, budget: Budget, publish: Publish
    ) -> None:
        parts = urlsplit(url)
        self.uri = f"{parts.scheme}://{parts.netloc}{parts.path}"
        self._path, self._query = parts.path or "/", parts.query
        super().__init__(
            f"{parts.scheme}://{parts.netloc}",
            connector=CONNECTOR,
            name=account_name(url),
            auth=None if user is None else (user, password or ""),
            timeout_s=timeout_s,
            budget=budget,
            publish=publish,
            connections=2,
        )

    async def page(
        self, start: datetime, end: datetime, number: int, file: BinaryIO, *, most_bytes: int, most_s: float
    ) -> None:
        """Write one page of the orders that were modified between two moments into `file`.

        Raises Unavailable (the shop as a whole), TooLarge.
        """
        asked = {"action": "export", "start_date": _stamp(start), "end_date": _stamp(end), "page": str(number)}
        own = f"{self._query}&" if self._query else ""

        async def send() -> _Answered:
            raw = await self._http.download(
                f"{self._path}?{own}{urlencode(asked)}",
                file,
                most_bytes=most_bytes,
                most_s=most_s,
                named=f"{self._path}?{urlencode(asked)}",
            )
            _check(raw)
            return _Answered(RateHeaders())

        await self.account.call(send)


def account_name(url: str) -> str:
    """Name a shop in budgets and metrics: its host."""
    return urlsplit(url).netloc


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%m/%d/%Y %H:%M")


def _check(raw: Raw) -> None:
    """Raise Unavailable for what is no success: whatever it is, it is not an order's fault."""
    if 200 <= raw.status < 300:
        return
    words = " ".join(raw.body[:500].decode("utf-8", "replace").split())[:200]
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    if raw.status in (401, 403):
        raise Unavailable(
            f"the shop refuses the credentials ({raw.status}: {words}); check IMPORT_SHOP_USER, IMPORT_SHOP_PASSWORD "
            "and the key in IMPORT_SHOP_URL",
            reason="credentials",
        )
    if raw.status == 429:
        raise Unavailable(f"the shop answered 429: {words}", reason="throttled", wait_s=_wait_s(raw.headers))
    if 300 <= raw.status < 400:
        where = raw.headers.get("location", "")[:200]
        raise Unavailable(f"the shop sends us to {where!r}; set IMPORT_SHOP_URL to where it is", reason="outage")
    hint = "; check IMPORT_SHOP_URL" if raw.status in (400, 404, 405) else ""
    raise Unavailable(f"the shop answered {raw.status}: {words}{hint}", reason="outage")


def _wait_s(headers: Mapping[str, str]) -> float:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return _BLIND_WAIT_S
    return seconds if 0 <= seconds <= _MOST_WAIT_S else _BLIND_WAIT_S
