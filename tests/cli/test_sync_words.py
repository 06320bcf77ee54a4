"""What `listener sync` says of what keeps its run away, and of a run."""

from typing import Any

import pytest
import typer
from conftest import Database
from queues import open_pool

from listener.cli import sync
from listener.cli.sync import _in_the_way, _pause_of, _request
from listener.core.errors import ListenerError
from listener.db.sync_runs import SyncRuns

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


@pytest.mark.anyio
async def test_it_gives_up_when_another_command_stands_by_a_run_for_too_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again until then, because who stands by a run takes it, or is dead."""
    monkeypatch.setattr(sync, "_TAKEN_WITHIN_S", 0.3)
    [(run_id,)] = database.execute(
        "INSERT INTO sync_runs (account, reason, claimed_at) VALUES ('…mine', 'manual', now() + interval '14 seconds')"
        " RETURNING id"
    )

    async def pause() -> str:
        return "paused (outage): 503"

    async with open_pool(database) as pool:
        runs = SyncRuns(pool, connector="shipstation", account="…mine")
        with pytest.raises(ListenerError) as refused:
            await _request(runs, {}, pause)
    assert str(refused.value).splitlines() == [
        f"{sync.BUSY}: sync run {run_id} (manual) of this account is waiting; see `listener stats`",
        "hint: `listener sync` goes on with it, a dry run cannot",
        "the account is paused (outage): 503",
    ]


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({"lists_failed": {"orders": "503", "voids": "404"}}, "could not read orders (503), voids (404); the others"),
        ({"lists_failed": "x"}, "could not read x; the others"),
        ({"lists_failed": ["orders", 7]}, "could not read ['orders', 7]; the others"),
        ({"lists_failed": {"orders": None, "voids": [1]}}, "could not read orders (None), voids ([1]); the others"),
        ({"lists_failed": {}}, None),
        ({"lists_failed": 0, "complete": "x", "calls": "many"}, None),
        ("lists_failed", None),
        ([7], None),
        (None, None),
    ],
)
def test_a_run_whose_figures_a_hand_wrote_is_told_of(
    stats: Any, words: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sync_runs.stats` is a column like any other; what it says of failed lists decides the exit code all the same."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/none")
    monkeypatch.setenv("SHIPSTATION_API_KEY", "mine")
    monkeypatch.setenv("SHIPSTATION_API_SECRET", "secret")
    run = {"id": 7, "status": "Succeeded", "stats": stats, "last_error": None}
    monkeypatch.setattr(sync, "run_loop", lambda *_: run)
    monkeypatch.setattr(sync.log, "set_up", lambda **_: None)
    if words is None:
        sync.sync("shipstation")
    else:
        with pytest.raises(typer.Exit) as end:
            sync.sync("shipstation")
        assert end.value.exit_code == 1
    said = capsys.readouterr()
    assert said.out.startswith("sync run 7 Succeeded: ")
    assert said.err == "" if words is None else f"listener: sync run 7 {words}" in said.err
