"""A histogram of seconds for what happens thousands of times a second.

prometheus_client takes a lock for the sum and one for the bucket of every observation, 5 µs in all; the engine
observes in one thread, where 0.2 µs is enough (measured).
"""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily

# From a tenth of the usual pickup (1 ms) to the slowest safety poll (300 s).
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_BOUNDS = (*(repr(float(bound)) for bound in SECONDS), "+Inf")


class Timings:
    """One series a queue, each there at 0 from `show` on."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        registry.register(self)

    def show(self, queue: str) -> None:
        """Make the series exist."""
        if queue not in self._counts:
            self._counts[queue], self._sums[queue] = [0] * len(_BOUNDS), 0.0

    def observe(self, queue: str, seconds: float) -> None:
        """Count a duration in."""
        if queue not in self._counts:
            self.show(queue)
        self._counts[queue][bisect_left(SECONDS, seconds)] += 1
        self._sums[queue] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family, as a registry asks for it."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["queue"])
        for queue, counts in self._counts.items():
            cumulated, buckets = 0, []
            for bound, count in zip(_BOUNDS, counts, strict=True):
                cumulated += count
                buckets.append((bound, cumulated))
            family.add_metric([queue], buckets, self._sums[queue])
        yield family
