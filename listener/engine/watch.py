"""The watch: each process waits for the end of the one before it, in a ring, so that death is an event.

No heartbeat and no polling: what is before us in the order of keys holds its lease, and we block on that. Getting it
means that its session is gone; its rows are given back at once, not at the next safety poll.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Protocol

import anyio

from listener.core.errors import DatabaseError
from listener.core.events import PeerGone, Publish, Trouble
from listener.core.retry import Backoff

_AGAIN = Backoff(base_s=0.2, cap_s=5.0)
# A claim that the dead one had sent is carried out although nobody waits for it, maybe after our rescue.
_RESCUE_AGAIN_S = (0.3, 2.0)


class Waiting(Protocol):
    """A connection that can wait for the end of a session."""

    async def wait_for_end(self, session_key: int) -> bool:
        """Wait a while; True = the session has ended."""

    async def close(self) -> None:
        """End the connection."""


class Watch:
    """One process's watch.

    announce: makes everybody look again, us too. peers: reads the keys that live now. rescue: gives back the rows of
    the dead. on_change: told after a process has come or gone.
    """

    def __init__(
        self,
        announce: Callable[[], Awaitable[None]],
        peers: Callable[[], Awaitable[Sequence[int]]],
        open_: Callable[[], Awaitable[Waiting]],
        rescue: Callable[[], Awaitable[object]],
        publish: Publish,
        *,
        on_change: Callable[[], None],
    ) -> None:
        self._announce = announce
        self._peers = peers
        self._open = open_
        self._rescue = rescue
        self._publish = publish
        self._on_change = on_change
        self._known: frozenset[int] = frozenset()
        self._looking = anyio.CancelScope()
        self._is_told = False
        self._is_announced = False
        self._rescues_left: list[float] = []

    def is_alone(self) -> bool:
        """Whether no other process is known."""
        return not self._known

    def look_again(self) -> None:
        """Somebody came: who is before us may have changed."""
        self._is_told = True
        self._looking.cancel("a process has come")

    async def run(self, session_key: int) -> None:
        """Watch until cancelled; trouble is reported and survived, the safety poll finds the dead meanwhile."""
        failures, self._is_announced = 0, False
        while True:
            try:
                await self._watch(session_key)
                failures = 0
            except DatabaseError as error:
                self._publish(Trouble(where="watch", error=str(error)))
                failures += 1
                await anyio.sleep(_AGAIN.ceiling_s(failures))

    async def _watch(self, session_key: int) -> None:
        """Watch over one connection, which is only there while there is somebody to watch."""
        connection: Waiting | None = None
        try:
            while (before := await self._look(session_key)) is not None:
                connection = connection or await self._open()
                await self._wait(connection, before)
        finally:
            if connection is not None:
                await connection.close()
        await self._until_told()

    async def _look(self, session_key: int) -> int | None:
        """See who lives, rescue, and return who is before us.

        Every look rescues, and does so after it has seen who lives: whoever ended before that is rescued here, whether
        we were waiting for it, lost the connection on which we did, or never heard of it; whoever ends later is
        waited for by its successor, whose wait then ends at once.
        """
        self._is_told = False
        others = frozenset(await self._peers()) - {session_key}
        await self._rescue()
        before, self._known = self._known, others
        for key in sorted(before - others):
            self._publish(PeerGone(session=key))
            self._is_announced = False  # each rescues its own queues, so the others must look, too
            self._rescues_left = list(_RESCUE_AGAIN_S)
        if before != others:
            self._on_change()
        if not self._is_announced:
            await self._announce()
            self._is_announced = True
        return predecessor(tuple(others), session_key)

    async def _wait(self, connection: Waiting, before: int) -> None:
        with anyio.CancelScope(deadline=self._next_rescue()) as self._looking:
            if not self._is_told:
                await connection.wait_for_end(before)

    async def _until_told(self) -> None:
        with anyio.CancelScope(deadline=self._next_rescue()) as self._looking:
            if not self._is_told:
                await anyio.sleep_forever()

    def _next_rescue(self) -> float:
        return anyio.current_time() + self._rescues_left.pop(0) if self._rescues_left else inf


def predecessor(keys: Sequence[int], own: int) -> int | None:
    """Return the key before ours in the ring of live keys; None when we are alone."""
    others = sorted(key for key in keys if key != own)
    if not others:
        return None
    return max((key for key in others if key < own), default=others[-1])
