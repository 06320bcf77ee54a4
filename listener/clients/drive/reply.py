"""What a reply of Google Drive means. Pure; the classes are those of developers.google.com "Resolve errors"."""

import json
from collections.abc import Mapping
from typing import Any

from listener.clients.http import Raw
from listener.core.errors import Rejected, Unavailable

# 403 says two things: too much was asked for lately, or this very thing is not allowed.
_TOO_MUCH = frozenset({"userRateLimitExceeded", "rateLimitExceeded", "sharingRateLimitExceeded", "quotaExceeded"})
_TODAY = "dailyLimitExceeded"
_OF_THE_FILE = frozenset(
    {
        "insufficientFilePermissions",
        "appNotAuthorizedToFile",
        "cannotDownloadAbusiveFile",
        "cannotDownloadFile",
        "fileNotDownloadable",
        "notFound",
    }
)
# The day's quota ends with the day; every hour is soon enough to look.
TODAY_WAIT_S = 3_600.0


def read(raw: Raw) -> Mapping[str, Any]:
    """Return the JSON of a reply, or raise what it means: Unavailable, Rejected."""
    check(raw)
    try:
        body = json.loads(raw.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Unavailable(f"Google Drive answered {raw.status} with something that is no JSON object", reason="outage")
    return body


def check(raw: Raw) -> None:
    """Raise what a reply means that is no success.

    Unavailable: the API as a whole; reason ``expired``: the access token. Rejected: what was asked for.
    """
    if 200 <= raw.status < 300:
        return
    reason, words = _told(raw)
    told = f"Google Drive answered {raw.status}{f' {reason}' if reason else ''}: {words}"
    if raw.status == 401:
        raise Unavailable(told, reason="expired")
    if raw.status == 429 or (raw.status == 403 and reason in _TOO_MUCH):
        raise Unavailable(told, reason="throttled", wait_s=_wait_s(raw))
    if raw.status == 403 and reason == _TODAY:
        raise Unavailable(told, reason="throttled", wait_s=TODAY_WAIT_S)
    if raw.status in (400, 404, 410, 416) or (raw.status == 403 and reason in _OF_THE_FILE):
        raise Rejected(told, status=raw.status)
    if raw.status == 403:
        raise Unavailable(
            f"{told}; is the Drive API enabled for the account's project, and the folder shared with it?",
            reason="credentials",
        )
    raise Unavailable(told, reason="outage", wait_s=_wait_s(raw))


def token_of(raw: Raw) -> tuple[str, float]:
    """Return an access token and the seconds that it is good for. Raises Unavailable."""
    try:
        body = json.loads(raw.body)
    except (ValueError, RecursionError):
        body = {}
    if raw.status in (400, 401, 403):
        words = f"{body.get('error', '')}: {body.get('error_description', '')}" if isinstance(body, dict) else ""
        raise Unavailable(
            f"Google refuses the service account ({raw.status} {words[:300]}); check DRIVE_SERVICE_ACCOUNT_FILE "
            "and this machine's clock",
            reason="credentials",
        )
    token = body.get("access_token") if isinstance(body, dict) else None
    if not 200 <= raw.status < 300 or not isinstance(token, str):
        raise Unavailable(f"Google's token address answered {raw.status} without a token", reason="outage")
    good_s = body.get("expires_in")
    return token, float(good_s) if isinstance(good_s, int | float) else 0.0


def _told(raw: Raw) -> tuple[str, str]:
    """The reason's one word and the sentence, or the body's beginning."""
    try:
        error = json.loads(raw.body)["error"]
        details = error.get("errors") or [{}]
        reason, words = str(details[0].get("reason", "")), str(error.get("message", ""))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        reason, words = "", raw.body[:300].decode("utf-8", "replace")
    return reason, "".join(c if c.isprintable() else "?" for c in " ".join(words.split())[:300])


def _wait_s(raw: Raw) -> float | None:
    try:
        seconds = float(raw.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= TODAY_WAIT_S else None
