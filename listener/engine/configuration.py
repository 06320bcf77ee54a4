"""Holds the live configuration: read whole, swapped at once, everybody told.

The last good configuration stays in force while the database is away: only a successful read changes anything.
"""

from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeAlias, TypeVar

import anyio

from listener.config.live import KEYS, LiveConfig, read_live_config, shown
from listener.core.errors import DatabaseError
from listener.core.events import ConfigLoaded, Publish, Trouble
from listener.core.retry import Backoff
from listener.db.configuration import Rows

Follower: TypeAlias = Callable[[LiveConfig, LiveConfig], None]
T = TypeVar("T")

# A change that could not be read is read soon, not at the next safety poll, which may be an hour away.
_AGAIN = Backoff(base_s=0.1, cap_s=5.0)


class Configuration:
    """The holder. `live` is what is in force; read it anew at each use, it is replaced and never changed.

    version: number of the newest change that was read, the same in every replica that has read it; None before the
    first read. invalid, missing, unknown: as `read_live_config` gives them.
    """

    def __init__(self, read: Callable[[], Awaitable[Rows]], publish: Publish) -> None:
        self.live = LiveConfig()
        self.version: int | None = None
        self.invalid: dict[str, str] = {}
        self.missing: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self._read = read
        self._publish = publish
        self._followers: list[Follower] = []
        self._told = anyio.Event()
        self._changed = anyio.Event()
        self._turn = anyio.Lock()
        self._read_at = -inf

    def figure(self, work: Callable[[LiveConfig], T]) -> Callable[[], T]:
        """Return a question: what does `work` make of the configuration in force? It is worked out once for each, for
        whoever asks several times on the way from a commit to a handler."""
        of = self.live
        value = work(of)

        def now() -> T:
            nonlocal of, value
            if of is not self.live:
                of, value = self.live, work(self.live)
            return value

        return now

    def on_change(self, follower: Follower) -> None:
        """Call `follower(before, after)` after each change, also after the first read; it must not block."""
        self._followers.append(follower)

    def tell(self) -> None:
        """Say that the table has changed; `follow` reads it. Ten calls while it reads are one more read."""
        self._told.set()

    async def follow(self) -> None:
        """Read whenever told, until cancelled."""
        failures = 0
        while True:
            await self._told.wait()
            self._told = anyio.Event()  # before the read: what is committed from here on is told again
            try:
                await self.reload()
                failures = 0
            except DatabaseError as error:
                self._publish(Trouble(where="configuration", error=f"{error}; the last one stays in force"))
                self._told.set()
                failures += 1
                await anyio.sleep(_AGAIN.ceiling_s(failures))

    async def reload(self) -> None:
        """Read and swap. Raises Unreachable, DatabaseError, and then nothing has changed."""
        async with self._turn:  # an older answer must not replace a newer one
            rows = await self._read()
            self._read_at = anyio.current_time()
            self._swap(rows)

    def take(self, rows: Rows, *, read_at: float) -> None:
        """Swap in what another statement, begun at `read_at` by the event loop's clock, has read along; not when we
        have read since then, or are about to."""
        if read_at >= self._read_at and not self._turn.locked():
            self._swap(rows)

    async def pause(self, seconds: Callable[[], float]) -> None:
        """Wait until `seconds()` have passed since the call, by the value in force: a change counts at once."""
        started_at = anyio.current_time()
        while (left_s := started_at + seconds() - anyio.current_time()) > 0:
            with anyio.move_on_after(left_s):
                await self._changed.wait()

    def _swap(self, rows: Rows) -> None:
        is_first, before = self.version is None, self.live
        reading = read_live_config(rows.values, None if is_first else before)
        self.live, self.version = reading.config, rows.version
        self.invalid, self.missing, self.unknown = reading.invalid, reading.missing, reading.unknown
        is_changed = is_first or before != self.live
        self._publish(
            ConfigLoaded(
                version=rows.version,
                invalid=reading.invalid,
                missing=reading.missing,
                unknown=reading.unknown,
                changes=_changes(before, self.live) if is_changed and not is_first else {},
            )
        )
        if is_changed:  # told after it was said: what follows from a change may take longer than the change
            changed, self._changed = self._changed, anyio.Event()
            changed.set()
            for follower in self._followers:
                follower(before, self.live)


def _changes(before: LiveConfig, after: LiveConfig) -> dict[str, tuple[str, str]]:
    return {
        key.name: (shown(getattr(before, field)), shown(getattr(after, field)))
        for field, key in KEYS.items()
        if getattr(before, field) != getattr(after, field)
    }
