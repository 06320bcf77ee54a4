"""A real program with three queues and nothing to do costs the server two statements a safety poll, and still finds
what nobody told it of."""

from conftest import Database
from e2e.service import Service
from library.invoices import Invoices
from library.test_process import Start, invoices, start
from waiting import until

__all__ = ["invoices", "start"]

POLLS = 5
#: A row of polling_metrics, this test's own question, and what a backend has not counted yet.
BESIDE = 4


def polls(shop: Service) -> int:
    return sum(line["reason"] == "poll" for line in shop.events("Woke") if line["queue"] == "invoices")


def commits(database: Database) -> int:
    """Transactions that ended in this database, which are statements as long as each is one of its own: ten statements
    in one BEGIN … COMMIT would count as one. Not seen either: a transaction that is still open, what is asked outside
    of any (the notices that LISTEN brings), and another database's. A backend tells of its own once a second.
    """
    [(count,)] = database.execute(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    return int(count)


def window(shop: Service, database: Database) -> int:
    """Transactions of the whole database during so many polls."""
    first, before = polls(shop), commits(database)
    until(lambda: polls(shop) >= first + POLLS, deadline_s=30, what=f"polls; {shop.log_text[-2000:]}")
    return commits(database) - before


def configure(database: Database, **values: object) -> None:
    for key, value in values.items():
        database.execute("SELECT config_set(%s, %s)", [key, str(value)])


def test_it_asks_twice_a_poll_and_finds_what_nobody_announced(
    start: Start, database: Database, invoices: Invoices
) -> None:
    Invoices(database, "emails"), Invoices(database, "parcels")
    configure(database, fast_polling_interval=1, log_level="debug")
    shop = start(SHOP_MORE="parcels").wait_ready()
    until(lambda: polls(shop) >= 3, deadline_s=30, what="the end of its start")
    # the better one of two: autovacuum may have come by
    assert min(window(shop, database) for _ in range(2)) <= 2 * POLLS + BESIDE

    # a row that rings nobody
    database.execute("ALTER TABLE invoices DISABLE TRIGGER USER")
    invoices.insert(0)
    until(lambda: invoices.statuses() == [("Done", 1)], what="the row that was not announced")
    # a row of a session that ended before anybody watched it
    database.execute(
        "INSERT INTO invoices (amount, status, claim_id, claimed_by, claimed_at, attempts)"
        " VALUES (0, 'Processing', -1, 999999, now(), 1)"
    )
    until(lambda: invoices.statuses() == [("Done", 1)] * 2, what="the row of the dead")
    # a change of the configuration of which nobody told
    database.execute("ALTER TABLE configuration_params DISABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET param_value = '7' WHERE param_key = 'max_attempts'")
    until(lambda: any("max_attempts" in str(line) for line in shop.events("Configuration")), what="the new value")
    assert shop.stop() == 0
