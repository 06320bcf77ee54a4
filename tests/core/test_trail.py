"""The places from which claims go on: never behind a row that may still come in before them."""

from listener.core.trail import Place, Trail


def place(key: int, priority: int = 100) -> Place:
    return Place(priority, float(key), key)


def claimed(trail: Trail, first: int, rows: int, priority: int = 100, *, is_full: bool = True) -> None:
    trail.add([place(first + rows - 1, priority)], rows, is_full=is_full)


def test_it_goes_through_so_many_rows_again() -> None:
    trail = Trail(again=1_000)
    starts = []
    for first in range(0, 3_000, 500):
        claimed(trail, first, 500)
        starts += [start.key for start in trail.places()]
    assert starts == [499, 499, 499, 999, 1_499, 1_999]


def test_each_priority_has_a_place_of_its_own() -> None:
    trail = Trail(again=100)
    claimed(trail, 0, 50, priority=7)
    for first in range(0, 1_000, 100):
        claimed(trail, first, 100, priority=9)
    assert trail.places() == [place(49, 7), place(899, 9)]


def test_nothing_was_claimed_yet() -> None:
    trail = Trail(again=100)
    trail.add([], 0, is_full=False)
    assert trail.places() == []
    assert not trail


def test_single_rows_are_not_each_marked_and_it_never_goes_on_too_far() -> None:
    trail = Trail(again=1_000)
    for row in range(3_000):
        claimed(trail, row, 1)
        [start] = trail.places()
        assert row + 1 - 1_100 <= start.key + 1 <= max(row + 1 - 1_000, 1)


def test_a_priority_for_each_row_is_forgotten_in_time() -> None:
    """The latest are known; those of old are looked for from their first row on."""
    trail = Trail(again=1_000)
    for row in range(1_000):
        claimed(trail, row, 1, priority=row)
        claimed(trail, row, 1, priority=-1)
    known = [place.priority for place in trail.places()]
    assert known == [*range(901, 1_000), -1]


def test_old_rows_are_gone_through_to_their_end_and_do_not_move_the_places_of_the_others() -> None:
    trail = Trail(again=1_000)
    claimed(trail, 0, 500, priority=7)
    for first in range(10_000, 20_000, 500):
        claimed(trail, first, 500)
    usual = trail.places()
    claimed(trail, 0, 5)
    assert trail.places() == [usual[0], place(4)], "where the look ended, not where the others go on"
    claimed(trail, 5, 5)
    assert trail.places() == [usual[0], place(9)]
    claimed(trail, 10, 2, is_full=False)
    assert trail.places() == usual
    claimed(trail, 0, 5)
    claimed(trail, 20_000, 500)
    assert trail.places() == [usual[0], place(19_499)], "the old ones are behind"
    trail.add([place(5, 7), place(20_999)], 500, is_full=True)
    assert trail.places()[0] == usual[0], "priority 7 has no more of them: the claim went on to the next"
