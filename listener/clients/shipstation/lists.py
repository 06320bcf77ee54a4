"""Pages of ShipStation's lists: what a reply must look like, and which addresses a webhook may name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from listener.clients.http import Raw
from listener.clients.shipstation.reply import read
from listener.core.budget import RateHeaders
from listener.core.errors import Unavailable

MOST_ROWS = 500  # of one page
_SISTER = re.compile(r"ssapi[0-9]*\.shipstation\.com")


@dataclass(frozen=True, slots=True)
class Page:
    """One page. rows: as they came. total: rows of the whole list. answered_at: by the vendor's clock, when it said."""

    rows: list[Any]
    total: int
    answered_at: datetime | None
    rate: RateHeaders


@dataclass(frozen=True, slots=True)
class Named:
    """A list that a webhook names. base_url: of a sister host; None = the account's own."""

    path: str
    query: dict[str, str]
    base_url: str | None


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
    """Tell whether an address that a webhook names is ShipStation's own, or a numbered sister's."""
    return read_named(url, base_url) is not None


def read_named(url: str, base_url: str) -> Named | None:
    """Read an address that a webhook names; None unless it is ShipStation's own, or a numbered sister's.

    Nothing else is fetched: the call would carry our credentials, and reach what only this machine can.
    """
    if not url.isprintable():
        return None
    try:
        parts, own = urlsplit(url), urlsplit(base_url)
        is_own = (parts.scheme, parts.hostname, parts.port) == (own.scheme, own.hostname, own.port)
        host = parts.hostname or ""
        is_sisters = parts.scheme == "https" and parts.port is None and bool(_SISTER.fullmatch(host))
    except ValueError:
        return None
    if parts.username is not None or parts.password is not None or not (is_own or is_sisters):
        return None
    return Named(parts.path, dict(parse_qsl(parts.query)), None if is_own else f"https://{host}")


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
