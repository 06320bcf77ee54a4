"""What a ShipStation reply means. Pure; facts in docs.shipstation.com (V1 requirements) and field reports."""

import json
from dataclasses import dataclass
from typing import Any

from listener.clients.http import Raw
from listener.core.budget import RateHeaders
from listener.core.errors import Broken, Rejected, Unavailable

# No readable reset header on a 429: the whole window, as the careful public clients do.
BLIND_WAIT_S = 60.0
# Longer than any window; a header beyond it is taken for a mistake (an epoch time, say).
MOST_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A 2xx reply with JSON in it."""

    body: Any
    rate: RateHeaders


def read(raw: Raw) -> Reply:
    """Return the reply's JSON, or raise what it means: Unavailable, Rejected or Broken."""
    message = _message(raw)
    if raw.status == 429 or "Too Many Requests" in message:
        raise Unavailable(f"ShipStation answered {raw.status}: {message}", reason="throttled", wait_s=_wait_s(raw))
    if raw.status in (401, 402, 403):
        raise Unavailable(
            f"ShipStation refuses the credentials ({raw.status}: {message}); "
            "check SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET",
            reason="credentials",
        )
    if raw.status == 404:
        raise Unavailable("ShipStation answered 404: no such address; check SHIPSTATION_BASE_URL", reason="outage")
    if raw.status == 500:
        raise Broken(f"ShipStation answered 500: {message}")
    if raw.status >= 500 or 300 <= raw.status < 400:
        raise Unavailable(
            f"ShipStation answered {raw.status}: {message}", reason="outage", wait_s=_seconds(raw, "retry-after")
        )
    if raw.status >= 400:
        raise Rejected(f"ShipStation answered {raw.status}: {message}", status=raw.status)
    try:
        body = json.loads(raw.body)
    except ValueError as error:
        raise Unavailable(
            f"ShipStation answered {raw.status} with something that is not JSON: {message}", reason="outage"
        ) from error
    return Reply(body, rate(raw))


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


def _message(raw: Raw) -> str:
    """The vendor's words: `message` or `Message` (with ExceptionMessage), else the body's beginning."""
    try:
        body = json.loads(raw.body)
    except ValueError:
        body = None
    if isinstance(body, dict):
        words = [str(body[key]) for key in ("message", "Message", "ExceptionMessage") if body.get(key)]
        if words:
            return " ".join(words)[:500]
    return " ".join(raw.body[:2000].decode("utf-8", "replace").split())[:200]
