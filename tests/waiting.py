"""Wait for a condition, never for a time."""

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import anyio
import pytest

T = TypeVar("T")

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1


def until(condition: Callable[[], T], *, deadline_s: float = 10.0, what: str = "the condition") -> T:
    """Call *condition* until it returns something true, and return that; fail the test after *deadline_s* seconds."""
    never = threading.Event()
    result = None
    for pause_s in _pauses(deadline_s):
        if result := condition():
            return result
        never.wait(pause_s)
    return condition() or _fail(what, deadline_s, result)


async def until_async(
    condition: Callable[[], T | Awaitable[T]], *, deadline_s: float = 10.0, what: str = "the condition"
) -> T:
    """`until`, for a plain or an async *condition*, while the event loop goes on."""
    result = None
    for pause_s in _pauses(deadline_s):
        if result := await _ask(condition):
            return result
        with anyio.move_on_after(pause_s):
            await anyio.Event().wait()
    return await _ask(condition) or _fail(what, deadline_s, result)


async def _ask(condition: Callable[[], T | Awaitable[T]]) -> T:
    answer = condition()
    return await answer if isinstance(answer, Awaitable) else answer


def _pauses(deadline_s: float) -> Iterator[float]:
    """Yield growing pauses, in seconds, that end at the deadline."""
    end_s = time.monotonic() + deadline_s
    pause_s = _FIRST_PAUSE_S
    while (left_s := end_s - time.monotonic()) > 0:
        yield min(pause_s, left_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _fail(what: str, deadline_s: float, result: object) -> T:
    pytest.fail(f"waited {deadline_s:g} s for {what}; the last look gave {result!r}")
