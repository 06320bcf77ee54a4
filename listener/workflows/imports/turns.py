"""Asks a source outside now and then: one process of all, as often as the setting says, later again when it failed."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import anyio

from listener.config.live import ROLLED_BACK_INTERVAL_S, LiveConfig
from listener.core.errors import DatabaseError, ListenerError
from listener.core.events import Publish, Trouble
from listener.core.retry import Backoff
from listener.db.sources import SourceState, Turn

QUEUE = "import"
_AGAIN = Backoff(base_s=1.0, cap_s=60.0)
# A turn that another process has taken may come back early, because its look failed.
_LOOK_AGAIN_S = 60.0
TELL_EVERY_S = 3_600.0


class Follows(Protocol):
    """The live configuration, as its holder gives it."""

    @property
    def live(self) -> LiveConfig:
        """What is in force."""

    def pause(self, seconds: Callable[[], float]) -> Awaitable[None]:
        """Wait until `seconds()` have passed, by the value in force: a change counts at once."""


class Turns:
    """The turns of one source; a chore of the process. look: asks the source, and raises ListenerError."""

    def __init__(
        self,
        look: Callable[[Turn], Awaitable[None]],
        state: SourceState,
        configuration: Follows,
        publish: Publish,
        *,
        where: str,
        interval_s: float,
    ) -> None:
        self._look = look
        self._state = state
        self._configuration = configuration
        self._publish = publish
        self._where = where
        self._every_s = interval_s
        self._failures = 0
        self._told: tuple[str, float] | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            mode = self._mode()
            await self._configuration.pause(partial(self._left_s, await self.run_once(), mode))

    async def run_once(self) -> float:
        """Look if it is our turn; seconds until the next one may be due."""
        is_enabled, interval_s = self._mode()
        if not is_enabled:
            return _LOOK_AGAIN_S
        try:
            turn = await self._state.take_turn(interval_s)
            if turn is not None:
                await self._take(turn, interval_s)
            return min(await self._state.turn_due_s(interval_s), _LOOK_AGAIN_S)
        except DatabaseError as error:
            self._publish(Trouble(where=self._where, error=str(error)))
            return _AGAIN.ceiling_s(1)

    async def _take(self, turn: Turn, interval_s: float) -> None:
        try:
            await self._look(turn)
            self._failures = 0
            self._told = None
        except (ListenerError, OSError) as error:  # OSError: no room for a temporary file
            self._failures += 1
            self._tell(str(error))
            await self._state.hurry_turn(interval_s, _AGAIN.ceiling_s(self._failures))

    def _tell(self, error: str) -> None:
        """Tell of what goes on failing in the same words once an hour."""
        now_s = anyio.current_time()
        if self._told is None or self._told[0] != error or now_s - self._told[1] >= TELL_EVERY_S:
            self._told = (error, now_s)
            self._publish(Trouble(where=self._where, error=error))

    def _left_s(self, pause_s: float, mode: tuple[bool, float]) -> float:
        """Zero ends the pause: the workflow was switched, or is asked as often as before again."""
        return pause_s if self._mode() == mode else 0.0

    def _mode(self) -> tuple[bool, float]:
        live = self._configuration.live
        is_fast = live.notifications_enabled(QUEUE)
        return live.is_enabled(QUEUE), self._every_s if is_fast else max(self._every_s, ROLLED_BACK_INTERVAL_S)
