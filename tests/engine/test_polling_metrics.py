"""`polling_metrics`: at most one row a second and queue, never in the way of work, cleaned, and reported rightly."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import Database
from queues import open_pool
from waiting import until_async

from listener.core.events import Checked, Event, MetricsCleaned, Trouble
from listener.db.polling_metrics import PollingLog
from listener.engine.polling_metrics import PollingMetrics

pytestmark = pytest.mark.anyio


def check(claimed: int = 0, *, queue: str = "upload", ms: float = 2.0) -> Checked:
    return Checked(queue=queue, claimed=claimed, waiting=claimed, duration_s=ms / 1000)


class Recorder:
    """The recorder on a real table, with its events and its switch."""

    def __init__(self, log: PollingLog) -> None:
        self.events: list[Event] = []
        self.is_enabled = True
        self.is_ending = False
        self.metrics = PollingMetrics(
            log,
            self.events.append,
            is_enabled=lambda: self.is_enabled,
            names={"upload": "shipstation-upload", "import": "xml-import"},
            is_ending=lambda: self.is_ending,
        )


@pytest.fixture
async def recorder(database: Database) -> AsyncIterator[Recorder]:
    async with open_pool(database) as pool:
        yield Recorder(PollingLog(pool))


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.execute(
        "SELECT workflow_name, record_count, action_taken, duration_ms, checks, skipped, longest_ms"
        " FROM polling_metrics ORDER BY id"
    )


async def test_checks_are_summed_by_queue_under_the_older_scripts_names(recorder: Recorder, database: Database) -> None:
    for event in (check(3), check(0, ms=40), check(2), check(0, queue="import"), check(1, queue="invoices")):
        recorder.metrics.on_event(event)
    assert await recorder.metrics.flush()
    assert rows(database) == [
        ("shipstation-upload", 5, "processed", 44, 3, 1, 40),
        ("xml-import", 0, "skipped", 2, 1, 1, 2),
        ("invoices", 1, "processed", 2, 1, 0, 2),
    ]
    assert await recorder.metrics.flush()
    assert len(rows(database)) == 3, "what was written is not written again"


async def test_a_burst_is_one_row_now_and_one_later(
    recorder: Recorder, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first check is written at once; what comes within the second waits for its end."""
    pauses: list[float] = []
    paused, go_on = anyio.Event(), anyio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        paused.set()
        await (go_on if seconds <= 1 else anyio.Event()).wait()

    monkeypatch.setattr("listener.engine.polling_metrics.anyio.sleep", pause)
    async with anyio.create_task_group() as group:
        group.start_soon(recorder.metrics.run)
        recorder.metrics.on_event(check(1))
        await until_async(lambda: 1.0 in pauses, what="the pause of a second after the first row")
        for _ in range(100):
            recorder.metrics.on_event(check(1))
        await anyio.wait_all_tasks_blocked()
        assert len(rows(database)) == 1
        go_on.set()
        await until_async(lambda: len(rows(database)) == 2, what="the second row")
        group.cancel_scope.cancel()
    assert [(row[1], row[4]) for row in rows(database)] == [(1, 1), (100, 100)]


async def test_checks_that_found_nothing_wait_for_one_that_did_or_for_the_end(
    recorder: Recorder, database: Database
) -> None:
    """They are not worth a statement each; a stop in good order loses none of them."""
    async with anyio.create_task_group() as group:
        group.start_soon(recorder.metrics.run)
        for _ in range(3):
            recorder.metrics.on_event(check())
        await anyio.wait_all_tasks_blocked()
        assert rows(database) == []
        recorder.metrics.on_event(check(2))
        await until_async(lambda: len(rows(database)) == 1, what="the row")
        recorder.metrics.on_event(check())
        await anyio.wait_all_tasks_blocked()
        recorder.is_ending = True
        group.cancel_scope.cancel()
    assert [(row[1], row[2], row[4], row[5]) for row in rows(database)] == [
        (2, "processed", 4, 3),
        (0, "skipped", 1, 1),
    ]


async def test_checks_that_found_nothing_are_written_now_and_then_all_the_same(
    recorder: Recorder, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listener.engine.polling_metrics.SKIPPED_EVERY_S", 0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(recorder.metrics.run)
        recorder.metrics.on_event(check())
        await until_async(lambda: rows(database), what="a row, without a claim or a stop")
        group.cancel_scope.cancel()
    assert [(row[1], row[2], row[4]) for row in rows(database)] == [(0, "skipped", 1)]


async def test_switched_off_nothing_is_counted(recorder: Recorder, database: Database) -> None:
    recorder.is_enabled = False
    recorder.metrics.on_event(check(1))
    assert await recorder.metrics.flush()
    assert rows(database) == []


async def test_a_table_that_is_gone_is_only_a_word_in_the_debug_log(recorder: Recorder, database: Database) -> None:
    database.execute("ALTER TABLE polling_metrics RENAME TO elsewhere")
    recorder.metrics.on_event(check(1))
    assert not await recorder.metrics.flush()
    [trouble] = recorder.events
    assert isinstance(trouble, Trouble)
    assert trouble.is_minor
    database.execute("ALTER TABLE elsewhere RENAME TO polling_metrics")
    recorder.metrics.on_event(check(2))
    assert await recorder.metrics.flush()
    assert [row[1] for row in rows(database)] == [2]


def insert(database: Database, age: str, workflow: str = "w", count: int = 1, **columns: Any) -> None:
    names = "".join(f", {name}" for name in columns)
    database.execute(
        f"INSERT INTO polling_metrics (workflow_name, check_timestamp{names})"
        f" SELECT %s, LOCALTIMESTAMP - %s::interval{', %s' * len(columns)} FROM generate_series(1, %s)",
        [workflow, age, *columns.values(), count],
    )


async def test_what_is_older_than_a_week_goes(recorder: Recorder, database: Database) -> None:
    insert(database, "8 days", "old", 10_500)  # more than one statement takes
    insert(database, "6 days", "young")
    async with anyio.create_task_group() as group:
        group.start_soon(recorder.metrics.run)
        await until_async(lambda: MetricsCleaned(count=10_500) in recorder.events, what="the clean-up")
        group.cancel_scope.cancel()
    assert [row[0] for row in rows(database)] == ["young"]


def test_the_days_to_keep_are_a_parameter(database: Database) -> None:
    """R194, N12."""
    for days in (1, 3, 5):
        insert(database, f"{days} days", str(days))
    assert database.execute("SELECT cleanup_old_metrics(4)") == [(1,)]
    assert database.execute("SELECT cleanup_old_metrics(days_to_keep => 0, most => 1)") == [(1,)]
    assert [row[0] for row in rows(database)] == ["1"], "the oldest go first"
    for bad in ("NULL", "-1"):
        with pytest.raises(Exception, match="days_to_keep must be a whole number of days from 0"):
            database.execute(f"SELECT cleanup_old_metrics({bad})")


def test_the_last_hour_in_one_view(database: Database) -> None:
    """R210, with rows of the older scripts beside ours."""
    insert(database, "5 minutes", "shipstation-upload", 3, action_taken="skipped", duration_ms=2, record_count=0)
    insert(database, "5 minutes", "shipstation-upload", action_taken="processed", duration_ms=6, record_count=9)
    insert(
        database, "1 minute", "xml-import", action_taken="processed", duration_ms=30, checks=6, skipped=4, longest_ms=9
    )
    insert(database, "2 hours", "xml-import", action_taken="processed", duration_ms=1000)
    assert [tuple(map(str, row)) for row in database.execute("SELECT * FROM polling_metrics_last_hour")] == [
        ("shipstation-upload", "4", "3.00", "1", "3", "75.0"),
        ("xml-import", "6", "5.00", "2", "4", "66.7"),
    ]


def test_the_day_by_hours_newest_first(database: Database) -> None:
    """R209."""
    for hours, skipped in ((0, 1), (3, 2), (25, 3)):
        insert(
            database,
            f"{hours} hours",
            "w",
            checks=4,
            skipped=skipped,
            duration_ms=8,
            longest_ms=5,
            action_taken="processed",
        )
    found = database.execute(
        "SELECT hour = date_trunc('hour', LOCALTIMESTAMP), workflow_name, checks, avg_ms::float, max_ms,"
        " skip_pct::float"
        " FROM polling_metrics_hourly"
    )
    assert found == [(True, "w", 4, 2.0, 5, 25.0), (False, "w", 4, 2.0, 5, 50.0)]
