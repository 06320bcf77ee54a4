"""Plain functions in threads, no more of them at once than their queue may have.

A thread cannot be stopped. Whoever waits for it may give up (the timeout, a shutdown); the function goes on until it
returns, and keeps its place until then, so that functions that hang cannot pile up.
"""

import math
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

A = TypeVar("A")
R = TypeVar("R")


class NoThread(Exception):  # noqa: N818 - a state
    """Every place is taken by a function that was given up and has not returned."""


class Threads:
    """`most` places for functions that run at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places = threading.BoundedSemaphore(most)

    async def run(self, function: Callable[[A], R], argument: A) -> R:
        """Call the function in a thread. Raises NoThread, and what it raises; a cancel gives it up."""
        if not self._places.acquire(blocking=False):
            raise NoThread(f"all {self._most} threads of the queue run calls that were given up and have not returned")
        begun = threading.Lock()  # whoever takes it first: the thread, or the caller who gives up before that

        def call() -> R:
            if not begun.acquire(blocking=False):
                raise NoThread("given up before it began")
            try:
                return function(argument)
            finally:
                self._places.release()

        try:
            # its own limiter: the default one is shared with all the program, and 40 calls of ours would starve it
            return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))
        finally:
            if begun.acquire(blocking=False):
                self._places.release()
