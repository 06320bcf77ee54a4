"""What `listener sync` says of the run that keeps its own away."""

from typing import Any

import pytest

from listener.cli.sync import _in_the_way

RUN = {"id": 7, "reason": "schedule", "scheduled_at": "2036-01-01", "started_at": None, "is_later": False}


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (None, "has just ended; try again"),
        ({**RUN, "status": "Processing"}, "sync run 7 (schedule) of this account is working; see"),
        ({**RUN, "status": "Processing", "started_at": "2026-11-22"}, "is working since 2026-11-22; see"),
        ({**RUN, "status": "Pending"}, "is waiting; see"),
        ({**RUN, "status": "Pending", "is_later": True}, "is waiting until 2036-01-01;\nhint: set its scheduled_at"),
    ],
)
def test_it_is_named_with_what_it_does(run: dict[str, Any] | None, words: str) -> None:
    assert words in _in_the_way(run)
