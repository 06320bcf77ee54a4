"""Slots: how many handler calls may run at once, per queue and in the whole process."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio


class Slots:
    """Counts running handler calls. `most` gives `max_concurrent_operations` as it is configured now.

    active: handler calls running in this process.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self.active = 0
        self._active: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._on_freed: list[Callable[[], None]] = []
        self._idle = anyio.Event()
        self._idle.set()

    def active_of(self, queue: str) -> int:
        """Handler calls of one queue running in this process."""
        return self._active[queue]

    def free(self, queue: str, concurrency: int) -> int:
        """How many more calls the queue may start; never negative, also after the limits were lowered."""
        mine = self._active[queue] + self._reserved[queue]
        return max(0, min(concurrency - mine, self._most() - self.active - self._reserved.total()))

    @contextmanager
    def reserved(self, queue: str, slots: int) -> Iterator[None]:
        """Keep free slots for what a claim may bring; what is taken in the block and what is not are free to count
        at its end."""
        self._reserved[queue] += slots
        try:
            yield
        finally:
            self._reserved[queue] -= slots
            self._tell()

    def on_freed(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever a slot becomes free; each queue may have been waiting for the common limit."""
        self._on_freed.append(tell)

    def take(self, queue: str) -> int:
        """Occupy a slot; returns the calls now running."""
        self._active[queue] += 1
        self.active += 1
        if self._idle.is_set():
            self._idle = anyio.Event()
        return self.active

    def give_back(self, queue: str) -> int:
        """Free a slot; returns the calls still running."""
        self._active[queue] -= 1
        self.active -= 1
        if not self.active:
            self._idle.set()
        self._tell()
        return self.active

    def _tell(self) -> None:
        for tell in self._on_freed:
            tell()
