"""A real program with three queues and nothing to do costs the server two statements a safety poll, and still finds
what nobody told it of."""

import pytest
from conftest import Database
from e2e.proxy import Proxy
from e2e.service import Service
from library.invoices import Invoices
from library.test_process import Start, invoices, start
from waiting import until

__all__ = ["invoices", "start"]

POLLS = 5
#: The statements of one poll: those of the first one, or of the last one, may fall to the other side of the edge.
EDGE = 2
#: On a full machine the queues' polls may lie too far apart to share a survey, or its answer comes too late: a later
#: stretch counts. What asks more at each poll asks more in all of them.
ATTEMPTS = 12


def polls(shop: Service) -> int:
    return sum(line["reason"] == "poll" for line in shop.events("Woke") if line["queue"] == "invoices")


def asked(shop: Service, proxy: Proxy) -> int:
    """Statements of the program during so many polls: counted on their way, as the server's own figures of them are
    seconds late."""
    first, before = polls(shop), proxy.asked()
    until(lambda: polls(shop) >= first + POLLS, deadline_s=30, what=f"polls; {shop.log_text[-2000:]}")
    return proxy.asked() - before


def until_asked_twice_a_poll(shop: Service, proxy: Proxy) -> None:
    counted: list[int] = []
    while len(counted) < ATTEMPTS:
        counted.append(asked(shop, proxy))
        if abs(counted[-1] - 2 * POLLS) <= EDGE:
            return
    pytest.fail(f"statements in {POLLS} polls: {counted}")


def configure(database: Database, **values: object) -> None:
    for key, value in values.items():
        database.execute("SELECT config_set(%s, %s)", [key, str(value)])


def test_it_asks_twice_a_poll_and_finds_what_nobody_announced(
    start: Start, database: Database, invoices: Invoices
) -> None:
    Invoices(database, "emails"), Invoices(database, "parcels")
    configure(database, fast_polling_interval=1, log_level="debug")
    with Proxy(database.service_url) as proxy:
        shop = start(SHOP_MORE="parcels", DATABASE_URL=proxy.url).wait_ready()
        until(lambda: polls(shop) >= 3, deadline_s=30, what="the end of its start")
        until_asked_twice_a_poll(shop, proxy)
        until_found_unannounced(shop, database, invoices)
        assert shop.stop() == 0


def until_found_unannounced(shop: Service, database: Database, invoices: Invoices) -> None:
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
