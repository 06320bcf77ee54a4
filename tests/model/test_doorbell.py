"""No interleaving loses a row, and each broken rule loses one."""

import pytest

from model.doorbell import Rules, check

BUDGETS = {"deaths": 1, "hangs": 1, "own_wakes": 1}


@pytest.mark.parametrize(
    ("writers", "listeners", "budgets"),
    [(3, 1, {"own_wakes": 2}), (2, 2, {**BUDGETS, "own_wakes": 2}), (3, 2, {"deaths": 1}), (2, 3, {"deaths": 1})],
)
def test_no_interleaving_loses_a_row(writers: int, listeners: int, budgets: dict[str, int]) -> None:
    states, way = check(Rules(), writers=writers, listeners=listeners, **budgets)
    assert states > 1_000
    assert not way


@pytest.mark.parametrize("rule", ["second_drain", "lock_not_flag", "watch_looks", "full_rings", "silencer_rings"])
def test_without_a_rule_a_row_is_lost(rule: str) -> None:
    _states, way = check(Rules(**{rule: False}), writers=2, listeners=2, **BUDGETS)
    assert way


def test_without_the_survivors_ring_a_row_is_lost() -> None:
    """The dead one had turned the bell on; who noticed has no slot; a third sleeps."""
    _states, way = check(Rules(survivor_rings=False), writers=2, listeners=3, deaths=1, hangs=1)
    assert way
