"""The handler calls under way: plain tasks, 6 µs each where one of a task group costs 35 (measured, anyio 4.16), with
one timer for all their deadlines, where one for each costs 4.5.

It is a task tree all the same: no call outlives its crew, none is forgotten, and each lives in a cancel scope, so that
a call that swallows its cancellation is cancelled again at its next await.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from math import inf
from typing import Any, Self, cast

import anyio


@cache
def _timed(usual: Any) -> type[Any]:
    """The backend's own class of scopes (anyio.CancelScope() asks each time which backend runs, a third of what a scope
    costs), with a deadline that the crew looks after."""

    class Timed(usual):  # type: ignore[misc]
        __slots__ = ("crew", "until_s")

        @property
        def deadline(self) -> float:
            return self.until_s

        @deadline.setter
        def deadline(self, until_s: float) -> None:
            self.until_s = until_s
            self.crew.look_at(until_s)

    return Timed


class Crew:
    """The calls of one session, of all its queues. is_cancelled: they are to end, whatever their deadlines, or have."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self._loop = asyncio.get_running_loop()
        self._calls: dict[asyncio.Task[None], anyio.CancelScope] = {}
        self._whole = anyio.CancelScope()
        self._ended = anyio.Event()
        self._failure: BaseException | None = None
        self._look_at_s = inf
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    @asynccontextmanager
    async def gathered(cls) -> AsyncIterator[Self]:
        """A crew for the block, which ends when the last call has ended; left by an exception or a cancellation, it
        cancels them first. Raises what a call raises, after cancelling block and calls."""
        crew = cls()
        with crew._whole:
            try:
                yield crew
                await crew._until_ended()
            finally:
                if crew._calls:
                    crew.cancel()
                    with anyio.CancelScope(shield=True):
                        await crew._until_ended()
                crew.is_cancelled = True
                crew._stop_timer()
        if crew._failure is not None:
            raise crew._failure

    def scope(self, deadline_s: float) -> anyio.CancelScope:
        """A scope for one call, which ends at its deadline, by the event loop's clock, once the call has begun."""
        usual: Any = type(self._whole)
        scope = _timed(usual)()
        scope.crew, scope.until_s = self, deadline_s
        return cast("anyio.CancelScope", scope)

    def look_at(self, at_s: float) -> None:
        """Look then, or before, which calls are past their deadlines."""
        if at_s < self._look_at_s:
            self._stop_timer()
            self._look_at_s, self._timer = at_s, self._loop.call_at(at_s, self._look)

    def start(self, call: Coroutine[Any, Any, None], scope: anyio.CancelScope) -> None:
        """Begin a call, which awaits nothing outside `scope`."""
        if self.is_cancelled:
            scope.cancel("the crew is cancelled")
        task = self._loop.create_task(call)
        self._calls[task] = scope
        self.look_at(scope.deadline)
        task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel every call, also those that are yet to begin."""
        self.is_cancelled = True
        for scope in self._calls.values():
            scope.cancel("the crew is cancelled")

    def _look(self) -> None:
        now_s, next_s = self._loop.time(), inf
        for scope in self._calls.values():
            if scope.deadline <= now_s:
                scope.cancel("deadline exceeded")
            else:
                next_s = min(next_s, scope.deadline)
        self._stop_timer()
        self.look_at(next_s)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look_at_s, self._timer = inf, None

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._calls[task]
        failure = RuntimeError("a call was cancelled by somebody else") if task.cancelled() else task.exception()
        if failure is not None and self._failure is None:
            self._failure = failure
            self._whole.cancel("a call has failed")
        if not self._calls:
            self._ended.set()

    async def _until_ended(self) -> None:
        while self._calls:
            self._ended = anyio.Event()
            await self._ended.wait()
