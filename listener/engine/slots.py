"""Slots: how many handler calls may run at once, per queue and in the whole process."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

# So many seconds of waiting move a queue up by one place.
AGEING_S = 30.0


class Slots:
    """Counts running handler calls. `most` gives `max_concurrent_operations` as it is configured now.

    When there are fewer common slots than queues that want one, they stand in line: the lowest `place` first, less one
    for each 30 s of waiting, and of equals the one that has waited longest. So a queue at place 9 is first when it has
    waited for 240 s, but for those that have waited longer.

    active: handler calls running in this process. clock: seconds, any start.
    """

    def __init__(
        self,
        most: Callable[[], int],
        *,
        place: Callable[[str], int] = lambda _queue: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._place = place
        self._clock = clock
        self.active = 0
        self._active: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._tells: dict[str, Callable[[], None]] = {}
        self._waiting_since: dict[str, float] = {}

    def active_of(self, queue: str) -> int:
        """Handler calls of one queue running in this process."""
        return self._active[queue]

    @property
    def has_line(self) -> bool:
        """Whether queues stand in line for a common slot."""
        return bool(self._waiting_since)

    def ask(self, queue: str, concurrency: int, *, joins: bool = True) -> int:
        """How many more calls the queue may start; never negative, also after the limits were lowered.

        0 for want of a common slot puts it in line until it asks again and gets one, or does `leave`; not without
        `joins`, for rows that it holds already.
        """
        own = concurrency - self._active[queue] - self._reserved[queue]
        if own <= 0:
            self.leave(queue)
            return 0
        room = self._most() - self.active - self._reserved.total()
        before = self._before(queue) if self._waiting_since else []
        if room > len(before):
            self._waiting_since.pop(queue, None)
            return min(own, room - len(before))
        if joins:
            self._waiting_since.setdefault(queue, self._clock())
        if room > 0:
            self._tell(before)  # time may have put them there since they were told: then nobody else would
        return 0

    def leave(self, queue: str) -> None:
        """Want no slot any more; who stood behind may have one."""
        if self._waiting_since.pop(queue, None) is not None:
            self._tell(self._tells)

    @contextmanager
    def reserved(self, queue: str, slots: int) -> Iterator[None]:
        """Keep free slots for what a claim may bring; what is taken in the block and what is not are free to count
        at its end."""
        self._reserved[queue] += slots
        try:
            yield
        finally:
            self._reserved[queue] -= slots
            self._tell(self._tells)

    def on_freed(self, queue: str, tell: Callable[[], None]) -> None:
        """Call `tell` whenever a slot becomes free; each queue may have been waiting for the common limit."""
        self._tells[queue] = tell

    def take(self, queue: str) -> int:
        """Occupy a slot; returns the calls now running."""
        self._active[queue] += 1
        self.active += 1
        return self.active

    def give_back(self, queue: str) -> int:
        """Free a slot; returns the calls still running."""
        self._active[queue] -= 1
        self.active -= 1
        self._tell(self._tells)
        return self.active

    def _before(self, queue: str) -> list[str]:
        """Who stands in line before the queue."""
        now = self._clock()

        def order(name: str) -> tuple[float, float]:
            since = self._waiting_since.get(name, now)
            return self._place(name) - (now - since) // AGEING_S, since

        mine = order(queue)
        return [name for name in self._waiting_since if name != queue and order(name) < mine]

    def _tell(self, queues: Iterable[str]) -> None:
        for queue in queues:
            self._tells[queue]()
