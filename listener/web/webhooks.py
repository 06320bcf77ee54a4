"""`POST /webhooks/shipstation/{secret}`: keeps what comes, starts a run, answers. Nothing is fetched here.

ShipStation signs nothing; the secret in the address is what tells it from others. The body only names an address of the
API, which is fetched with our credentials: so it must be ShipStation's own.
"""

import hashlib
import hmac
import json
import math
import time
from collections.abc import Callable

from pydantic import SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from listener.db.sync_runs import SyncRuns
from listener.web.access import Refused

# Theirs have a hundred bytes or two.
MOST_BYTES = 65_536
TELL_EVERY_S = 60.0


def shipstation_webhooks(
    runs: SyncRuns, *, secret: SecretStr | None, is_theirs: Callable[[str], bool], on_refused: Callable[[int], None]
) -> Route:
    """Return the route. secret: None = nobody may call. is_theirs: may an address be fetched. on_refused: is told how
    many calls came without the secret, at most once a minute."""
    expected = secret.get_secret_value().encode() if secret else None
    refusals = Refusals(on_refused)

    async def receive(request: Request) -> JSONResponse:
        """Take a webhook of ShipStation. 401 wrong secret, 413 too long, 400 unreadable or another host's address."""
        if expected is None or not hmac.compare_digest(request.path_params["given"].encode(), expected):
            refusals.note()
            raise Refused(401, "unauthorized", "The address must end with SHIPSTATION_WEBHOOK_SECRET's value.")
        body = await _body(request)
        kind, url = _read(body)
        if not is_theirs(url):
            raise Refused(400, "foreign_address", "resource_url is no address of ShipStation's API.")
        key = hashlib.sha256(f"{kind}\n{url}".encode(errors="backslashreplace")).hexdigest()
        run_id = await runs.receive(dedupe_key=key, body=body, url=url)
        return JSONResponse({"status": "repeated" if run_id is None else "accepted", "run": run_id})

    return Route("/webhooks/shipstation/{given}", receive, methods=["POST"])


class Refusals:
    """Tells of callers without the secret, at most once a minute: a stranger must not fill the log."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._count = 0
        self._told_s = -math.inf

    def note(self, now_s: float | None = None) -> None:
        """Count one. now_s: seconds of a clock that never goes back."""
        now_s = time.monotonic() if now_s is None else now_s
        self._count += 1
        if now_s - self._told_s >= TELL_EVERY_S:
            self._tell(self._count)
            self._count, self._told_s = 0, now_s


async def _body(request: Request) -> bytes:
    told = request.headers.get("content-length", "0")
    body = b""
    if not told.isdigit() or int(told) <= MOST_BYTES:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                break
        else:
            return body
    raise Refused(413, "too_large", f"A webhook has at most {MOST_BYTES} bytes.")


def _read(body: bytes) -> tuple[str, str]:
    try:
        document = json.loads(body)
        kind, url = document["resource_type"], document["resource_url"]
    except (ValueError, TypeError, KeyError, RecursionError):
        kind = url = None
    if not isinstance(kind, str) or not isinstance(url, str) or len(url) > 2_000 or not _is_text(url):
        raise Refused(400, "unreadable", "The body must be JSON with the texts resource_url and resource_type.")
    return kind, url


def _is_text(url: str) -> bool:
    """Half of a surrogate pair is a str of Python and JSON, and no text of Postgres; nor is NUL."""
    return "\x00" not in url and not any("\ud800" <= letter <= "\udfff" for letter in url)
