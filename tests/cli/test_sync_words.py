"""What `listener sync` says of what keeps its run away."""

from typing import Any

import pytest

from listener.cli.sync import _in_the_way, _pause_of

RUN = {"id": 7, "reason": "schedule", "scheduled_at": "2036-01-01", "started_at": None, "is_later": False}


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ({**RUN, "status": "Processing"}, "sync run 7 (schedule) of this account is working; see"),
        ({**RUN, "status": "Processing", "started_at": "2026-11-22"}, "is working since 2026-11-22; see"),
        ({**RUN, "status": "Pending"}, "is waiting; see `listener stats`\nhint: `listener sync` goes on with it"),
        ({**RUN, "status": "Pending", "is_later": True}, "is waiting until 2036-01-01;\nhint: set its scheduled_at"),
    ],
)
def test_it_is_named_with_what_it_does(run: dict[str, Any], words: str) -> None:
    assert words in _in_the_way(run)


PAUSED = {"connector": "shipstation", "account": "…mine", "is_paused": True, "pause_reason": "outage",
          "pause_message": "503", "probe_in_s": 5.0}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "paused (outage): 503"),
        ({"probe_in_s": 0.0}, ""),  # else no run would ever try again where no service runs
        ({"is_paused": False, "probe_in_s": 0.0}, ""),
        ({"account": "…another key's"}, ""),
        ({"connector": "shop"}, ""),
    ],
)
def test_only_a_pause_of_its_own_account_that_goes_on_keeps_it_away(changes: dict[str, Any], words: str) -> None:
    assert _pause_of([PAUSED | {"account": "…other", "is_paused": False}, PAUSED | changes], "…mine") == words
