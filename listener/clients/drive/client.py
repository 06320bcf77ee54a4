"""Calls to Google Drive v3. One access token for all of them, renewed early, and once more when it is refused."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlencode

import anyio

from listener.clients.client import Client
from listener.clients.drive.account import ServiceAccount
from listener.clients.drive.reply import check, read, token_of
from listener.core.budget import Budget, RateHeaders
from listener.core.errors import Unavailable
from listener.core.events import Publish

CONNECTOR = "drive"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_FILE_FIELDS = "id,name,mimeType,size,md5Checksum,headRevisionId,modifiedTime,trashed,parents"
_PAGE_SIZE = 1_000
# A token is renewed so many seconds before its end, as Google's own library does.
_EARLY_S = 225.0
_SHARED = {"supportsAllDrives": "true", "includeItemsFromAllDrives": "true"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    body: Mapping[str, Any]
    rate: RateHeaders


class Drive(Client):
    """What one service account may see. All methods raise Unavailable (all of it), Rejected (what was asked for)."""

    def __init__(
        self, base_url: str, *, account: ServiceAccount, name: str, timeout_s: float, budget: Budget, publish: Publish
    ) -> None:
        super().__init__(base_url, connector=CONNECTOR, name=name, timeout_s=timeout_s, budget=budget, publish=publish)
        self._who = account
        self._token, self._good_until_s = "", 0.0
        self._renewal = anyio.Lock()

    async def start_token(self) -> str:
        """GET changes/startPageToken: where the feed stands now."""
        body = await self._ask("/drive/v3/changes/startPageToken", {"supportsAllDrives": "true"})
        return _text(body, "startPageToken")

    async def changes(self, token: str) -> tuple[list[Mapping[str, Any]], str, bool]:
        """GET changes: what has changed since a token, the next token, and whether that is the end."""
        fields = f"nextPageToken,newStartPageToken,changes(fileId,removed,file({_FILE_FIELDS}))"
        query = {"pageToken": token, "fields": fields, "pageSize": str(_PAGE_SIZE), **_SHARED}
        body = await self._ask("/drive/v3/changes", {**query, "includeRemoved": "true"})
        is_last = "nextPageToken" not in body
        return _rows(body, "changes"), _text(body, "newStartPageToken" if is_last else "nextPageToken"), is_last

    async def files(self, folder: str, token: str | None) -> tuple[list[Mapping[str, Any]], str | None]:
        """GET files: one page of what lies in a folder, and the token of the next one; a page may be empty."""
        query = {"q": f"'{folder}' in parents and trashed = false", "pageSize": str(_PAGE_SIZE), **_SHARED}
        query["fields"] = f"nextPageToken,files({_FILE_FIELDS})"
        body = await self._ask("/drive/v3/files", {**query, **({} if token is None else {"pageToken": token})})
        return _rows(body, "files"), None if body.get("nextPageToken") is None else _text(body, "nextPageToken")

    async def file(self, id_: str) -> Mapping[str, Any]:
        """GET one file's description."""
        return await self._ask(f"/drive/v3/files/{id_}", {"fields": _FILE_FIELDS, "supportsAllDrives": "true"})

    async def download(self, id_: str, file: BinaryIO, *, most_bytes: int, most_s: float) -> None:
        """GET a file's content into `file`. Raises also TooLarge."""
        path = f"/drive/v3/files/{id_}?alt=media&supportsAllDrives=true"

        async def send(headers: Mapping[str, str]) -> _Answer:
            file.seek(0)
            file.truncate()
            check(await self._http.download(path, file, most_bytes=most_bytes, most_s=most_s, headers=headers))
            return _Answer({}, RateHeaders())

        await self._call(send)

    async def _ask(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        async def send(headers: Mapping[str, str]) -> _Answer:
            raw = await self._http.request("GET", f"{path}?{urlencode(query)}", headers=headers, named=path)
            return _Answer(read(raw), RateHeaders())

        return (await self._call(send)).body

    async def _call(self, send: Callable[[Mapping[str, str]], Awaitable[_Answer]]) -> _Answer:
        async def authorised() -> _Answer:
            token = await self._valid_token(refused="")
            try:
                return await send({"authorization": f"Bearer {token}"})
            except Unavailable as error:
                if error.reason != "expired":
                    raise
            token = await self._valid_token(refused=token)
            try:
                return await send({"authorization": f"Bearer {token}"})
            except Unavailable as error:
                raise Unavailable(str(error), reason="credentials") if error.reason == "expired" else error from None

        return await self.account.call(authorised)

    async def _valid_token(self, *, refused: str) -> str:
        async with self._renewal:
            if self._token == refused or time.monotonic() >= self._good_until_s:
                raw = await self._http.request(
                    "POST",
                    self._who.token_path,
                    content=self._who.assertion(),
                    headers=_FORM,
                    base_url=self._who.token_base,
                )
                self._token, good_s = token_of(raw)
                self._good_until_s = time.monotonic() + max(good_s - _EARLY_S, 0.0)
            return self._token


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Unavailable(f"Google Drive's reply has no {name}", reason="outage")
    return value


def _rows(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = body.get(name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unavailable(f"Google Drive's reply has no list of {name}", reason="outage")
    return rows
