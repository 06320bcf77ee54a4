"""What the older scripts' import did before and after its work, requirement by requirement (R048 to R051, R054)."""

import itertools
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from waiting import until
from workflows.imports import shop

from e2e.service import Service
from e2e.world import World


class Cellar:
    """A service that imports a folder's files, looking every second."""

    def __init__(self, town: World, path: Path) -> None:
        self.town, self.path = town, path
        path.mkdir()
        town.configure(fast_polling_interval=1)

    def start(self) -> Service:
        return self.town.start(LISTENER_QUEUES="import", IMPORT_FOLDER=str(self.path), IMPORT_SETTLE="0.05")

    def drop(self, name: str, content: str) -> None:
        (self.path / f"{name}.tmp").write_text(content)
        (self.path / f"{name}.tmp").rename(self.path / name)

    def until_moved(self, name: str) -> None:
        until((self.path / "processed" / name).exists, deadline_s=30, what=f"{name} in processed")

    def files(self) -> list[tuple[Any, ...]]:
        return self.town.database.execute("SELECT name, status, attempts FROM import_files ORDER BY id")

    def checks(self) -> list[tuple[str, int]]:
        """action_taken and record_count of each row of polling_metrics, as the older reports read it."""
        return self.town.database.execute(
            "SELECT action_taken, record_count FROM polling_metrics WHERE workflow_name = 'xml-import' ORDER BY id"
        )

    def state(self) -> tuple[int, datetime]:
        """last_file_count and last_upload_check of polling_state's row 1."""
        [row] = self.town.database.execute("SELECT last_file_count, last_upload_check FROM polling_state WHERE id = 1")
        return row[0], row[1]


@pytest.fixture
def cellar(town: World, tmp_path: Path) -> Cellar:
    return Cellar(town, tmp_path / "cellar")


def test_only_new_files_are_work(cellar: Cellar) -> None:
    """R048: nothing new → skipped; a new, a changed or a renamed file that is not imported → run; known content → not.

    R051: both are counted in rows of polling_metrics under the old name, and a stop loses none of them. R054:
    the count is logged when it changes.
    """
    service = cellar.start()

    def skips() -> float:
        return service.metric("listener_checks_total", queue="import", action="skip") or 0.0

    until(skips, what="a check that found nothing")
    cellar.drop("a.xml", shop.numbered(2))
    cellar.until_moved("a.xml")
    until(lambda: ("processed", 1) in cellar.checks(), what="a check that found one file")
    cellar.drop("a.xml", shop.numbered(3))  # changed
    until(lambda: len(cellar.files()) == 2, what="the changed file's row")
    cellar.drop("b.xml", shop.numbered(2))  # renamed, but known
    cellar.until_moved("b.xml")
    before = skips()
    until(lambda: skips() >= before + 3, deadline_s=20, what="checks that find nothing")
    counted = skips()
    assert service.stop() == 0
    assert cellar.checks()[-1] == ("skipped", 0)
    [(skipped,)] = cellar.town.database.execute("SELECT sum(skipped) FROM polling_metrics")
    assert skipped >= counted
    assert cellar.files() == [("a.xml", "Imported", 1), ("a.xml", "Imported", 1)]
    assert sum(count for _, count in cellar.checks()) == 2
    told = [
        line["event"]
        for line in service.log()
        if line["event"] in ("Processing 1 pending files", "XML import queue empty")
    ]
    assert told[:2] == ["Processing 1 pending files", "XML import queue empty"]
    assert all(before != after for before, after in itertools.pairwise(told)), told


def test_the_state_is_written_with_the_orders_or_not_at_all(cellar: Cellar) -> None:
    """R049, R050: row 1 of polling_state is the state of all processes; one that dies in the middle leaves it."""
    town = cellar.town
    town.database.execute(
        "UPDATE polling_state SET last_file_count = 77, last_upload_check = '2020-01-01' WHERE id = 1"
    )
    before = cellar.state()
    with town.database.connect(autocommit=False) as blocker:
        blocker.execute("LOCK TABLE orders_inbox IN EXCLUSIVE MODE")
        first = cellar.start()
        cellar.drop("a.xml", shop.numbered(50))
        until(
            lambda: town.database.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                " AND application_name = 'order-listener import merge'"
            ),
            deadline_s=20,
            what="a merge that waits for the table",
        )
        assert cellar.state() == before
        first.kill()
        blocker.rollback()
    assert town.database.execute("SELECT count(*) FROM orders_inbox") == [(0,)]
    assert cellar.state() == before
    cellar.start()
    cellar.until_moved("a.xml")
    assert town.database.execute("SELECT count(*), count(DISTINCT order_number) FROM orders_inbox") == [(50, 50)]
    count, at = cellar.state()
    assert count == 0, "nothing else waits"
    assert at > before[1]


def test_switched_back_to_slow_polling_it_runs_by_the_clock_alone(cellar: Cellar) -> None:
    """R051: flag off → what lies there is imported by the same code at the next look, be anything told or not."""
    cellar.town.configure(ENABLE_FAST_XML_POLLING="false")
    cellar.town.database.execute("INSERT INTO import_files (name, content) VALUES ('a.xml', %s)", [shop.numbered(2)])
    service = cellar.start()
    until(lambda: cellar.files()[0][1] == "Imported", deadline_s=20, what="the first look's import")
    assert cellar.files() == [("a.xml", "Imported", 1)]
    modes = [line["event"] for line in service.events("XML import workflow started")]
    assert modes == ["XML import workflow started (fast_polling=False, interval=300s)"]
