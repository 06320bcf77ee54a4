"""Pacific wall clock: what is asked for in the nights when clocks change, and how their times are read."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.workflows.pacific import lower_bound, pacific, read_pacific

BACK = datetime(2025, 11, 2, 9, tzinfo=UTC)  # 02:00 PDT becomes 01:00 PST
FORWARD = datetime(2025, 3, 9, 10, tzinfo=UTC)  # 02:00 PST becomes 03:00 PDT
NEAR = st.integers(min_value=-4 * 3600, max_value=4 * 3600).map(lambda seconds: timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("since", "asked"),
    [
        ("2025-11-02T08:50:30.9+00:00", "2025-11-02 01:00:00"),  # 01:50 PDT: 01:10 PST is later
        ("2025-11-02T08:00:00+00:00", "2025-11-02 01:00:00"),
        ("2025-11-02T07:59:59+00:00", "2025-11-02 00:59:59"),
        ("2025-11-02T09:50:00+00:00", "2025-11-02 01:50:00"),  # the second time
        ("2025-03-09T09:59:59.5+00:00", "2025-03-09 01:59:59"),
        ("2025-03-09T10:00:00+00:00", "2025-03-09 03:00:00"),
        ("2026-07-01T12:00:00+00:00", "2026-07-01 05:00:00"),
    ],
)
def test_the_bound_is_the_earliest_wall_clock_from_then_on(since: str, asked: str) -> None:
    assert lower_bound(datetime.fromisoformat(since)) == asked


@settings(deadline=None, max_examples=300)
@given(st.sampled_from((BACK, FORWARD)), NEAR, st.integers(min_value=0, max_value=4 * 3600))
def test_nothing_that_changes_later_lies_before_the_bound(turn: datetime, offset: timedelta, later_s: int) -> None:
    since = turn + offset
    shown = pacific(since + timedelta(seconds=later_s)).replace("T", " ")[:19]

    assert shown >= lower_bound(since)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-11-09T15:15:09.9970000", "2024-11-09T23:15:09.997+00:00"),
        ("2024-11-09 15:15:09", "2024-11-09T23:15:09+00:00"),
        ("2026-11-20", "2026-11-20T08:00:00+00:00"),
        ("2024-11-09T15:15:09.9970000Z", "2024-11-09T23:15:09.997+00:00"),  # printed so, and Pacific all the same
        ("2024-11-09T15:15:09-05:00", "2024-11-09T20:15:09+00:00"),
        ("2025-11-02T01:30:00", "2025-11-02T08:30:00+00:00"),  # twice that night: the earlier one
        ("2025-03-09T02:30:00", "2025-03-09T10:30:00+00:00"),  # never that night
    ],
)
def test_their_times_are_read(text: str, moment: str) -> None:
    assert read_pacific(text) == datetime.fromisoformat(moment)


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "2026-01-01T25:00:00", "٢٠٢٦-01-01"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|must be|month|hour|Invalid"):
        read_pacific(text)
