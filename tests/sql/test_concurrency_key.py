"""A queue with a concurrency key: at most one row of a key is Processing, and nobody is told off for trying."""

from dataclasses import replace
from typing import Any

import pytest
from conftest import Database
from psycopg.errors import UniqueViolation
from queues import SESSION, engine_connection, open_pool, statement

from listener.core.job import Settle, Settlement
from listener.db.queue import QueueTable
from listener.workflows.queues import SYNC, UPLOAD

pytestmark = pytest.mark.anyio


def run(database: Database, account: str = "a", **columns: Any) -> int:
    names = ", ".join(columns)
    [(key,)] = database.execute(
        f"INSERT INTO sync_runs (account{', ' if names else ''}{names})"
        f" VALUES (%s{', %s' * len(columns)}) RETURNING id",
        [account, *columns.values()],
    )
    return int(key)


def statuses(database: Database) -> dict[int, str]:
    return dict(database.execute("SELECT id, status FROM sync_runs"))


async def test_a_running_key_is_passed_over_and_no_reason_to_look_again(database: Database) -> None:
    async with open_pool(database) as pool:
        table = QueueTable(pool, SYNC)
        first, other = run(database, "a"), run(database, "b")
        claimed = await table.claim(limit=5, session_key=SESSION)
        assert sorted(job.id for job in claimed.jobs) == [first, other]
        second = run(database, "a")

        again = await table.claim(limit=5, session_key=SESSION)

        assert (again.jobs, again.passed_over) == ([], False)
        held = next(job for job in claimed.jobs if job.id == first)
        await table.settle([Settlement(job=held, kind=Settle.COMPLETE)])
        assert [job.id for job in (await table.claim(limit=5, session_key=SESSION)).jobs] == [second]


async def test_losing_the_race_is_nothing_claimed(database: Database) -> None:
    """The other one's claim is not visible to ours: only the unique index knows."""
    run(database, "a")
    async with open_pool(database) as pool:
        blind = replace(SYNC, concurrency_key=())  # a claim that does not look, as an old snapshot would not see
        seen = (await QueueTable(pool, SYNC).claim(limit=1, session_key=SESSION)).jobs
        run(database, "a")
        table = QueueTable(pool, SYNC)
        table._claim = QueueTable(pool, blind)._claim

        lost = await table.claim(limit=1, session_key=SESSION)

        assert len(seen) == 1
        assert (lost.jobs, lost.passed_over) == ([], True)


async def test_the_index_refuses_what_a_hand_writes(database: Database) -> None:
    for _ in range(2):
        key = run(database, "a")
        if statuses(database) == {key: "Pending"}:
            database.execute("UPDATE sync_runs SET status = 'Processing', claim_id = 1")
    with pytest.raises(UniqueViolation):
        database.execute("UPDATE sync_runs SET status = 'Processing' WHERE status = 'Pending'")
    with pytest.raises(UniqueViolation):
        run(database, "a")


@pytest.mark.parametrize("kind", [Settle.RELEASE, Settle.RETRY, Settle.SNOOZE])
async def test_a_run_that_comes_back_while_another_waits_gives_it_what_it_was_asked(
    database: Database, kind: Settle
) -> None:
    first = run(database, "a", params='{"lookback_minutes": 60, "urls": ["x"], "dry_run": true}', reason="manual")
    async with open_pool(database) as pool:
        table = QueueTable(pool, SYNC)
        (job,) = (await table.claim(limit=1, session_key=SESSION)).jobs
        second = run(database, "a", params='{"urls": ["y"], "max_pages": 3}', reason="webhook")

        await table.settle([Settlement(job=job, kind=kind, delay_s=9.0)])

    assert statuses(database) == {first: "Superseded", second: "Pending"}
    [(params, reason)] = database.execute("SELECT params, reason FROM sync_runs WHERE id = %s", [second])
    assert (reason, params["lookback_minutes"], sorted(params["urls"])) == ("manual", 60, ["x", "y"])
    assert not {"dry_run", "max_pages"} & set(params)


async def test_a_rescued_run_gives_way_too_and_all_failed_ones_can_be_retried(database: Database) -> None:
    first = run(database, "a")
    async with open_pool(database) as pool:
        table = QueueTable(pool, SYNC)
        await table.claim(limit=1, session_key=SESSION)
        second = run(database, "a")

        assert await table.rescue(stale_s=300.0) == 1

        assert statuses(database) == {first: "Superseded", second: "Pending"}
        database.execute("UPDATE sync_runs SET status = 'Failed'")
        assert await table.retry_failed() == 2
    assert sorted(statuses(database).values()) == ["Pending", "Superseded"]


@pytest.mark.parametrize("params", ["[]", "7", '{"urls": "x"}', '{"lookback_minutes": "long"}', '{"urls": {}}'])
async def test_merging_never_raises_whatever_a_hand_wrote(database: Database, params: str) -> None:
    for other in ("{}", '{"urls": ["y"], "lookback_minutes": 5}'):
        for pair in ((params, other), (other, params)):
            database.execute("SELECT listener_merge_sync_params(%s::jsonb, %s::jsonb)", list(pair))


async def test_the_end_of_a_run_rings(database: Database) -> None:
    run(database, "a")
    async with open_pool(database) as pool:
        table = QueueTable(pool, SYNC)
        (job,) = (await table.claim(limit=1, session_key=SESSION)).jobs
        sleeper = database.connect()
        sleeper.execute("LISTEN listener_wake")
        sleeper.execute("SELECT pg_advisory_lock(1869374562, 'sync_runs'::regclass::oid::integer)")

        await table.settle([Settlement(job=job, kind=Settle.COMPLETE)])

        assert [notice.payload for notice in sleeper.notifies(timeout=5, stop_after=1)] == ["sync_runs"]


def test_a_queue_without_a_key_claims_with_the_same_bytes_as_ever(database: Database) -> None:
    text = statement("claim").as_string(engine_connection(database))

    assert "running" not in text
    assert "priorities.key) ORDER BY" in " ".join(text.split())
    assert "running" in statement("claim", SYNC).as_string(None)
    assert UPLOAD.concurrency_key == ()
