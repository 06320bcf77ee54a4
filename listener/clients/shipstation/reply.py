"""What a ShipStation reply means. Pure; facts in docs.shipstation.com (V1 requirements) and field reports."""

import json
import re
from dataclasses import dataclass
from typing import Any

from listener.clients.http import Raw
from listener.core.budget import RateHeaders
from listener.core.errors import Broken, Rejected, Unavailable

# No readable reset header on a 429: the whole window, as the careful public clients do.
BLIND_WAIT_S = 60.0
# Longer than any window; a header beyond it is taken for a mistake (an epoch time, say).
MOST_WAIT_S = 3600.0
_NO_JSON = object()
_TITLE = re.compile(rb"<title[^>]{0,100}>([^<]{1,200})", re.IGNORECASE)


# A 4xx that speaks of what was sent. Any other (405, 407 of a proxy, 408, 410 …) would be the same for every order.
CONTENT_STATUSES = frozenset({400, 409, 413, 422})


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx reply with JSON in it."""

    body: Any
    rate: RateHeaders


def read(raw: Raw) -> Reply:
    """Return the reply's JSON, or raise what it means: Unavailable, Rejected or Broken."""
    try:
        body = json.loads(raw.body)
    except (ValueError, RecursionError):
        body = _NO_JSON
    words = _words(body, raw)
    is_success = 200 <= raw.status < 300
    shown = _outline(body, raw) if is_success else words  # what should have been data may be customers'
    if raw.status == 429 or ("too many requests" in words.lower() and not (is_success and _is_results(body))):
        raise Unavailable(f"ShipStation answered {raw.status}: {shown}", reason="throttled", wait_s=_wait_s(raw))
    if raw.status in (401, 402, 403):
        raise Unavailable(
            f"ShipStation refuses the credentials ({raw.status}: {words}); "
            "check SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET",
            reason="credentials",
        )
    if raw.status == 404:
        raise Unavailable("ShipStation answered 404: no such address; check SHIPSTATION_BASE_URL", reason="outage")
    if raw.status == 500:
        raise Broken(f"ShipStation answered 500: {words}")
    if raw.status in CONTENT_STATUSES:
        raise Rejected(f"ShipStation answered {raw.status}: {words}", status=raw.status)
    if not is_success:
        raise Unavailable(
            f"ShipStation answered {raw.status}: {words}", reason="outage", wait_s=_seconds(raw, "retry-after")
        )
    if body is _NO_JSON:
        raise Unavailable(
            f"ShipStation answered {raw.status} with something that is not JSON: {shown}", reason="outage"
        )
    return Reply(body, rate(raw))


def read_results(raw: Raw) -> Reply:
    """`read`, for a call that is answered by a list of results; other JSON is the API's fault as a whole."""
    reply = read(raw)
    if not _is_results(reply.body):
        raise Unavailable(
            f"ShipStation answered {raw.status} with JSON that has no results: {_outline(reply.body, raw)}",
            reason="outage",
        )
    return reply


def _is_results(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("results"), list)


def rate(raw: Raw) -> RateHeaders:
    """Read the X-Rate-Limit headers; X-Rate-Limit-Reset is seconds left, not an epoch time."""
    return RateHeaders(
        limit=_whole(raw, "x-rate-limit-limit"),
        remaining=_whole(raw, "x-rate-limit-remaining"),
        reset_s=_seconds(raw, "x-rate-limit-reset"),
    )


def _wait_s(raw: Raw) -> float:
    told = [s for s in (_seconds(raw, "retry-after"), _seconds(raw, "x-rate-limit-reset")) if s is not None]
    return max(*told, 1.0) if told else BLIND_WAIT_S


def _seconds(raw: Raw, name: str) -> float | None:
    try:
        seconds = float(raw.headers.get(name, ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MOST_WAIT_S else None


def _whole(raw: Raw, name: str) -> int | None:
    text = raw.headers.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _words(body: Any, raw: Raw) -> str:
    """The vendor's words: `message` or `Message` (with ExceptionMessage), else the body's beginning; printable."""
    told = _told(body)
    return _line(told, 500) if told else _line(raw.body[:2000].decode("utf-8", "replace"), 200)


def _outline(body: Any, raw: Raw) -> str:
    """What a 2xx body is, without its content: the vendor's words, or its length, its type and a page's title."""
    if told := _told(body):
        return _line(told, 500)
    kind = _line(raw.headers.get("content-type", "").partition(";")[0], 60)
    title = _TITLE.search(raw.body[:20_000])
    words = title and _line(title[1].decode("utf-8", "replace"), 100)
    return f"{len(raw.body):,} bytes" + (f" of {kind}" if kind else "") + (f", titled {words!r}" if words else "")


def _told(body: Any) -> str:
    if not isinstance(body, dict):
        return ""
    return " ".join(str(body[key]) for key in ("message", "Message", "ExceptionMessage") if body.get(key))


def _line(text: str, most: int) -> str:
    return "".join(c if c.isprintable() else "?" for c in " ".join(text[:2000].split())[:most])
