"""Back-off: exponential, capped, spread over the whole interval."""

import random

from hypothesis import given
from hypothesis import strategies as st

from listener.core.retry import Backoff

ATTEMPTS = st.integers(min_value=1, max_value=10**6)
JITTER = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_the_design_s_numbers() -> None:
    """Base 1 s, doubled, cap 300 s."""
    assert [Backoff().ceiling_s(attempt) for attempt in range(1, 12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


@given(attempt=ATTEMPTS, jitter=JITTER, base_s=st.floats(0.001, 1e3), cap_s=st.floats(0.001, 1e6))
def test_a_wait_is_never_negative_nor_beyond_the_cap(attempt: int, jitter: float, base_s: float, cap_s: float) -> None:
    backoff = Backoff(base_s=base_s, cap_s=cap_s)

    wait_s = backoff.delay_s(attempt, jitter)

    assert 0 <= wait_s <= backoff.ceiling_s(attempt) <= cap_s


@given(attempt=ATTEMPTS)
def test_the_ceiling_never_falls(attempt: int) -> None:
    assert Backoff().ceiling_s(attempt) <= Backoff().ceiling_s(attempt + 1)


@given(attempt=st.integers(max_value=1))
def test_attempts_below_one_wait_like_the_first(attempt: int) -> None:
    """A person may have set the column."""
    assert Backoff().ceiling_s(attempt) == 1.0


def test_jitter_is_full() -> None:
    """From zero to the ceiling, evenly: a crowd that failed together comes back spread out."""
    rng = random.Random(1)
    waits = sorted(Backoff().delay_s(8, rng.random()) for _ in range(10_000))

    assert waits[0] < 1
    assert waits[-1] > 127
    assert 60 < waits[len(waits) // 2] < 68
