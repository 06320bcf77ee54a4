"""Our histogram shows what prometheus_client's shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from listener.obs.timings import SECONDS, Timings

DURATIONS = st.one_of(st.sampled_from([0.0, *SECONDS, 301.0]), st.floats(min_value=0, max_value=1000, width=32))


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.lists(DURATIONS, max_size=4))))
def test_the_exposition_is_the_same(observations: list[tuple[str, list[float]]]) -> None:
    """Bounds belong to their bucket, a value above all to +Inf, and a series is there before its first value."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    timings = Timings("seconds", "A text", registry=ours)
    histogram = Histogram("seconds", "A text", ["queue"], buckets=SECONDS, registry=theirs)
    timings.show("a")
    histogram.labels("a")
    for queue, seconds in observations:
        timings.show(queue)
        histogram.labels(queue)
        for one in seconds:
            timings.observe(queue, one)
            histogram.labels(queue).observe(one)
    assert _series(ours) == _series(theirs)


def _series(registry: CollectorRegistry) -> dict[str, object]:
    lines = [line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
    assert lines
    return {name: value if name.startswith("#") else pytest.approx(float(value)) for name, value in lines}
