"""The event loop of a process."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_loop(main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run `main(*args)` to its end, on uvloop where it is installed."""
    return anyio.run(main, *args, backend_options={"use_uvloop": find_spec("uvloop") is not None})
