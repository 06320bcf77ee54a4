"""Source `folder`: a file that lies settled in IMPORT_FOLDER becomes a row of import_files; what is done with is moved.

Notices make it fast, looking again makes it sure: they are lost on overflow, and network drives give none. The time of
a file says nothing (`cp -p`, unzip): its content decides. A file is moved after its row is settled; when the process
dies in between, the ledger tells the next one that its content is imported.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, get_args

import anyio

from listener.clients.folder import Folder, Outcome, Seen, is_ours
from listener.core.errors import DatabaseError
from listener.core.events import Event, Publish, Settled, Trouble
from listener.db.imports import offer_file, read_outcomes
from listener.db.pool import Pool
from listener.workflows.imports.found import FileAway, FileChanged, FileTrouble
from listener.workflows.imports.pipeline import Extent, in_thread, measure

SOURCE = "folder"
# Without notices (no more inotify watches, a network drive) the folder is watched again after this time.
_WATCH_AGAIN_S = 60.0
_TELL_EVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class _Lying:
    """A file, when it was first seen as it is now, and its row."""

    seen: Seen
    since_s: float
    row: int | None = None


class FolderSource:
    """One folder. poll_s: seconds between two looks without a notice. hears: do notices count now."""

    def __init__(
        self,
        folder: Folder,
        pool: Pool,
        publish: Publish,
        *,
        settle_s: float,
        poll_s: Callable[[], float],
        hears: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder = folder
        self._pool = pool
        self._publish = publish
        self._settle_s = settle_s
        self._poll_s = poll_s
        self._hears = hears
        self._lying: dict[str, _Lying] = {}
        self._told: dict[str, float] = {}
        self._strangers: set[str] = set()
        self._noticed = anyio.Event()
        self._threads = anyio.CapacityLimiter(2)

    def on_event(self, event: Event) -> None:
        """Look when files were settled: they are to be moved."""
        if isinstance(event, Settled) and event.queue == "import":
            self._noticed.set()

    async def run(self) -> None:
        """Look until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            while True:
                self._noticed = anyio.Event()
                try:
                    pause_s = await self.look()
                except (DatabaseError, OSError) as error:
                    self._tell(str(error))
                    pause_s = self._poll_s()
                with anyio.move_on_after(pause_s):
                    await self._noticed.wait()

    async def look(self) -> float:
        """Look once: offer what has settled, move what is done with. Returns seconds until the next look is due."""
        now_s = anyio.current_time()
        lying = {}
        strangers = set()
        for seen in await in_thread(self._folder.look, self._threads):
            if not is_ours(seen.name):
                strangers.add(seen.name)
                continue
            before = self._lying.get(seen.name)
            lying[seen.name] = before if before is not None and before.seen == seen else _Lying(seen, now_s)
        self._lying = lying
        self._tell_of(strangers)
        pauses = [self._poll_s()]
        for file in list(lying.values()):
            left_s = file.since_s + self._settle_s - now_s
            if file.row is None and left_s > 0:
                pauses.append(left_s)
            elif file.row is None:
                await self._offer(file)
        await self._move_done()
        return max(min(pauses), 0.01)

    @asynccontextmanager
    async def open(self, row: Mapping[str, Any]) -> AsyncIterator[BinaryIO]:
        """Open the file of a row, for the handler. Raises FileTrouble."""
        try:
            file, at_start = await in_thread(partial(self._folder.open, row["uri"] or ""), self._threads)
        except ValueError as error:
            raise FileTrouble(str(error)) from None
        except OSError as error:
            trouble = FileAway if isinstance(error, FileNotFoundError) else FileTrouble
            raise trouble(f"cannot be opened in {self._folder.path}: {error.strerror}") from None
        with file:
            try:
                yield file
            except FileTrouble:
                if await in_thread(partial(self._has_changed, at_start), self._threads):
                    raise FileChanged("somebody wrote to the file while it was read") from None
                raise

    def _has_changed(self, before: Seen) -> bool:
        try:
            file, now = self._folder.open(before.name)
        except (OSError, ValueError):
            return False
        file.close()
        return now != before

    async def _offer(self, lying: _Lying) -> None:
        """Make a row of a file that has settled, unless it changes while its digest is made."""
        seen = lying.seen
        if not seen.name.isprintable():
            self._tell(f"{seen.name!r:.100} has a name that cannot be stored: rename it")
            return
        try:
            extent = await in_thread(partial(self._extent, seen), self._threads)
        except FileNotFoundError:
            return  # moved by somebody else
        except (OSError, ValueError) as error:
            self._tell(f"{seen.name} cannot be read: {error}")
            return
        if extent is None or extent.size_bytes == 0:  # an empty one is still to be filled
            return
        row = await offer_file(
            self._pool,
            source=SOURCE,
            uri=seen.name,
            name=seen.name,
            sha256=extent.sha256,
            size_bytes=extent.size_bytes,
            arrival=seen.arrival,
        )
        self._lying[seen.name] = _Lying(seen, lying.since_s, row)

    def _extent(self, seen: Seen) -> Extent | None:
        file, at_start = self._folder.open(seen.name)
        with file:
            if at_start != seen:
                return None
            extent = measure(file, 2**62)
        again, at_end = self._folder.open(seen.name)
        again.close()
        return extent if at_end == seen else None

    async def _move_done(self) -> None:
        waiting = {file.row: file.seen for file in self._lying.values() if file.row is not None}
        if not waiting:
            return
        for row, status in (await read_outcomes(self._pool, list(waiting))).items():
            if status == "Unread":  # its content lies here all the same: the next look offers it anew
                name = waiting[row].name
                self._lying[name] = replace(self._lying[name], row=None)
                continue
            to: Outcome = "processed" if status == "Imported" else "failed"
            try:
                await in_thread(partial(self._move, waiting[row], to, row), self._threads)
            except OSError as error:
                self._tell(f"{waiting[row].name} cannot be moved to {to}: {error.strerror}")

    def _move(self, seen: Seen, to: Outcome, row: int) -> None:
        """Not when somebody has written to it since: that is another file, which the next look sees."""
        if not self._has_changed(seen):
            self._folder.move(seen.name, to, row)

    def _tell_of(self, strangers: set[str]) -> None:
        """Tell once of each file that stays where it is."""
        for name in sorted(strangers - self._strangers):
            why = "only files named *.xml are imported; rename it, or take it away"
            if name in get_args(Outcome):
                why = "it is a file, and files that are done with go into a folder of that name; rename it"
            self._tell(f"{name!r:.100} is left where it is: {why}", is_minor=name not in get_args(Outcome))
        self._strangers = strangers

    def _tell(self, error: str, *, is_minor: bool = False) -> None:
        """Tell once in five minutes: each settled file causes a look, and each look meets the same trouble."""
        now_s = anyio.current_time()
        self._told = {text: at_s for text, at_s in self._told.items() if now_s - at_s < _TELL_EVERY_S}
        if error in self._told:
            return
        self._told[error] = now_s
        self._publish(Trouble(where=f"folder {self._folder.path}", error=error, is_minor=is_minor))

    async def _watch(self) -> None:
        while True:
            try:
                async for _ in self._folder.changes():
                    if self._hears():
                        self._noticed.set()
            except (OSError, RuntimeError, ExceptionGroup) as error:  # a name that is no UTF-8 comes as a group
                cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
                self._tell(f"no notices: {cause}", is_minor=True)
            await anyio.sleep(_WATCH_AGAIN_S)
