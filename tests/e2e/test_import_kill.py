"""Processes that die while they import: every order once, the changed ones updated, the counts true."""

import random
import threading

import pytest
from waiting import until
from workflows.imports import shop

from e2e.world import World

ORDERS = 3_000


def in_flight(town: World) -> bool:
    """A merge has a transaction open on the server."""
    return bool(
        town.database.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND xact_start IS NOT NULL"
            " AND application_name = 'order-listener import merge'"
        )
    )


def test_killed_at_random_every_order_is_there_once(town: World, request: pytest.FixtureRequest) -> None:
    """Killed at random moments of an import, and once more each time that it was begun again; then one file more."""
    kills = 20 if request.config.getoption("--rounds") > 15 else 3
    changed = {17, 1_700, 2_999}
    again = shop.document(
        shop.order(f"N-{n}", notes="changed", modified="11/20/2026 16:00") if n in changed else shop.order(f"N-{n}")
        for n in range(1, ORDERS + 1)
    )
    town.configure(upload_enabled=False)
    town.database.execute("INSERT INTO import_files (name, content) VALUES ('a.xml', %s)", [shop.numbered(ORDERS)])
    kills_in_flight = 0
    for _ in range(kills):
        service = town.start(LISTENER_QUEUES="import")
        until(lambda: in_flight(town) or counts(town)[0][0] == "Imported", deadline_s=20, what="an import")
        pause(random.random() * 0.3)
        kills_in_flight += in_flight(town)
        service.kill()
        until(lambda: not in_flight(town), what="the end of the dead process's transaction")
        assert town.database.execute("SELECT count(*) FROM orders_inbox") in ([(0,)], [(ORDERS,)])  # all or nothing
    assert kills_in_flight > 0
    town.start(LISTENER_QUEUES="import")
    until(lambda: counts(town)[0][0] == "Imported", deadline_s=60, what=f"the import: {counts(town)}")
    town.database.execute("INSERT INTO import_files (name, content) VALUES ('b.xml', %s)", [again])
    until(lambda: counts(town)[-1][0] == "Imported", deadline_s=60, what=f"the second import: {counts(town)}")

    assert counts(town) == [
        ("Imported", ORDERS, ORDERS, 0, 0),
        ("Imported", ORDERS, 0, len(changed), ORDERS - len(changed)),
    ]
    rows = town.database.execute("SELECT order_number, payload ->> 'customer_notes' FROM orders_inbox")
    assert len(rows) == ORDERS
    assert {number for number, notes in rows if notes == "changed"} == {f"N-{n}" for n in changed}


def counts(town: World) -> list[tuple[object, ...]]:
    return town.database.execute(
        "SELECT status, orders_found, orders_inserted, orders_updated, orders_unchanged FROM import_files ORDER BY id"
    )


def pause(seconds: float) -> None:
    """Let the process go on for a random while: the moment of the kill, not a wait for something."""
    threading.Event().wait(seconds)
