"""The session is the lease: whatever ends it, or the database under it, no order is lost and none is uploaded twice at
a time.

A process that lost its session leaves its calls before it gives back their rows, so the sandbox does not see an order
in two calls at once. What an API does with a call whose client has left is its own affair: the upload is an upsert.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Database
from queues import until_waiting, waiting
from sandbox.server import Client
from waiting import until

from e2e.proxy import Proxy, everything, the_session
from e2e.service import Orders, Service, Services, services
from listener.db.embedded import Cluster

COUNT = 300
#: Two cores, shared with others: long enough for twelve starts of a connection that nobody answers.
DEADLINE_S = 120

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def _slow_api(api: Client) -> None:
    api.fault({"latency_s": 0.1})


def test_a_terminated_session_cancels_its_handlers_and_is_replaced(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, upload_batch_size=10)
    service = listeners.start().wait_ready()
    former = []
    for round_ in range(6):
        orders.insert(COUNT // 6, prefix=f"W{round_}")
        until(lambda: api.stats()["in_flight"], what="a call under way")
        former.append(newest(service)["session"])
        assert terminate(database, "order-listener session%") == 1
        until_sessions(service, round_ + 2)
    ends(service, orders, api, database)

    assert service.events("cancelled - Active operations"), "no handler was cancelled"
    assert len(set(former)) == 6, "each session has a key of its own"
    show(service)


def test_rows_that_a_replica_takes_at_once_are_uploaded_by_it_and_settled_by_it_alone(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """The worst case: the rows are free, and somebody is told so, in the moment in which the session has ended.

    A process that gets no processor in that moment learns of it too late to leave its call before the other one's
    begins. Nobody can prevent that; so calls may overlap here, and only here.
    """
    configure(database, upload_batch_size=10)
    running = [listeners.start().wait_ready() for _ in range(3)]
    rng = random.Random(5)
    for round_ in range(15):
        orders.insert(COUNT // 15, prefix=f"W{round_}")
        until(lambda: api.stats()["in_flight"], what="a call under way")
        victims = rng.sample(running, 2)
        before = [len(sessions(service)) for service in victims]
        rescue_at_once(database, [newest(service) for service in victims])
        for service, count in zip(victims, before, strict=True):
            until_sessions(service, count + 1)
    ends(running[0], orders, api, database, may_overlap=True)
    print(f"orders in two calls at once: {api.stats()['overlaps']} of {COUNT}")  # noqa: T201
    assert any(service.events("cancelled - Active operations") for service in running)
    for service in running[1:]:
        assert service.stop() == 0


def test_terminated_pool_connections_cost_nothing_but_time(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, upload_batch_size=5, fast_polling_interval=1)
    service = listeners.start().wait_ready()
    rng = random.Random(11)
    for kill in range(30):
        orders.insert(COUNT // 30, prefix=f"W{kill}")
        goal = rng.randrange(1 + 10 * kill)
        until(lambda at=goal: orders.counts().get("Uploaded", 0) >= at, deadline_s=DEADLINE_S, what="progress")
        terminate(database, "order-listener%", but="order-listener session%", most=rng.randrange(1, 3))
    ends(service, orders, api, database)

    assert len(sessions(service)) == 1, "a pool connection is not the lease"
    assert api.stats()["batches"]["orders"] == COUNT, "a result was dropped"


def test_rows_of_a_claim_whose_reply_was_lost_are_given_back(
    orders: Orders, api: Client, database: Database, tmp_path: Path
) -> None:
    """They are held by our own session, which lives on: nobody else would free them before the operation timeout."""
    configure(database, fast_polling_interval=300)
    with Proxy(database.service_url) as proxy, services(proxy.url, api, tmp_path) as group:
        service = group.start().wait_ready()
        with database.connect(autocommit=False) as writer:
            writer.execute("LOCK TABLE orders_inbox IN SHARE MODE")
            # overdue: the claim that waits may be the look of the start, begun before this transaction, and a claim
            # takes what was due when it began
            Orders(writer).insert(COUNT, overdue_s=60)
            until(lambda: ring(database) and waiting(database, "order-listener upload claim"), what="a waiting claim")
            assert proxy.go_deaf(lambda link: not the_session(link)) >= 1
        until(lambda: orders.counts().get("Processing"), what="the claim that nobody hears of")
        ends(service, orders, api, database)
        assert len(sessions(service)) == 1


@pytest.mark.parametrize("victim", ["order-listener upload claim", "order-listener session%"])
def test_an_end_in_mid_claim_loses_no_row(
    victim: str, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, upload_batch_size=50, fast_polling_interval=300)  # nothing but the claim comes upon the lock
    service = listeners.start().wait_ready()
    with database.connect(autocommit=False) as writer:
        # held against the claim's UPDATE; our own INSERT is free of it
        writer.execute("LOCK TABLE orders_inbox IN SHARE MODE")
        Orders(writer).insert(COUNT)
        until(lambda: ring(database) and waiting(database, "order-listener upload claim"), what="a waiting claim")
        assert terminate(database, victim) == 1
    if "session" in victim:
        until_sessions(service, 2)
    ends(service, orders, api, database)
    show(service)


@pytest.mark.parametrize("victim", ["order-listener upload settle", "order-listener session%"])
def test_an_end_in_mid_settle_loses_no_row(
    victim: str, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    configure(database, upload_batch_size=50)
    service = listeners.start().wait_ready()
    orders.insert(COUNT)
    for round_ in range(3):
        with held_rows(database) as held:
            assert held
            until_waiting(database, "order-listener upload settle")
            assert terminate(database, victim) == 1
            if "session" in victim:  # shown at once, although the settle has not ended
                until(lambda: service.get("/readyz")[0] == 503, what="/readyz to tell of the loss")
                assert waiting(database, "order-listener upload settle")
        if "session" in victim:
            until_sessions(service, round_ + 2)
    ends(service, orders, api, database)
    if "session" not in victim:
        assert api.stats()["batches"]["orders"] == COUNT, "a result was dropped"


def test_a_settle_that_waits_longer_than_a_statement_may_is_written_in_the_end(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """A person's transaction that holds the rows costs patience, not the orders."""
    configure(database, upload_batch_size=5)
    service = listeners.start().wait_ready()
    orders.insert(5)
    with held_rows(database):
        until(lambda: service.events("Trouble"), deadline_s=DEADLINE_S, what="a settle that ran out of time")
    ends(service, orders, api, database, count=5)

    assert api.stats()["calls"]["POST /orders/createorders"] == {"200": 1}, "it was uploaded again"


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stopped_server_is_waited_for(
    mode: Any, own_cluster: Cluster, own_service_url: str, api: Client, tmp_path: Path
) -> None:
    database = Restarted(own_cluster)
    configure(database, upload_batch_size=10)
    orders = Orders(database)
    with services(own_service_url, api, tmp_path) as group:
        service = group.start().wait_ready()
        for outage in range(3):
            orders.insert(COUNT // 3, prefix=f"W{outage}")
            until(  # or over: on a full machine the question may come too late
                lambda n=(outage + 1) * COUNT // 3: api.stats()["in_flight"] or orders.counts() == {"Uploaded": n},
                what="a call under way",
            )
            tried = len(service.events("No database session"))
            own_cluster.stop(mode)
            until(
                lambda at=tried: len(service.events("No database session")) >= at + 3,
                deadline_s=DEADLINE_S,
                what="attempts to connect",
            )
            assert gauge(service, "listener_session_connected") == 0
            assert service.get("/livez")[0] == 200
            assert service.get("/readyz")[0] == 503
            own_cluster.start()
            until_sessions(service, outage + 2)
        ends(service, orders, api, database)
        show(service)


def test_a_start_without_a_database_waits_for_it(
    own_cluster: Cluster, own_service_url: str, api: Client, tmp_path: Path
) -> None:
    own_cluster.stop()
    with services(own_service_url, api, tmp_path) as group:
        service = group.start()
        tries = until(
            lambda: len(found := service.events("No database session")) >= 4 and found,
            deadline_s=DEADLINE_S,
            what="attempts to connect",
        )
        assert f"127.0.0.1:{own_cluster.port}" in tries[0]["reason"]
        pauses = [line["retry_in_s"] for line in tries]
        assert pauses[3] > pauses[0], f"no back-off: {pauses}"
        assert service.get("/livez")[0] == 200
        status, parts = service.get("/readyz")
        assert status == 503
        assert parts["session"]["status"] == "starting"
        assert service.process.poll() is None
        own_cluster.start()
        service.wait_ready(DEADLINE_S)
        database = Restarted(own_cluster)
        Orders(database).insert(20)
        ends(service, Orders(database), api, database, count=20)


@pytest.mark.parametrize("chosen", [the_session, everything], ids=["session", "everything"])
def test_a_half_open_connection_is_noticed_and_replaced(
    chosen: Callable[..., bool], orders: Orders, api: Client, database: Database, tmp_path: Path
) -> None:
    configure(database, upload_batch_size=10, fast_polling_interval=1)
    with Proxy(database.service_url) as proxy, services(proxy.url, api, tmp_path) as group:
        service = group.start().wait_ready()
        for round_ in range(2):
            orders.insert(COUNT // 2, prefix=f"W{round_}")
            until(lambda: api.stats()["in_flight"], what="a call under way")
            assert proxy.go_deaf(chosen) >= 1
            deaf_at = time.monotonic()
            until_sessions(service, round_ + 2)
            print(f"from deaf to a new session: {time.monotonic() - deaf_at:.1f} s")  # noqa: T201
            # the server still held the former session: it was ended, or its rows would wait for keepalives
            assert len(leases(database)) == 1
        ends(service, orders, api, database)
        show(service)


def test_a_network_that_is_gone_for_a_while_is_waited_for(
    orders: Orders, api: Client, database: Database, tmp_path: Path
) -> None:
    """New connections get no answer either; then they do."""
    configure(database, upload_batch_size=10, fast_polling_interval=1)
    with Proxy(database.service_url) as proxy, services(proxy.url, api, tmp_path) as group:
        service = group.start().wait_ready()
        orders.insert(COUNT)
        until(lambda: api.stats()["in_flight"], what="a call under way")
        proxy.go_deaf(to_new=True)
        until(
            lambda: len(service.events("No database session")) >= 2, deadline_s=DEADLINE_S, what="an attempt to connect"
        )
        assert service.get("/livez")[0] == 200
        proxy.hear_new()
        until_sessions(service, 2)
        ends(service, orders, api, database)
        show(service)


def test_connections_that_are_cut_and_refused_come_back(
    orders: Orders, api: Client, database: Database, tmp_path: Path
) -> None:
    configure(database, upload_batch_size=10)
    with Proxy(database.service_url) as proxy, services(proxy.url, api, tmp_path) as group:
        service = group.start().wait_ready()
        for round_ in range(3):
            orders.insert(COUNT // 3, prefix=f"W{round_}")
            until(lambda: api.stats()["in_flight"], what="a call under way")
            tried = len(service.events("No database session"))
            proxy.refuse()
            proxy.cut()
            until(
                lambda at=tried: len(service.events("No database session")) >= at + 2,
                deadline_s=DEADLINE_S,
                what="attempts to connect",
            )
            proxy.accept()
            until_sessions(service, round_ + 2)
        ends(service, orders, api, database)
        show(service)


class Restarted:
    """The database of a server that comes and goes: each statement has a connection of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._url = cluster.url()

    def execute(self, query: Any, params: Any = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url, autocommit=True) as conn:
            cursor = conn.execute(query, params)
            return cursor.fetchall() if cursor.description else []


def configure(database: Any, **values: object) -> None:
    for key, value in values.items():
        database.execute(
            "INSERT INTO configuration_params VALUES (%s, %s)"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = EXCLUDED.param_value",
            [key, str(value)],
        )


def ends(
    service: Service, orders: Orders, api: Client, database: Any, *, count: int = COUNT, may_overlap: bool = False
) -> None:
    """All is uploaded, once, at nobody's cost, and the service stops as if nothing had been."""
    orders.wait_uploaded(count, DEADLINE_S)
    numbers = [number for (number,) in database.execute("SELECT order_number FROM orders_inbox ORDER BY 1")]
    assert sorted(order["orderNumber"] for order in api.held().values()) == sorted(numbers)
    assert may_overlap or api.stats()["overlaps"] == 0, "an order was in two requests at once"
    attempts = database.execute("SELECT DISTINCT attempts FROM orders_inbox")
    assert attempts == [(1,)], "a lost session is no order's fault"
    assert gauge(service, "listener_session_connected") == 1
    assert service.stop() == 0
    assert "Traceback" not in service.log_text


def sessions(service: Service) -> list[dict[str, Any]]:
    return service.events("Session opened")


def newest(service: Service) -> dict[str, Any]:
    return sessions(service)[-1]


def until_sessions(service: Service, count: int) -> None:
    until(
        lambda: len(sessions(service)) >= count,
        deadline_s=DEADLINE_S,
        what=f"session {count}; the log: {service.log_text[-1500:]}",
    )


def show(service: Service) -> None:
    name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2]
    print(f"{name}: recovered after", [line["recovered_s"] for line in sessions(service)[1:]], "s")  # noqa: T201


def gauge(service: Service, name: str) -> float:
    text = service.get("/metrics")[1]
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def terminate(database: Database, application: str, *, but: str = "", most: int = 10) -> int:
    """End the backends whose name is like `application`, or that run such a statement; returns how many there were."""
    ended = database.execute(
        "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND (application_name LIKE %s OR state = 'active' AND query LIKE %s) AND NOT application_name LIKE %s"
        " ORDER BY random() LIMIT %s) AS victims",
        [application, f"/* {application} */%", but, most],
    )
    return len(ended)


def rescue_at_once(database: Database, opened: list[dict[str, Any]]) -> None:
    """End these sessions and, as soon as they are gone, free their rows and ring: no replica could be quicker."""
    pids, keys = ([line[name] for line in opened] for name in ("backend_pid", "session"))
    database.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [pids])
    until(lambda: not {key for _, key in leases(database)} & set(keys), what="the end of the leases")
    database.execute(
        "WITH freed AS (UPDATE orders_inbox SET status = 'Pending', claim_id = NULL, claimed_by = NULL,"
        " claimed_at = NULL, attempts = attempts - 1 WHERE status = 'Processing' AND claimed_by = ANY (%s) RETURNING 1)"
        " SELECT pg_notify('listener_wake', 'orders_inbox') FROM (SELECT count(*) FROM freed) AS counted",
        [keys],
    )


def leases(database: Database) -> list[tuple[Any, ...]]:
    return database.execute(
        "SELECT pid, objid::bigint FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND datname = current_database()"
        " AND classid <> 1869374562::oid"  # the doorbells'
    )


def ring(database: Database) -> bool:
    database.execute("NOTIFY listener_wake, 'orders_inbox'")
    return True


@contextmanager
def held_rows(database: Database) -> Iterator[list[tuple[Any, ...]]]:
    """Lock rows that are being worked on, so that their settle has to wait."""
    with database.connect(autocommit=False) as conn:

        def lock() -> list[tuple[Any, ...]]:
            return conn.execute(
                "SELECT id FROM orders_inbox WHERE status = 'Processing' FOR UPDATE SKIP LOCKED"
            ).fetchall()

        yield until(lock, what="rows being worked on")
