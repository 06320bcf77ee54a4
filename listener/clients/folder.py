"""A folder that files are dropped into. Synchronous but for `changes`; names are those of files right in it.

Nothing leads out of it: a name with a slash is none, and a link is never followed, also not one named `processed`.
Files that are still being written (`.tmp`, `.part`) and hidden ones are not seen; of the rest, those named `*.xml` are
files of orders (`is_ours`).
"""

import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from watchfiles import awatch

_UNFINISHED = (".tmp", ".part", ".partial", ".filepart", ".crdownload", "~")
# Milliseconds: how long further notices are awaited after one, and at most. Settling is the caller's business.
_STEP_MS, _DEBOUNCE_MS = 20, 200

Outcome = Literal["processed", "failed"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it lies there. Two looks that give the same: nobody has written to it in between."""

    name: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @property
    def arrival(self) -> str:
        """Another text when the file was written to, or put there anew: a move changes ctime, and no other time."""
        return f"{self.size_bytes} {self.mtime_ns} {self.ctime_ns}"


def is_ours(name: str) -> bool:
    """Tell a file of orders by its name."""
    return name.lower().endswith(".xml")


def _seen(name: str, found: os.stat_result) -> Seen:
    return Seen(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Folder:
    """One folder; `processed` and `failed` in it take what is done with. All methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self) -> list[Seen]:
        """Return the files that are there, by name."""
        seen = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.lower().endswith(_UNFINISHED):
                    continue
                if entry.is_file(follow_symlinks=False):
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # moved by somebody between the two
                    seen.append(_seen(entry.name, found))
        return sorted(seen, key=lambda file: file.name)

    def open(self, name: str) -> tuple[BinaryIO, Seen]:
        """Open a file, and say what it is now. Raises ValueError for a name that is none of this folder's files."""
        if not name or name in (".", "..") or name != Path(name).name or "\0" in name:
            raise ValueError(f"{name!r:.100} is no file right in the folder")
        # NONBLOCK: a pipe of that name would keep us waiting for its writer
        number = os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        found = os.fstat(number)
        if not stat.S_ISREG(found.st_mode):
            os.close(number)
            raise ValueError(f"{name!r:.100} is no plain file")
        return os.fdopen(number, "rb"), _seen(name, found)

    def move(self, name: str, to: Outcome, mark: object) -> None:
        """Move a file to `to`; one of that name that is there already stays, and ours gets `mark` into its name.

        A file that is gone was moved by somebody else: that is well.
        """
        with suppress(FileExistsError):
            (self.path / to).mkdir()
        target = os.open(self.path / to, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _move_into(target, self.path / name, mark)
        finally:
            os.close(target)

    async def changes(self) -> AsyncIterator[None]:
        """Yield soon after something has changed; network drives tell nothing, so look now and then all the same."""
        async for _ in awatch(self.path, step=_STEP_MS, debounce=_DEBOUNCE_MS, recursive=False):
            yield


def _move_into(target: int, path: Path, mark: object) -> None:
    """Move a file into an open folder. Raises OSError."""
    marked = f"{path.stem}.{mark}{path.suffix}"
    for wanted in (path.name, marked):
        try:
            os.link(path, wanted, dst_dir_fd=target, follow_symlinks=False)  # unlike a rename, never overwrites
        except FileExistsError:
            continue
        except FileNotFoundError:
            return
        except OSError:  # a file system without links
            break
        path.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        os.replace(path, marked, dst_dir_fd=target)
