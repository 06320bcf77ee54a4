"""The event loop of a process that is ours alone."""

import gc
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Objects between two collections of the young. Python's 700 is four jobs; each collection of the old then walks
# through everything that was imported. Frozen and with this, 20 % more jobs a second (measured).
_YOUNG = 10_000


def run_loop(main: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run `main(*args)` to its end, on uvloop where it is installed."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    return anyio.run(main, *args, backend_options={"use_uvloop": find_spec("uvloop") is not None})
