"""A table is not as it should be for a while: what still works, and what is told meanwhile."""

from typing import Any

from conftest import Database
from waiting import until

from e2e.service import Orders, Services

DEADLINE_S = 60


def test_rows_of_the_dead_are_given_back_also_while_the_configuration_cannot_be_read(
    listeners: Services, orders: Orders, database: Database
) -> None:
    """Each chore of the safety poll by itself; the one that fails is in the log."""
    database.execute(
        "UPDATE configuration_params SET param_value = '1' WHERE lower(param_key) = 'fast_polling_interval'"
    )
    service = listeners.start().wait_ready()
    database.execute("ALTER TABLE configuration_params RENAME TO away")
    orders.insert(1)
    orders.wait_uploaded(1)
    database.execute(
        "UPDATE orders_inbox SET status = 'Processing', claim_id = -1, claimed_by = 2147483647, claimed_at = now()"
    )

    orders.wait_uploaded(1, DEADLINE_S)

    assert service.events("Rescued"), "they were given back by the safety poll"
    troubles = [line["error"] for line in service.events("Trouble, going on")]
    assert any("configuration_params" in error for error in troubles), troubles
    assert service.stop() == 0


def test_a_queue_that_cannot_be_looked_at_makes_the_process_unready_until_it_can(
    listeners: Services, orders: Orders, database: Database
) -> None:
    """Somebody renames a column and notices it."""
    service = listeners.start().wait_ready()

    def queue(status: int) -> Any:
        got, parts = service.get("/readyz")
        return got == status and parts["queues"]["upload"]

    assert queue(200) == {"status": "ok"}
    database.execute("ALTER TABLE orders_inbox RENAME COLUMN priority TO urgency")
    orders.insert(1)

    trouble = until(lambda: queue(503), deadline_s=DEADLINE_S, what="503")
    assert trouble["status"] == "trouble"
    assert "priority" in trouble["detail"]
    assert service.get("/livez")[0] == 200

    database.execute("ALTER TABLE orders_inbox RENAME COLUMN urgency TO priority")
    orders.wait_uploaded(1, DEADLINE_S)
    assert until(lambda: queue(200), what="200") == {"status": "ok"}
    assert service.stop() == 0


NONSENSE = [
    "remaining = 1000000000",
    "remaining = 0, resets_at = 'infinity'",
    "remaining = 0, resets_at = now() + interval '100 years'",
    "window_s = -60, resets_at = '-infinity'",
    "window_s = 'NaN', resets_at = '-infinity'",
    "paused_until = 'infinity'",
]


def test_nonsense_in_the_budget_neither_stops_the_calls_nor_makes_the_process_unready(
    listeners: Services, orders: Orders, database: Database
) -> None:
    """What a hand, or a wrong clock, may leave there."""
    service = listeners.start(SHIPSTATION_RATE_LIMIT="100").wait_ready()
    for count, changes in enumerate(["remaining = remaining", *NONSENSE], 1):
        database.execute(f"UPDATE api_budgets SET {changes}")
        orders.insert(1, prefix=f"order-{count}")
        orders.wait_uploaded(count, DEADLINE_S)
        database.execute(f"UPDATE api_budgets SET {changes}")
        status, parts = service.get("/readyz")
        assert (status, parts["status"]) == (200, "ready"), (changes, parts)
    assert service.stop() == 0
    assert "Traceback" not in service.log_text
