"""What an outcome means for the row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.core.job import Job, Settle, Settlement, settlement
from listener.core.outcome import Done, Fail, Outcome, Release, Retry, Snooze
from listener.core.retry import Backoff


def job(attempt: int = 1) -> Job:
    return Job(queue="upload", id=7, claim_id=3, attempt=attempt, revision=0, row={})


def decide(outcome: Outcome, *, attempt: int = 1, max_attempts: int = 10, jitter: float = 0.5) -> Settlement:
    return settlement(job(attempt), outcome, max_attempts=max_attempts, backoff=Backoff(), jitter=jitter)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Done({"a": 1}), Settlement(job=job(), kind=Settle.COMPLETE, values={"a": 1})),
        (Retry("e"), Settlement(job=job(), kind=Settle.RETRY, delay_s=0.5, error="e")),
        (Retry("e", 60.0), Settlement(job=job(), kind=Settle.RETRY, delay_s=60.0, error="e")),
        (Retry("e", 0.0), Settlement(job=job(), kind=Settle.RETRY, delay_s=0.0, error="e")),
        (Snooze(9.0), Settlement(job=job(), kind=Settle.SNOOZE, delay_s=9.0)),
        (Snooze(9.0, "r"), Settlement(job=job(), kind=Settle.SNOOZE, delay_s=9.0, error="r")),
        (Fail("e"), Settlement(job=job(), kind=Settle.FAIL, error="e")),
        (Release(), Settlement(job=job(), kind=Settle.RELEASE)),
        (Release("r"), Settlement(job=job(), kind=Settle.RELEASE, error="r")),
    ],
    ids=repr,
)
def test_each_outcome_becomes_its_settle(outcome: Outcome, expected: Settlement) -> None:
    assert decide(outcome) == expected


@given(attempt=st.integers(1, 100), max_attempts=st.integers(1, 100), delay_s=st.none() | st.floats(0, 1e5))
def test_retries_end_at_the_last_attempt(attempt: int, max_attempts: int, delay_s: float | None) -> None:
    """Also when max_attempts was lowered below what the row has behind it."""
    decided = decide(Retry("e", delay_s), attempt=attempt, max_attempts=max_attempts)

    assert decided.kind is (Settle.FAIL if attempt >= max_attempts else Settle.RETRY)
    assert decided.error is not None
    assert decided.error.startswith("e")
    if decided.kind is Settle.FAIL:
        assert decided.error == f"e (gave up after {attempt} attempts)"


@given(attempt=st.integers(10, 10**6), outcome=st.sampled_from([Done(), Snooze(1.0), Release()]))
def test_what_counts_no_attempt_never_gives_up(attempt: int, outcome: Outcome) -> None:
    """Six hours of outage send no order to Failed."""
    assert decide(outcome, attempt=attempt, max_attempts=1).kind is not Settle.FAIL


@given(attempt=st.integers(1, 9), jitter=st.floats(0, 1, exclude_max=True))
def test_a_retry_without_a_delay_waits_by_its_attempt(attempt: int, jitter: float) -> None:
    assert decide(Retry("e"), attempt=attempt, jitter=jitter).delay_s == Backoff().delay_s(attempt, jitter)


def test_the_settle_words_are_the_five_of_the_design() -> None:
    assert [str(word) for word in Settle] == ["complete", "retry", "snooze", "fail", "release"]
