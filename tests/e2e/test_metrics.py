"""What Prometheus reads from a running service, against what really happened."""

from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from waiting import until

from e2e.exposition import PROMISED, Exposition
from e2e.service import PAYLOAD, Service
from e2e.world import World, world

ACCOUNT = {"connector": "shipstation", "account": "…-key"}
CALLS_PER_WINDOW = 40


@pytest.fixture(scope="module")
def uploads(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which 7 orders were uploaded, one was refused by us and one by ShipStation."""
    with world(server, template, tmp_path_factory.mktemp("metrics")) as everything:
        everything.configure(fast_polling_interval=1)
        everything.api.fault({"order_error": {"bad-1": "No such country"}})
        everything.start(SHIPSTATION_RATE_LIMIT=str(CALLS_PER_WINDOW), SHIPSTATION_RATE_WINDOW="3600")
        looks = everything.listeners.all[0]
        until(
            lambda: scrape(looks).by("action", "listener_checks_total")["skip"], deadline_s=60, what="the look at start"
        )
        everything.orders.insert(7)
        everything.orders.insert(1, prefix="bad")
        everything.orders.insert(1, prefix="worse", payload={**PAYLOAD, "items": []})
        until(
            lambda: everything.orders.counts() == {"Uploaded": 7, "Failed": 2}, deadline_s=60, what="9 settled orders"
        )
        yield everything


@pytest.fixture
def service(uploads: World) -> Service:
    return uploads.listeners.all[0]


def scrape(service: Service) -> Exposition:
    status, text = service.get("/metrics")
    assert status == 200
    return Exposition(text)


def settled(service: Service) -> Exposition:
    """A scrape after the last row was settled and counted; a row is written a moment before it is counted."""

    def all_counted() -> Exposition | None:
        now = scrape(service)
        done = sum(now.by("outcome", "listener_jobs_settled_total").values())
        return now if done == 9 and not now.value("listener_active_operations", queue="upload") else None

    return until(all_counted, deadline_s=30, what="nine counted outcomes")


def test_every_promised_metric_is_there_with_type_help_and_labels(service: Service) -> None:
    """Dashboards and alerts are written against these names."""
    now = settled(service)
    for name, (kind, labels) in PROMISED.items():
        family = now.families[name]
        assert family.type == kind, name
        assert len(family.documentation) > 10, f"{name} says nothing about itself"
        series = [found for found in now.labels(name) if found != labels]
        assert not series, f"{name} has the labels {series}, not {labels}"


def test_nothing_is_exported_that_nobody_was_promised(service: Service) -> None:
    """A metric of ours that is in no list is in no documentation either."""
    names = {name for name in scrape(service).families if not name.startswith(("process_", "python_"))}
    assert names == PROMISED.keys()


def test_durations_are_seconds_and_counters_are_totals(service: Service) -> None:
    for name, family in scrape(service).families.items():
        if family.type == "histogram":
            assert name.endswith("_seconds")
        assert (family.type == "counter") == name.endswith("_total"), f"{name} is a {family.type}"
        assert not name.endswith(("_ms", "_milliseconds", "_percent"))


def test_scrape_says_which_format_it_is(service: Service) -> None:
    """Prometheus 3 refuses a reply without a known content type."""
    with urlopen(f"{service.address}/metrics", timeout=15) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")


def test_jobs_are_counted_once_each(service: Service) -> None:
    """Claimed = settled = rows; pickup is observed for each of them, the handler once a call."""
    now = settled(service)
    assert now.value("listener_jobs_claimed_total", queue="upload") == 9
    outcomes = now.by("outcome", "listener_jobs_settled_total")
    assert outcomes == {"complete": 7, "fail": 2, "retry": 0, "snooze": 0, "release": 0}
    assert now.value("listener_pickup_seconds_count", queue="upload") == 9
    operations = [line for line in service.events("Operation upload-") if " started " in line["event"]]
    assert now.value("listener_handler_seconds_count", queue="upload") == len(operations)
    assert now.value("listener_claims_lost_total", queue="upload") == 0
    assert now.value("listener_jobs_rescued_total", queue="upload") == 0


def test_checks_and_claims_agree(service: Service) -> None:
    """Each look is one claim statement; it processed something or it skipped."""
    now = settled(service)
    checks = now.by("action", "listener_checks_total")
    assert checks.keys() == {"process", "skip"}
    assert 1 <= checks["process"] <= 3
    assert checks["skip"] >= 1, "the look at start found nothing"
    assert now.value("listener_claim_seconds_count", queue="upload") == sum(checks.values())


def test_wakes_name_their_reasons(service: Service) -> None:
    """An operator sees whether work arrives by notification or only by the safety poll."""
    until(lambda: scrape(service).by("reason", "listener_wakes_total").get("poll"), deadline_s=30, what="a safety poll")
    wakes = scrape(service).by("reason", "listener_wakes_total")
    assert wakes["start"] == 1
    assert wakes.get("notify", 0) <= 3, "none while it is looking anyway"
    assert wakes["armed"] >= 1, "once more after the bell was turned on"
    known = {"start", "armed", "notify", "call", "poll", "due", "slot", "gate", "reopened", "config", "peer", "stop"}
    assert wakes.keys() <= known


def test_api_calls_are_those_that_the_api_received(service: Service, uploads: World) -> None:
    now = settled(service)
    received = uploads.api.stats()["calls"]["POST /orders/createorders"]
    assert now.by("status", "listener_api_requests_total") == received
    calls = sum(received.values())
    assert now.value("listener_api_request_seconds_count", connector="shipstation") == calls
    assert now.value("listener_api_budget_remaining", **ACCOUNT) == CALLS_PER_WINDOW - calls
    assert now.value("listener_connector_paused", **ACCOUNT) == 0


def test_gauges_show_the_state_of_now(service: Service) -> None:
    now = settled(service)
    assert now.value("listener_queue_pending", queue="upload") == 0
    assert now.value("listener_queue_failed", queue="upload") == 2
    assert now.value("listener_queue_oldest_pending_seconds", queue="upload") == 0
    assert now.value("listener_session_connected") == 1
    assert now.value("listener_config_version") >= 1
    assert now.value("listener_config_invalid") == 0


def test_pool_gauges_show_the_pool(service: Service) -> None:
    """The defaults: one connection kept, four at most."""
    now = settled(service)
    assert now.value("listener_pool_connections_max") == 4
    assert 1 <= now.value("listener_pool_connections") <= 4
    assert 0 <= now.value("listener_pool_connections_idle") <= now.value("listener_pool_connections")
    assert now.value("listener_pool_requests_waiting") == 0


def test_connections_are_those_that_the_server_counts(service: Service, uploads: World) -> None:
    """Session and pool; the tests' own connections and the scrape's database are not confused with them."""
    names = [name for _, name, *_ in uploads.database.connections()]
    assert all(name.startswith("order-listener ") for name in names)
    assert scrape(service).value("listener_database_connections") == len(names) >= 2


def test_rows_that_wait_are_seen_waiting(service: Service, uploads: World) -> None:
    """With the queue switched off its depth and age grow; the switch works without a restart."""
    uploads.smuggle("max_attempts", "many")
    uploads.configure(upload_enabled=False)
    until(lambda: scrape(service).value("listener_config_invalid") == 1, deadline_s=30, what="the new configuration")
    uploads.orders.insert(3, prefix="waiting")
    now = scrape(service)
    assert now.value("listener_queue_enabled", queue="upload") == 0
    assert now.value("listener_queue_pending", queue="upload") == 3
    assert now.value("listener_queue_oldest_pending_seconds", queue="upload") > 0
    uploads.database.execute("DELETE FROM configuration_params WHERE param_key IN ('upload_enabled', 'max_attempts')")
    until(
        lambda: scrape(service).value("listener_queue_pending", queue="upload") == 0,
        deadline_s=30,
        what="the three uploads",
    )


def test_a_locked_table_keeps_no_scrape_waiting(service: Service, uploads: World) -> None:
    """Prometheus would give up on it, and call the process dead."""
    holder = uploads.database.connect(autocommit=False)
    holder.execute("LOCK TABLE orders_inbox IN ACCESS EXCLUSIVE MODE")
    now = scrape(service)
    [(waiting,)] = uploads.database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%upload depth%' AND wait_event_type = 'Lock'"
    )
    assert waiting, "the answer came after its statement"
    assert now.value("listener_session_connected") == 1
    assert now.value("listener_queue_pending", queue="upload") is None
    holder.rollback()
    until(
        lambda: scrape(service).value("listener_queue_pending", queue="upload") == 0,
        deadline_s=60,
        what="figures again",
    )
