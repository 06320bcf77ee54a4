"""What was called, and when: what a sandbox remembers of its clients. Bounded, however long it runs."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Batch sizes remembered one by one; count, sum and maximum are kept for all.
_SIZES = 10_000


@dataclass(slots=True, kw_only=True)
class Visit:
    """One call. received_at: seconds since 1970 when its body was complete.

    status: the HTTP status sent, or ``reset`` (we closed the connection) or ``gone`` (the client did).
    is_gone: asks whether the client has left already; such a call is not under way any more.
    """

    method: str
    path: str
    route: str
    query: str
    received_at: float
    order_keys: tuple[str, ...]
    orders: int
    is_gone: Callable[[], bool]
    is_faulty: bool = False
    status: int | str = "gone"
    duration_s: float = 0.0

    def describe(self) -> dict[str, Any]:
        """Give the log line."""
        return {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "received_at": self.received_at,
            "status": self.status,
            "duration_s": self.duration_s,
            "orders": self.orders,
            "order_keys": list(self.order_keys),
            "fault": self.is_faulty,
        }


def _left() -> bool:
    return True


class Traffic:
    """Counters and the recent log."""

    def __init__(self, log_size: int) -> None:
        self._log: deque[Visit] = deque(maxlen=log_size)
        self._sizes: deque[int] = deque(maxlen=_SIZES)
        self.in_flight = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything but the calls that are under way."""
        self._log.clear()
        self._sizes.clear()
        self._calls: dict[str, Counter[str]] = {}
        self._holders: dict[str, Visit] = {}
        self._batches = {"count": 0, "orders": 0, "max": 0}
        self.max_concurrent = self.in_flight
        self.overlaps = 0
        self.during_faults = 0
        self.faulty = 0

    def arrive(self) -> None:
        """Count a call as under way, from its head on."""
        self.in_flight += 1
        self.max_concurrent = max(self.max_concurrent, self.in_flight)

    def depart(self) -> None:
        """Count a call as over."""
        self.in_flight -= 1

    def enter(self, visit: Visit, *, faults_on: bool) -> None:
        """Note a call whose body is complete; an order that is inside another call under way is an overlap."""
        self.during_faults += faults_on
        for key in dict.fromkeys(visit.order_keys):
            holder = self._holders.get(key)
            if holder is not None and not holder.is_gone():
                self.overlaps += 1
            self._holders[key] = visit

    def leave(self, visit: Visit) -> None:
        """Note how a call ended."""
        for key in visit.order_keys:
            if self._holders.get(key) is visit:
                del self._holders[key]
        visit.is_gone = _left  # the former one holds the whole connection in memory
        self._log.append(visit)
        self._calls.setdefault(f"{visit.method} {visit.route}", Counter())[str(visit.status)] += 1
        self.faulty += visit.is_faulty

    def batch(self, size: int) -> None:
        """Note the size of one batch of orders."""
        self._sizes.append(size)
        self._batches["count"] += 1
        self._batches["orders"] += size
        self._batches["max"] = max(self._batches["max"], size)

    def last(self, count: int) -> list[dict[str, Any]]:
        """Give the newest `count` log lines, oldest first."""
        return [visit.describe() for visit in list(self._log)[-count:]] if count > 0 else []

    def describe(self) -> dict[str, Any]:
        """Give all counters."""
        statuses = [pair for calls in self._calls.values() for pair in calls.items()]
        return {
            "calls": {route: dict(calls) for route, calls in sorted(self._calls.items())},
            "total": sum(count for _, count in statuses),
            "throttled": sum(count for status, count in statuses if status == "429"),
            "calls_during_faults": self.during_faults,
            "calls_faulty": self.faulty,
            "batches": {**self._batches, "sizes": list(self._sizes)},
            "in_flight": self.in_flight,
            "max_concurrent": self.max_concurrent,
            "overlaps": self.overlaps,
        }
