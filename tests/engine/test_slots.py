"""Slots: how many handler calls may run."""

from hypothesis import given
from hypothesis import strategies as st

from listener.engine.slots import Slots


def test_a_queue_is_bounded_by_its_own_and_the_common_limit() -> None:
    slots = Slots(lambda: 5)
    for _ in range(3):
        slots.take("a")

    assert (slots.free("a", 4), slots.free("b", 4), slots.free("b", 1)) == (1, 2, 1)
    assert (slots.active, slots.active_of("a"), slots.active_of("b")) == (3, 3, 0)


def test_lowered_limits_leave_no_negative_number() -> None:
    most = 5
    slots = Slots(lambda: most)
    for _ in range(5):
        slots.take("a")
    most = 2

    assert slots.free("a", 1) == slots.free("b", 9) == 0
    for _ in range(4):
        slots.give_back("a")
    assert (slots.free("a", 1), slots.free("b", 9)) == (0, 1)


def test_everybody_is_told_of_a_freed_slot() -> None:
    """The common limit may be what another queue waits for; it sees the slot as free when it is told."""
    slots = Slots(lambda: 1)
    seen: list[tuple[str, int]] = []
    slots.on_freed(lambda: seen.append(("a", slots.free("a", 1))))
    slots.on_freed(lambda: seen.append(("b", slots.free("b", 1))))

    slots.take("a")
    assert seen == []
    slots.give_back("a")
    assert seen == [("a", 1), ("b", 1)]


@given(st.lists(st.sampled_from(["take a", "take b", "give a", "give b"])), st.integers(0, 5), st.integers(0, 5))
def test_counts_never_drift(steps: list[str], most: int, concurrency: int) -> None:
    slots = Slots(lambda: most)
    model = {"a": 0, "b": 0}
    for step in steps:
        verb, queue = step.split()
        if verb == "take" and slots.free(queue, concurrency):
            model[queue] += 1
            assert slots.take(queue) == sum(model.values())
        elif verb == "give" and model[queue]:
            model[queue] -= 1
            assert slots.give_back(queue) == sum(model.values())
        assert slots.active == sum(model.values()) <= most
        assert all(slots.active_of(name) == count <= concurrency for name, count in model.items())


def test_what_is_reserved_is_nobody_elses_and_free_again_at_the_end() -> None:
    """Two queues that claim at the same time must not take the common slots twice."""
    slots = Slots(lambda: 5)
    told: list[int] = []
    slots.on_freed(lambda: told.append(slots.free("b", 5)))
    with slots.reserved("a", 3):
        assert (slots.free("a", 4), slots.free("b", 5)) == (1, 2)
        slots.take("a")
        assert slots.active == 1
        assert told == []
    assert (slots.free("a", 4), slots.free("b", 5)) == (3, 4)
    assert told == [4]
