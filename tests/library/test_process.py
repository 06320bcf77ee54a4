"""A real program that runs its listener, stopped and killed: nothing is lost."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from conftest import Database
from e2e.service import Service, clean_environ
from library.invoices import Invoices
from waiting import until

SHOP = Path(__file__).with_name("shop.py")
Start: TypeAlias = Callable[..., Service]


@pytest.fixture
def invoices(database: Database) -> Invoices:
    database.execute("CREATE TABLE receipts (queue text, id bigint)")
    return Invoices(database)


@pytest.fixture
def emails(database: Database) -> Invoices:
    return Invoices(database, "emails")


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Iterator[Start]:
    """Start `shop.py`; every process is gone afterwards."""
    running: list[Service] = []

    def begin(**environ: str) -> Service:
        settings = {"DATABASE_URL": database.url, "LISTENER_HTTP": "127.0.0.1:0", "LISTENER_LOG_FORMAT": "json"}
        command = (sys.executable, str(SHOP), str(tmp_path))
        running.append(Service({**clean_environ(), **settings, **environ}, tmp_path, command))
        return running[-1]

    yield begin
    for service in running:
        service.close()


def begun(folder: Path, service: Service) -> int:
    return len(list(folder.glob(f"begun-{service.process.pid}-*")))


def test_it_works_serves_http_and_ends_when_told(
    start: Start, database: Database, invoices: Invoices, emails: Invoices
) -> None:
    shop = start().wait_ready()
    invoices.insert(0, 0)
    emails.insert(0)
    until(
        lambda: [status for status, _ in invoices.statuses() + emails.statuses()] == ["Done"] * 3,
        what=f"all done; {shop.log_text[-2000:]}",
    )
    assert shop.metric("listener_jobs_settled_total", queue="invoices", outcome="complete") == 2
    assert shop.get("/readyz")[1]["queues"] == {"invoices": {"status": "ok"}, "emails": {"status": "ok"}}
    assert shop.stop() == 0
    assert database.execute("SELECT queue, id FROM receipts ORDER BY 1, 2") == [
        ("emails", 1),
        ("invoices", 1),
        ("invoices", 2),
    ]


def test_what_still_runs_after_the_shutdown_timeout_is_given_back_uncounted(
    start: Start, invoices: Invoices, emails: Invoices, tmp_path: Path
) -> None:
    invoices.insert(1, 1)
    shop = start(LISTENER_SHUTDOWN_TIMEOUT="0.2")
    until(lambda: begun(tmp_path, shop) == 2, deadline_s=30, what=f"two calls; {shop.log_text[-2000:]}")
    assert shop.stop() == 0
    assert invoices.statuses() == [("Pending", 0)] * 2


def test_rows_of_a_killed_program_are_taken_by_the_next_one(
    start: Start, database: Database, invoices: Invoices, emails: Invoices, tmp_path: Path
) -> None:
    """Also those that it had not begun; no attempt is counted."""
    keys = invoices.insert(*[1] * 6)
    first = start()
    until(lambda: begun(tmp_path, first) == 4, deadline_s=30, what=f"four calls; {first.log_text[-2000:]}")
    first.kill()
    database.execute("UPDATE invoices SET amount = 0")
    emails.insert(*[0] * 10)
    start().wait_ready()
    until(lambda: {s for s, _ in invoices.statuses() + emails.statuses()} == {"Done"}, deadline_s=30, what="all done")
    assert {attempts for _, attempts in invoices.statuses()} == {1}
    assert database.execute("SELECT id FROM receipts WHERE queue = 'invoices' ORDER BY id") == [(key,) for key in keys]


def test_what_no_waiting_mends_ends_it_with_a_sentence(start: Start, invoices: Invoices) -> None:
    shop = start()
    assert shop.process.wait(30) == 1
    assert "ConfigError: table emails is not attached; run `listener attach emails`" in shop.log_text
