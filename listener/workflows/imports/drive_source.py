"""Source `drive`: the files of one folder of Google Drive, as rows of import_files; and their content, for the handler.

First a token of the changes feed is taken, then the folder is listed, so that nothing falls between the two; from then
on the feed is followed. The token is stored in the transaction of the rows that it led to. One that Drive refuses (they
grow old) is answered by a new listing. A version of a file is its id and the md5 that Drive names; content that is
known under another id is found out by its sha256 when it is imported.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import anyio
import anyio.from_thread

from listener.clients.drive.client import Drive
from listener.core.errors import Broken, Rejected, TooLarge
from listener.core.events import Publish, Trouble
from listener.db.sources import MOST_FILES, Offer, SourceState, Turn
from listener.workflows.imports.found import FileReplaced, FileTrouble
from listener.workflows.imports.pipeline import in_thread

SOURCE, WORKFLOW = "drive", "google drive"
_XML_TYPES = frozenset({"text/xml", "application/xml", "text/plain", "application/octet-stream"})
_NATIVE = "application/vnd.google-apps."
# Neither holds content.
_PLACES = frozenset({f"{_NATIVE}folder", f"{_NATIVE}shortcut"})
# What does not look like this would not go into a URL, or a row.
_ID, _MD5, _SIZE = re.compile("[A-Za-z0-9_-]{1,200}"), re.compile("[0-9a-f]{32}"), re.compile("[0-9]{1,15}")
_IN_MEMORY_BYTES = 8_000_000
_CHUNK_BYTES = 1_000_000
# A page token that Drive does not take any more: 410 by the documents; 400 and 404 are seen too.
_REFUSED_TOKEN = frozenset({400, 404, 410})
_TOKEN = "token"  # noqa: S105 - the member of the cursor


class DriveSource:
    """One folder. most_bytes: of a file."""

    def __init__(
        self, drive: Drive, folder: str, state: SourceState, publish: Publish, *, most_bytes: int, most_s: float
    ) -> None:
        self._drive = drive
        self._folder = folder
        self._state = state
        self._publish = publish
        self._most_bytes = most_bytes
        self._most_s = most_s
        self._threads = anyio.CapacityLimiter(2)

    async def look(self, turn: Turn) -> None:
        """Read the feed to its end, or list the folder. Raises Unavailable, Rejected, Unreachable, DatabaseError."""
        token = None if turn.cursor is None else turn.cursor.get(_TOKEN)
        if isinstance(token, str):
            try:
                await self._follow(token)
            except Rejected as error:
                if error.status not in _REFUSED_TOKEN:
                    raise
                self._tell(f"the changes since {token!r:.60} are not told any more: listing the folder ({error})")
            else:
                return
        await self._list()

    async def _follow(self, token: str) -> None:
        offers: list[Offer] = []
        is_last = False
        while not is_last:
            rows, token, is_last = await self._drive.changes(token)
            files = [row["file"] for row in rows if not row.get("removed") and isinstance(row.get("file"), dict)]
            offers += self._offers(files)
        await self._state.put_files(offers, cursor={_TOKEN: token})

    async def _list(self) -> None:
        start = await self._drive.start_token()
        offers: list[Offer] = []
        page: str | None = None
        is_last = False
        while not is_last:
            rows, page = await self._drive.files(self._folder, page)
            offers += self._offers(rows)
            is_last = page is None
            if len(offers) >= MOST_FILES and not is_last:
                await self._state.put_files(offers, cursor=None)
                offers = []
        await self._state.put_files(offers, cursor={_TOKEN: start})

    def _offers(self, files: Sequence[Mapping[str, Any]]) -> list[Offer]:
        return [offer for file in files if (offer := self._offer(file)) is not None]

    def _offer(self, file: Mapping[str, Any]) -> Offer | None:
        """Judge a file by its description; None = it is none of ours, or is still to be filled."""
        id_, kind, md5 = file.get("id"), str(file.get("mimeType") or ""), file.get("md5Checksum")
        if (
            not isinstance(id_, str)
            or not _ID.fullmatch(id_)
            or file.get("trashed")
            or self._folder not in (file.get("parents") or ())
        ):
            return None
        name = "".join(c if c.isprintable() else "?" for c in str(file.get("name") or id_))[:500]
        if kind in _PLACES:
            return None
        if kind.startswith(_NATIVE) and not md5:
            fault = f"{name} is a Google document ({kind}), which has no file to download; put the XML itself there"
            return Offer(uri=id_, name=name, version=kind, size_bytes=None, fault=fault)
        if kind not in _XML_TYPES and not name.lower().endswith(".xml"):
            return None
        size = str(file.get("size") or "")
        if not isinstance(md5, str) or not _MD5.fullmatch(md5) or size == "0" or not _SIZE.fullmatch(size):
            return None  # made, and not filled yet: filling it is a change
        return Offer(uri=id_, name=name, version=md5, size_bytes=int(size))

    @asynccontextmanager
    async def open(self, row: Mapping[str, Any]) -> AsyncIterator[BinaryIO]:
        """Download the file of a row and compare it with its md5.

        Raises FileTrouble, FileReplaced, Unavailable, Broken (what came is not what Drive says it is: try again).
        """
        id_ = row["uri"] or ""
        if not _ID.fullmatch(id_):
            raise FileTrouble(f"{id_!r:.100} is no id of a file")
        with SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spool:
            file = cast("BinaryIO", spool)
            try:
                await self._drive.download(id_, file, most_bytes=self._most_bytes, most_s=self._most_s)
                got = await in_thread(partial(_md5, file), self._threads)
                if row["version"] is not None and got != row["version"]:
                    await self._explain(id_, row["version"], got)
            except Rejected as error:
                raise FileTrouble(f"cannot be downloaded: {error}") from None
            except TooLarge as error:
                raise FileTrouble(str(error)) from None
            yield file

    async def _explain(self, id_: str, wanted: str, got: str) -> None:
        """Find out why the content is another: somebody wrote to the file since, or it was damaged on its way."""
        now = await self._drive.file(id_)
        if now.get("md5Checksum") == wanted:
            raise Broken(f"what was downloaded has the md5 {got}, by Google Drive it is {wanted}")
        await self._state.put_files(self._offers([now]), cursor=None)
        raise FileReplaced("the file has other content by now, which has its own row")

    def _tell(self, error: str) -> None:
        self._publish(Trouble(where=f"Google Drive {self._folder}", error=error))


def _md5(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        anyio.from_thread.check_cancelled()
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()
