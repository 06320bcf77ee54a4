"""Where a queue's claims have been: what lies behind is mostly claimed, and need not be visited again and again."""

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a row stands in the order of claims. scheduled_at_s: seconds since 1970."""

    priority: int
    scheduled_at_s: float
    key: Any


# A mark for each row would be as many marks as rows are gone through again.
_MARKS = 50
# Whoever takes a time for a priority has a new one for each row. What is forgotten is looked for from its first row on.
_MOST_PRIORITIES = 100


class Trail:
    """The places of one queue's claims, for each priority apart. again: so many rows before the last claimed one are
    gone through again: a writer that began before others may commit after them, and its rows stand before theirs."""

    def __init__(self, again: int) -> None:
        self._again = again
        self._rows = 0
        self._marks: dict[int, deque[tuple[int, Place]]] = {}
        self._olds: dict[int, Place] = {}

    def __bool__(self) -> bool:
        return bool(self._marks)

    def add(self, last: Sequence[Place], rows: int, *, is_full: bool) -> None:
        """Note a claim of so many rows; last: where the last one of each priority stood, in order. is_full: it may have
        left some."""
        self._rows += rows
        if not is_full:
            self._olds.clear()
        for place in last:
            marks = self._marks.pop(place.priority, None) or deque()
            self._marks[place.priority] = marks  # the last one
            self._olds.pop(place.priority, None)
            if marks and place.scheduled_at_s < marks[-1][1].scheduled_at_s:
                if is_full and place is last[-1]:
                    self._olds[place.priority] = place
            elif not marks or self._rows - marks[-1][0] >= self._again // _MARKS:
                marks.append((self._rows, place))
            while len(marks) > 1 and marks[1][0] <= self._rows - self._again:
                marks.popleft()
            if len(self._marks) > _MOST_PRIORITIES:
                del self._marks[next(iter(self._marks))]

    def places(self) -> list[Place]:
        """Return from where to go on in each priority that was claimed from: where a claim ended that was full of rows
        from before all these, or so many rows back."""
        return [self._olds.get(priority, marks[0][1]) for priority, marks in self._marks.items()]
