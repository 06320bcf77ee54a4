"""A real program that runs its listener, stopped and killed: nothing is lost."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from conftest import Database
from e2e.service import Service, clean_environ
from library.invoices import Invoices
from waiting import until

SHOP = Path(__file__).with_name("shop.py")
#: The session that has the bell of `invoices` on.
HOLDER = """
SELECT lease.objid::bigint FROM pg_locks AS bell JOIN pg_locks AS lease USING (pid)
WHERE bell.classid = 1869374562::oid AND bell.objid = 'invoices'::regclass AND bell.mode = 'ExclusiveLock'
  AND lease.locktype = 'advisory' AND lease.classid <> 1869374562::oid
"""
Start: TypeAlias = Callable[..., Service]


@pytest.fixture
def invoices(database: Database) -> Invoices:
    database.execute("CREATE TABLE receipts (queue text, id bigint); GRANT INSERT ON receipts TO PUBLIC")
    return Invoices(database)


@pytest.fixture
def emails(database: Database) -> Invoices:
    return Invoices(database, "emails")


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Iterator[Start]:
    """Start `shop.py`; every process is gone afterwards."""
    running: list[Service] = []

    def begin(**environ: str) -> Service:
        settings = {"DATABASE_URL": database.service_url, "LISTENER_HTTP": "127.0.0.1:0", "LISTENER_LOG_FORMAT": "json"}
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


def claimed(database: Database) -> dict[int, int]:
    """Session → invoices that it works on."""
    return dict(database.execute("SELECT claimed_by, count(*) FROM invoices WHERE claim_id IS NOT NULL GROUP BY 1"))


def session_of(shop: Service) -> int:
    return int(shop.events("Session opened")[-1]["session"])


@pytest.mark.parametrize(
    ("living", "victims", "is_busy"), [(1, 1, False), (1, 1, True), (2, 2, False), (0, 1, False)], ids=str
)
def test_a_hundred_rows_of_the_killed_run_again_at_once(
    living: int, victims: int, is_busy: bool, start: Start, database: Database, invoices: Invoices, emails: Invoices
) -> None:
    """Each poll is an hour away. Without a survivor: by the next process, which finds them when it starts."""
    database.execute("UPDATE configuration_params SET param_value = 3600 WHERE param_key = 'fast_polling_interval'")
    dying = [start(SHOP_CONCURRENCY="100").wait_ready() for _ in range(victims)]
    invoices.insert(*[1] * 100)
    until(lambda: sum(claimed(database).values()) == 100, deadline_s=30, what="a hundred calls")
    survivors = [start(SHOP_CONCURRENCY="100").wait_ready() for _ in range(living)]
    if is_busy:
        emails.insert(*[0] * 1_000)
        until(lambda: ("Done", 1) in emails.statuses(), what="the first emails")
    began = time.monotonic()
    for shop in dying:
        shop.kill()
    if not living:
        survivors = [start(SHOP_CONCURRENCY="100").wait_ready()]
        began = time.monotonic()
    sessions = {session_of(shop) for shop in survivors}

    def again() -> bool:
        held = claimed(database)
        return held.keys() <= sessions and sum(held.values()) == 100

    until(again, deadline_s=10, what=f"all to run again; now {claimed(database)} of {sessions}")
    print(f"\n{living} living, {victims} killed, busy {is_busy}: {time.monotonic() - began:.2f} s")  # noqa: T201


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_listener_killed_while_it_has_the_bell_on_leaves_no_row_lying(
    count: int, start: Start, database: Database, invoices: Invoices, emails: Invoices
) -> None:
    """Rows committed before, while and after it dies, by writers who began when it lived; no poll finds them."""
    database.execute("UPDATE configuration_params SET param_value = 3600 WHERE param_key = 'fast_polling_interval'")
    shops = [start().wait_ready() for _ in range(count)]
    at_risk: set[int] = set()
    for _ in range(2):
        [session] = until(lambda: [row[0] for row in database.execute(HOLDER)], what="the bell")
        victim = next(shop for shop in shops if session_of(shop) == session)
        writer = database.connect()
        writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM invoices")
        invoices.insert(0)
        at_risk |= {row[0] for row in database.execute("SELECT max(id) FROM invoices")}
        victim.kill()
        until(lambda s=session: s not in sessions(database), what="the end of its session")
        invoices.insert(0)
        writer.execute("INSERT INTO invoices (amount) VALUES (0); COMMIT")
        shops.remove(victim)
        if count == 1:
            shops.append(start().wait_ready())
        until(lambda: {s for s, _ in invoices.statuses()} == {"Done"}, deadline_s=15, what="all done")
        if shops:  # the survivors sleep again: what comes now has to ring
            until(lambda: database.execute(HOLDER), what="the bell of a survivor")
            invoices.insert(0)
            until(lambda: {s for s, _ in invoices.statuses()} == {"Done"}, deadline_s=15, what="the last one done")
        if count > 1:
            shops.append(start().wait_ready())
    keys = [row[0] for row in database.execute("SELECT id FROM receipts ORDER BY id")]
    assert len(set(keys)) == 8
    # a handler that was killed after its work and before its outcome was written has its row handled again
    assert {key for key in keys if keys.count(key) > 1} <= at_risk


def sessions(database: Database) -> set[int]:
    return {row[0] for row in database.execute("SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory'")}


def test_what_no_waiting_mends_ends_it_with_a_sentence(start: Start, invoices: Invoices) -> None:
    shop = start()
    assert shop.process.wait(30) == 2
    assert "listener: table emails is not attached; run `listener attach emails`" in shop.log_text


PROGRAM = """
from listener import Listener
app = Listener(http=False)
@app.queue("invoices")
async def send(job): ...
app.run()
"""


@pytest.mark.parametrize(
    ("url", "code", "told"),
    [
        (
            "{0}_of_nobody",
            1,
            "the database {1}_of_nobody does not exist: create it",
        ),
        ("postgresql://me:se%zz@h/shop", 2, "DATABASE_URL"),
        ("mysql://h/shop", 2, "DATABASE_URL"),
        ("", 2, "DATABASE_URL"),
    ],
)
def test_what_no_waiting_mends_is_said_in_the_last_line(
    url: str, code: int, told: str, database: Database, tmp_path: Path
) -> None:
    """And by the exit code, as `listener run` does; neither our frames nor the driver's are around it."""
    place = database.service_url.rpartition("@")[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**clean_environ(), "DATABASE_URL": url.format(database.service_url)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(f"listener: {told.format('', place)}"), done.stderr
    assert "Traceback" not in done.stderr
    assert "psycopg" not in done.stderr
