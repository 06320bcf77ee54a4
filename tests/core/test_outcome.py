"""What a handler may say: plain values that nobody changes afterwards."""

import dataclasses
from typing import get_args

import pytest

from listener.core.outcome import Done, Fail, Outcome, Release, Retry, Snooze

SAMPLES = [Done(), Done({"a": 1}), Retry("e"), Retry("e", 0.0), Snooze(5.0), Snooze(5.0, "why"), Fail("e"), Release()]


def test_every_outcome_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == set(get_args(Outcome))


@pytest.mark.parametrize("outcome", SAMPLES, ids=repr)
def test_outcomes_are_frozen_values(outcome: Outcome) -> None:
    """Equal when they say the same, and closed to change."""
    assert outcome == dataclasses.replace(outcome)
    (first, *_) = dataclasses.fields(outcome)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(outcome, first.name, None)


def test_outcomes_differ_from_one_another() -> None:
    assert all((a == b) == (n == m) for n, a in enumerate(SAMPLES) for m, b in enumerate(SAMPLES))


def test_values_of_one_done_are_not_those_of_the_next() -> None:
    assert Done().values is not Done().values
