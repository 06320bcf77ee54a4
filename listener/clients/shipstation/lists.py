"""Pages of ShipStation's lists: what a reply must look like, and which addresses a webhook may name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

from listener.clients.http import Raw
from listener.clients.shipstation.reply import read
from listener.core.budget import RateHeaders
from listener.core.errors import Unavailable

MOST_ROWS = 500  # of one page
_VENDOR = re.compile(r"ssapi\d*\.shipstation\.com")


@dataclass(frozen=True, slots=True)
class Page:
    """One page. rows: as they came. total: rows of the whole list. answered_at: by the vendor's clock, when it said."""

    rows: list[Any]
    total: int
    answered_at: datetime | None
    rate: RateHeaders


def read_page(raw: Raw, name: str) -> Page:
    """Return the page of the list `name` (orders, shipments, fulfillments), or raise what the reply means.

    Raises Unavailable, Rejected, Broken; a reply without such a list is the API's fault as a whole.
    """
    reply = read(raw)
    rows = reply.body.get(name) if isinstance(reply.body, dict) else None
    total = reply.body.get("total") if isinstance(reply.body, dict) else None
    if not isinstance(rows, list) or not isinstance(total, int):
        raise Unavailable(f"ShipStation answered {raw.status} with JSON that is no page of {name}", reason="outage")
    return Page(rows, total, _moment(raw.headers.get("date", "")), reply.rate)


def address(path: str, query: Mapping[str, str | int]) -> str:
    """Write the path of one page, with its query."""
    return f"{path}?{urlencode(query)}"


def is_theirs(url: str, base_url: str) -> bool:
    """Tell whether an address that a webhook names is ShipStation's own: or a numbered sister's.

    Nothing else is fetched: the call would carry our credentials, and reach what only this machine can.
    """
    try:
        parts, own = urlsplit(url), urlsplit(base_url)
        is_own = (parts.scheme, parts.hostname, parts.port) == (own.scheme, own.hostname, own.port)
        is_vendors = parts.scheme == "https" and parts.port is None and bool(_VENDOR.fullmatch(parts.hostname or ""))
    except ValueError:
        return False
    return parts.username is None and parts.password is None and (is_own or is_vendors)


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
