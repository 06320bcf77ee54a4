"""What one Drive holds: files with their current state, and the order in which they changed last."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from listener.sandbox.clock import Clock
from listener.sandbox.drive.token import Keys
from listener.sandbox.exchange import Answer, Box
from listener.sandbox.faults import Fault

NATIVE = "application/vnd.google-apps."


class DriveSettings(BaseModel):
    """How a Drive begins.

    Attributes:
        page_size: rows of a page at most, whatever is asked for.
        empty_pages: an empty page stands before each page but the first, as the real one may do.
        token_s: seconds that an access token is good for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    page_size: int = Field(default=100, ge=1)
    empty_pages: bool = True
    token_s: int = Field(default=3_600, ge=1)


@dataclass(slots=True)
class Stored:
    """One file. content: None for a Google document. changed: number of its last change. is_removed: not seen now."""

    id: str
    name: str
    kind: str
    parents: list[str]
    content: bytes | None
    modified_at: float
    revision: int = 1
    is_trashed: bool = False
    is_removed: bool = False
    changed: int = 0

    def describe(self) -> dict[str, Any]:
        """Give all fields of the file resource."""
        at = datetime.fromtimestamp(self.modified_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        described = {
            "kind": "drive#file",
            "id": self.id,
            "name": self.name,
            "mimeType": self.kind,
            "parents": self.parents,
            "trashed": self.is_trashed,
            "modifiedTime": at,
            "version": str(self.changed),
        }
        if self.content is not None:
            described |= {
                "size": str(len(self.content)),
                "md5Checksum": hashlib.md5(self.content, usedforsecurity=False).hexdigest(),
                "headRevisionId": f"{self.id}-r{self.revision}",
            }
        return described


class Cloud(Box):
    """The state of one Drive, and of the service account that may see it."""

    def __init__(self, settings: DriveSettings, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.settings = settings
        self.stored: dict[str, Stored] = {}
        self.oldest_token = 0
        self.keys = Keys(self.clock, settings.token_s)
        self._changes = 0

    @property
    def newest_token(self) -> int:
        """Where the feed ends."""
        return self._changes

    def put(
        self,
        name: str,
        content: bytes | None,
        *,
        folder: str,
        id_: str | None = None,
        kind: str = "text/xml",
        modified_at: float | None = None,
    ) -> str:
        """Upload a file, or a new version of the one with this id; its id. modified_at: the uploader's own word."""
        id_ = id_ or f"file{len(self.stored) + 1:06}"
        at = self.clock.epoch_s() if modified_at is None else modified_at
        known = self.stored.get(id_)
        if known is None:
            self.stored[id_] = Stored(id_, name, kind, [folder], content, at)
        else:
            known.name, known.content, known.modified_at = name, content, at
            known.revision += 1
        self.touch(id_)
        return id_

    def trash(self, id_: str) -> None:
        """Put a file into the trash: it is listed still."""
        self.stored[id_].is_trashed = True
        self.touch(id_)

    def move(self, id_: str, folder: str) -> None:
        """Move a file to another folder."""
        self.stored[id_].parents = [folder]
        self.touch(id_)

    def remove(self, id_: str) -> None:
        """Delete a file, or take it from the account."""
        self.stored[id_].is_removed = True
        self.touch(id_)

    def touch(self, id_: str) -> None:
        """Note a change: only the last one of a file is told."""
        self._changes += 1
        self.stored[id_].changed = self._changes

    def forget_changes(self) -> None:
        """Refuse every page token of the feed that is not the newest from now on."""
        self._changes += 1
        self.oldest_token = self._changes

    def failure(self, fault: Fault) -> Answer | None:
        """Give a fault's reply in Drive's own form; `message` is the reason's one word."""
        if fault.status is None or fault.html200:
            return super().failure(fault)
        words = {401: "authError", 403: "userRateLimitExceeded", 404: "notFound", 429: "rateLimitExceeded"}
        headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return refusal(fault.status, fault.message or words.get(fault.status, "backendError"), headers=headers)


def refusal(status: int, reason: str, words: str = "", headers: dict[str, str] | None = None) -> Answer:
    """Make an error reply."""
    detail = {"domain": "usageLimits" if "Limit" in reason else "global", "reason": reason, "message": words or reason}
    return json_answer(status, {"error": {"code": status, "message": words or reason, "errors": [detail]}}, headers)


def json_answer(status: int, body: Any, headers: dict[str, str] | None = None) -> Answer:
    """Make a JSON reply."""
    return Answer(status, to_json(body), "application/json; charset=UTF-8", headers or {})
