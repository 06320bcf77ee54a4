"""Slots: how many handler calls may run."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.engine.slots import AGEING_S, Slots

PLACES = {"sync": 1, "other": 1, "upload": 2, "import": 4}


def test_a_queue_is_bounded_by_its_own_and_the_common_limit() -> None:
    slots = Slots(lambda: 5)
    for _ in range(3):
        slots.take("a")

    assert (slots.ask("a", 4), slots.ask("b", 4), slots.ask("b", 1)) == (1, 2, 1)
    assert (slots.active, slots.active_of("a"), slots.active_of("b")) == (3, 3, 0)


def test_lowered_limits_leave_no_negative_number() -> None:
    most = 5
    slots = Slots(lambda: most)
    for _ in range(5):
        slots.take("a")
    most = 2

    assert slots.ask("a", 1) == slots.ask("b", 9) == 0
    for _ in range(4):
        slots.give_back("a")
    assert (slots.ask("a", 1), slots.ask("b", 9)) == (0, 1)


def test_everybody_is_told_of_a_freed_slot() -> None:
    """The common limit may be what another queue waits for; it sees the slot as free when it is told."""
    slots = Slots(lambda: 1)
    seen: list[tuple[str, int]] = []
    slots.on_freed("a", lambda: seen.append(("a", slots.ask("a", 1))))
    slots.on_freed("b", lambda: seen.append(("b", slots.ask("b", 1))))

    slots.take("a")
    assert seen == []
    slots.give_back("a")
    assert seen == [("a", 1), ("b", 1)]


@given(st.lists(st.sampled_from(["take a", "take b", "give a", "give b"])), st.integers(0, 5), st.integers(0, 5))
def test_counts_never_drift(steps: list[str], most: int, concurrency: int) -> None:
    slots = Slots(lambda: most)
    model = {"a": 0, "b": 0}
    for queue in model:
        slots.on_freed(queue, lambda: None)
    for step in steps:
        verb, queue = step.split()
        if verb == "take" and slots.ask(queue, concurrency):
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
    slots.on_freed("b", lambda: told.append(slots.ask("b", 5)))
    with slots.reserved("a", 3):
        assert (slots.ask("a", 4), slots.ask("b", 5)) == (1, 2)
        slots.take("a")
        assert slots.active == 1
        assert told == []
    assert (slots.ask("a", 4), slots.ask("b", 5)) == (3, 4)
    assert told == [4]


class House:
    """One slot, which every queue with jobs wants; it asks when it is told, in the given order, and after each start.

    A call takes a second.
    """

    def __init__(self, order: Sequence[str], jobs: dict[str, int]) -> None:
        self.now = 0.0
        self.slots = Slots(lambda: 1, place=PLACES.__getitem__, clock=lambda: self.now)
        self.order, self.jobs = order, jobs
        self.told = set(order)
        for queue in order:
            self.slots.on_freed(queue, partial(self.told.add, queue))

    def starts(self, count: int) -> list[str]:
        """Return who starts, `count` times."""
        return [self._next() for _ in range(count)]

    def _next(self) -> str:
        while asking := [queue for queue in self.order if queue in self.told]:
            self.told.clear()
            for queue in asking:
                if self.jobs[queue] and self._starts(queue):
                    return queue
        raise AssertionError(f"the slot is free, {self.jobs} wait, and nobody is told")

    def _starts(self, queue: str) -> bool:
        if not self.slots.ask(queue, 2):
            return False
        self.slots.take(queue)
        self.jobs[queue] -= 1
        for each, jobs in self.jobs.items():
            if jobs:
                assert self.slots.ask(each, 2) == 0
        self.now += 1
        self.told.clear()
        self.slots.give_back(queue)
        return True


@pytest.mark.parametrize("order", [*permutations(["sync", "upload", "import"])])
def test_a_full_house_starts_the_queues_in_the_order_of_their_places(order: Sequence[str]) -> None:
    house = House(order, {"sync": 2, "upload": 2, "import": 2})
    house.starts(1)  # whoever asked first
    rest = house.jobs.copy()
    assert house.starts(5) == [queue for queue in ("sync", "upload", "import") for _ in range(rest[queue])]


def test_equal_places_take_turns() -> None:
    started = House(["sync", "other"], {"sync": 9, "other": 9}).starts(10)
    assert min(Counter(started).values()) >= 4, "the first may have two: both have waited for no time at all"


@pytest.mark.parametrize("order", [*permutations(["sync", "other", "import"])])
def test_waiting_moves_the_last_one_up(order: Sequence[str]) -> None:
    """Three places, 30 s each: import starts after 90 s of a full house and the turns of those who waited as long."""
    house = House(order, {"sync": 999, "other": 999, "import": 999})
    started = house.starts(400)
    turns = [number for number, queue in enumerate(started) if queue == "import"][1:]  # the first may be before all
    waits = [after - before for before, after in pairwise(turns)]
    assert len(waits) >= 2
    assert all(3 * AGEING_S <= wait <= 3 * AGEING_S + 3 for wait in waits), waits


def test_who_wants_none_any_more_lets_the_next_one_have_it() -> None:
    slots = Slots(lambda: 1, place=PLACES.__getitem__)
    told: list[str] = []
    for queue in ("sync", "import"):
        slots.on_freed(queue, partial(told.append, queue))
    slots.take("sync")
    assert [slots.ask(queue, 2) for queue in ("sync", "import")] == [0, 0]
    slots.give_back("sync")
    assert slots.ask("import", 2) == 0
    told.clear()
    slots.leave("sync")
    assert "import" in told
    assert slots.ask("import", 2) == 1


def test_who_is_passed_by_calls_the_one_before() -> None:
    """Time alone may turn the line round after everybody was told; a free slot must not wait for the next end."""
    now = 0.0
    slots = Slots(lambda: 1, place=PLACES.__getitem__, clock=lambda: now)
    told: list[str] = []
    for queue in ("upload", "sync"):
        slots.on_freed(queue, partial(told.append, queue))
    slots.take("upload")
    slots.ask("upload", 2)
    now = 1.0
    slots.ask("sync", 2)
    slots.give_back("upload")
    assert slots.ask("upload", 2) == 0, "sync is before it"
    now = 30.5
    told.clear()
    assert slots.ask("sync", 2) == 0, "upload has waited for 30 s"
    assert told == ["upload"]
