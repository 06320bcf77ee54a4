"""The watch: a process that dies is noticed by its neighbour at once, not at the next safety poll.

Every poll is an hour away here, so that nothing but the watch can find the rows of the dead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from conftest import Database
from sandbox.server import Client
from waiting import until

from e2e.service import Orders, Service, Services

COUNT = 40


@pytest.fixture(autouse=True)
def _seldom_polls(database: Database) -> None:
    database.execute(
        "INSERT INTO configuration_params VALUES ('fast_polling_interval', '3600'), ('upload_batch_size', '5')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )


def session_of(service: Service) -> int:
    return int(service.events("Session opened")[-1]["session"])


def watches(database: Database) -> set[tuple[int, bool]]:
    """Who waits for whom: the session key that is waited for, and whether a watch waits."""
    return set(
        database.execute(
            "SELECT objid::bigint, granted FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND objsubid = 2 AND application_name = 'order-listener watch'"
        )
    )


def wait_for_ring(database: Database, services: list[Service]) -> None:
    """Every session is waited for by one watch; a single one by none."""
    wanted = {(session_of(service), False) for service in services} if len(services) > 1 else set()
    until(lambda: watches(database) == wanted, deadline_s=30, what=f"the ring {wanted}; now {watches(database)}")


@contextmanager
def slow(api: Client) -> Iterator[None]:
    """Calls take their time, so that rows are held when their process dies."""
    api.fault({"latency_s": 4})
    try:
        yield
    finally:
        api.fault()


def test_processes_form_a_ring_that_follows_who_comes_and_goes(listeners: Services, database: Database) -> None:
    first = listeners.start().wait_ready()
    wait_for_ring(database, [first])
    second, third = listeners.start().wait_ready(), listeners.start().wait_ready()
    wait_for_ring(database, [first, second, third])
    assert second.stop() == 0
    wait_for_ring(database, [first, third])
    first.kill()
    wait_for_ring(database, [third])
    until(lambda: not [c for c in database.connections() if c[1] == "order-listener watch"], what="no idle watch")
    assert third.stop() == 0


@pytest.mark.parametrize(("replicas", "victims"), [(2, [0]), (2, [1]), (4, [1, 2]), (4, [0, 3]), (4, [0, 1, 2])])
def test_the_rows_of_the_dead_are_taken_by_the_living_at_once(
    replicas: int, victims: list[int], listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    running = [listeners.start().wait_ready() for _ in range(replicas)]
    wait_for_ring(database, running)
    with slow(api):
        orders.insert(COUNT)
        held = {session_of(running[victim]) for victim in victims}
        until(
            lambda: held <= {row[0] for row in database.execute("SELECT DISTINCT claimed_by FROM orders_inbox")},
            what="rows held by each victim",
        )
        for victim in victims:
            running[victim].kill()
    orders.wait_uploaded(COUNT, deadline_s=60)
    living = [service for number, service in enumerate(running) if number not in victims]
    wait_for_ring(database, living)
    assert all(service.stop() == 0 for service in living)
