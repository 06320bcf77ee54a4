"""The end of a process: nothing lost, nothing held, nobody kept waiting."""

import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from conftest import Database
from login import Login
from queues import until_waiting
from sandbox.server import Client
from waiting import until

from e2e.proxy import Chosen, Link, Proxy, everything, the_session
from e2e.service import Orders, Service, Services, services
from listener.db.embedded import Cluster

#: Shorter than the shutdown timeout (25 s), longer than any wait of a loaded machine for a process that is ending.
PROMPT_S = 20


def rows(database: Database) -> list[tuple[Any, ...]]:
    """Status, attempts and holder of every order."""
    return database.execute("SELECT status, attempts, claimed_by FROM orders_inbox ORDER BY id")


def configure(database: Database, **values: object) -> None:
    for key, value in values.items():
        database.execute(
            "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
            [key, str(value)],
        )


def stopping(service: Service) -> list[str]:
    """What the log says of the shutdown."""
    return [line["event"] for line in service.events("Stopping:")]


def busy(listeners: Services, orders: Orders, api: Client, *, latency_s: float, **environ: str) -> Service:
    """A process with two uploads under way, each of one order, and ten more orders waiting."""
    api.fault({"latency_s": latency_s})
    service = listeners.start(**environ).wait_ready()
    orders.insert(12)
    api.until_in_flight(2)
    return service


@pytest.fixture(autouse=True)
def _one_order_a_call(request: pytest.FixtureRequest) -> None:
    if "listeners" in request.fixturenames:
        configure(request.getfixturevalue("database"), upload_batch_size=1)


def test_running_uploads_end_and_are_settled_and_no_more_is_claimed(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """The replies that were on their way count; the rest waits for the next process."""
    service = busy(listeners, orders, api, latency_s=2)
    assert service.stop() == 0
    assert stopping(service)[0] == "Stopping: waiting for running handlers"
    assert rows(database) == [("Uploaded", 1, None)] * 2 + [("Pending", 0, None)] * 10
    assert len(api.held()) == 2
    assert api.stats()["calls"] == {"POST /orders/createorders": {"200": 2}}
    assert database.connections() == [], "pool and session are closed"
    assert service.log()[-1]["event"] == "Connection pool closed"

    api.fault()
    listeners.start()
    orders.wait_uploaded(12)
    assert len(api.held()) == 12


def test_outcomes_that_wait_to_be_written_are_written_before_the_end(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """Their calls have ended, but the write of another one is held up by a person's lock."""
    service = listeners.start().wait_ready()
    api.fault({"latency_s": 1})
    orders.insert(1)
    api.until_in_flight(1)
    person = database.connect()
    with person.transaction():
        person.execute("SELECT FROM orders_inbox FOR UPDATE")
        until_waiting(database, "order-listener upload settle")
        orders.insert(1, prefix="B")
        api.until_in_flight(1)
        service.signal(signal.SIGTERM)
        until(lambda: len(service.events(" completed - Active operations:")) == 2, deadline_s=30, what="both calls")
    assert service.process.wait(PROMPT_S) == 0
    assert rows(database) == [("Uploaded", 1, None)] * 2


def test_uploads_that_do_not_end_in_time_are_cancelled_and_given_back(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """At no order's cost: the attempt is not counted."""
    service = busy(listeners, orders, api, latency_s=60, LISTENER_SHUTDOWN_TIMEOUT="0.5")
    assert service.stop(PROMPT_S) == 0
    assert stopping(service) == ["Stopping: waiting for running handlers", "Stopping: cancelling what still runs"]
    assert rows(database) == [("Pending", 0, None)] * 12
    assert len(service.events(" cancelled - Active operations:")) == 2


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(
    second: signal.Signals, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """An impatient operator presses Ctrl-C twice; the rows are given back all the same."""
    service = busy(listeners, orders, api, latency_s=60)
    service.signal(signal.SIGTERM)
    until(lambda: stopping(service), deadline_s=30, what="the first signal's effect")
    assert service.process.poll() is None, "it waits for the uploads"
    service.signal(second)
    assert service.process.wait(PROMPT_S) == 0
    assert rows(database) == [("Pending", 0, None)] * 12


def test_another_process_takes_released_rows_at_once(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """Not only at its next safety poll, which is switched to an hour here."""
    configure(database, fast_polling_interval=3600)
    leaving = listeners.start(LISTENER_SHUTDOWN_TIMEOUT="0.5").wait_ready()
    api.fault({"latency_s": 60})
    orders.insert(2)
    api.until_in_flight(2)
    staying = listeners.start().wait_ready()
    api.fault()
    assert leaving.stop(PROMPT_S) == 0
    orders.wait_uploaded(2, deadline_s=PROMPT_S)
    assert staying.stop() == 0


def test_an_idle_process_ends_at_once(listeners: Services, orders: Orders) -> None:
    service = listeners.start().wait_ready()
    assert service.stop(PROMPT_S) == 0
    assert "Traceback" not in service.log_text


def test_a_process_with_a_paused_connector_ends_at_once(
    listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """It sleeps until the next probe, and does not make it first."""
    api.fault({"status": 503, "retry_after": 600})
    service = listeners.start().wait_ready()
    orders.insert(3)
    until(lambda: service.events("Connector paused"), deadline_s=30, what="the pause")
    until(lambda: orders.counts() == {"Pending": 3}, deadline_s=30, what="the rows given back")
    assert service.stop(PROMPT_S) == 0
    assert rows(database) == [("Pending", 0, None)] * 3


def test_a_process_whose_database_is_down_ends_at_once(
    own_cluster: Cluster, own_service_url: str, api: Client, tmp_path: Path
) -> None:
    with services(own_service_url, api, tmp_path) as group:
        service = group.start().wait_ready()
        own_cluster.stop("immediate")
        until(lambda: service.events("No database session"), deadline_s=30, what="the lost session")
        assert service.stop(PROMPT_S) == 0
        assert "Traceback" not in service.log_text


def test_a_process_that_loses_its_database_while_it_stops_still_ends(
    own_cluster: Cluster, own_service_url: str, api: Client, tmp_path: Path
) -> None:
    """The results cannot be written; the rows are free with the session, and the next process takes them."""
    with services(own_service_url, api, tmp_path) as group:
        database = Database(FakeServer(own_cluster), "postgres")
        api.fault({"latency_s": 60})
        service = group.start().wait_ready()
        Orders(database).insert(2)
        api.until_in_flight(1)
        service.signal(signal.SIGTERM)
        until(lambda: stopping(service), deadline_s=30, what="the signal's effect")
        own_cluster.stop("immediate")
        assert service.process.wait(PROMPT_S) == 0
        assert "Traceback" not in service.log_text
        database.close()
        own_cluster.start()
        api.fault()
        group.start()
        Orders(database).wait_uploaded(2)
        database.close()


class FakeServer:
    """What `Database` asks of a server, over a cluster of the test's own."""

    def __init__(self, cluster: Cluster) -> None:
        self.url = cluster.url
        self.login = Login()


def test_a_process_that_still_connects_ends_at_once(listeners: Services) -> None:
    """The server took the connection and says nothing: a connection attempt may take ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        service = listeners.start(DATABASE_URL=f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/shop")
        silent.settimeout(60)
        peer, _ = silent.accept()
        until(lambda: service.events("HTTP interface"), deadline_s=60, what="the service, which obeys signals by then")
        with peer:
            assert service.stop(PROMPT_S) == 0
        assert "Traceback" not in service.log_text


def test_requests_under_way_do_not_hold_up_the_end(listeners: Services) -> None:
    """Open connections, idle or half a request, are closed."""
    service = listeners.start().wait_ready()
    host, port = service.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as idle, socket.create_connection((host, int(port))) as half:
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        half.sendall(b"GET /livez HTTP/1.1\r\nHost:")
        assert service.stop(PROMPT_S) == 0
    assert "Traceback" not in service.log_text


def the_pool(link: Link) -> bool:
    """Choose what is not the session."""
    return not the_session(link)


@pytest.mark.parametrize("chosen", [everything, the_pool], ids=["database", "pool"])
def test_a_process_whose_database_answers_no_more_while_it_releases_still_ends(
    chosen: Chosen, orders: Orders, api: Client, database: Database, tmp_path: Path
) -> None:
    """Its rows cannot be given back and nobody can be told: the next process finds them."""
    configure(database, upload_batch_size=1)
    with Proxy(database.service_url) as proxy, services(proxy.url, api, tmp_path) as group:
        service = busy(group, orders, api, latency_s=60)
        service.signal(signal.SIGTERM)
        until(lambda: stopping(service), deadline_s=30, what="the first signal's effect")
        assert proxy.go_deaf(chosen, to_new=True)
        service.signal(signal.SIGTERM)
        assert service.process.wait(PROMPT_S) == 0
        assert "Traceback" not in service.log_text


@pytest.mark.parametrize(
    ("setting", "limit", "reason"),
    [
        ("LISTENER_RECYCLE_AFTER", "3", "operations (LISTENER_RECYCLE_AFTER)"),
        ("LISTENER_RECYCLE_MEMORY", "1", "1 allowed (LISTENER_RECYCLE_MEMORY)"),
    ],
)
def test_a_recycled_process_ends_in_order_and_the_next_one_goes_on(
    setting: str, limit: str, reason: str, listeners: Services, orders: Orders, api: Client, database: Database
) -> None:
    """Some orders each; the rest is free, and nothing is uploaded twice."""
    api.fault({"latency_s": 0.05})
    orders.insert(40)
    for turn in range(3):
        service = listeners.start(**{setting: limit})
        assert service.process.wait(PROMPT_S) == 0
        assert [reason in line["event"] for line in service.events("Recycling:")] == [True]
        assert turn < orders.counts()["Uploaded"] < 40
        assert not database.execute("SELECT id FROM orders_inbox WHERE status = 'Processing'")
    listeners.start().wait_ready()
    orders.wait_uploaded(40)
    assert database.execute("SELECT max(attempts) FROM orders_inbox") == [(1,)]
    assert len(api.held()) == 40
    assert api.stats()["overlaps"] == 0
