"""Switches and limits changed while orders are on their way: in force at once, for calls that run already too, and
never at the price of an order."""

import random
from typing import Any

import pytest
from waiting import until

from e2e.service import Service
from e2e.world import World

#: No safety poll comes to the help of a change that nobody noticed.
LONG_S = 300
DEADLINE_S = 60
#: ShipStation does not answer as long as a test lasts.
SILENCE: dict[str, Any] = {"hang_s": 600, "effect": False}
FLIPS = 50
ORDERS_PER_FLIP = 10


@pytest.fixture(autouse=True)
def _no_safety_polls(town: World) -> None:
    town.configure(fast_polling_interval=LONG_S)


def test_flips_lose_nothing_and_upload_nothing_twice(town: World) -> None:
    """Every order is inserted between two flips; whatever was switched off in that moment finds it later."""
    town.configure(upload_batch_size=5)
    running = [town.start() for _ in range(2)]
    town.api.fault({"latency_s": 0.02})
    rng = random.Random(13)
    state = {"fast_polling_enabled": True, "upload_enabled": True}
    for flip in range(FLIPS):
        key = rng.choice([*state, "upload_concurrency"])
        if key in state:
            state[key] = not state[key]
        town.configure(**{key: state.get(key, rng.choice([1, 2, 5]))})
        town.orders.insert(ORDERS_PER_FLIP, prefix=f"F{flip}")
    town.configure(upload_enabled=False)
    town.until_heard()
    town.orders.insert(ORDERS_PER_FLIP, prefix="last")
    town.until_heard()
    town.configure(fast_polling_enabled=True, upload_enabled=True)

    town.orders.wait_uploaded((FLIPS + 1) * ORDERS_PER_FLIP, DEADLINE_S)

    held = town.api.held()
    assert len(held) == (FLIPS + 1) * ORDERS_PER_FLIP
    assert {each["writes"] for each in held.values()} == {1}
    assert town.api.stats()["overlaps"] == 0
    assert town.database.execute("SELECT DISTINCT attempts FROM orders_inbox") == [(1,)], "a change cut a call off"
    assert [service.stop() for service in running] == [0, 0]


def test_a_workflow_that_is_off_ends_its_call_and_claims_nothing(town: World) -> None:
    town.configure(log_level="debug")
    service = town.start()
    town.api.fault({"latency_s": 3})
    town.orders.insert(1, prefix="running")
    town.api.until_in_flight(1)

    town.configure(upload_enabled=False)
    town.until_heard(service)
    town.orders.insert(5, prefix="waiting")
    town.until_heard(service)

    assert service.metric("listener_queue_enabled", queue="upload") == 0
    until(lambda: town.orders.counts() == {"Uploaded": 1, "Pending": 5}, deadline_s=DEADLINE_S, what="the call's end")
    assert service.metric("listener_jobs_claimed_total", queue="upload") == 1
    off, end = (position(service, text) for text in ("enabled=False", "completed - Active operations: 0"))
    assert off < end, "the call was to be running when the workflow was switched off"
    assert service.events("Workflow disabled - sleeping 60s")

    town.api.fault()
    town.configure(upload_enabled=True)

    town.orders.wait_uploaded(6, deadline_s=30)
    assert not service.metric("listener_wakes_total", queue="upload", reason="poll")


def test_batch_size_changes_within_a_backlog(town: World) -> None:
    town.configure(upload_batch_size=10, upload_concurrency=1)
    town.start()
    town.api.fault({"latency_s": 0.2})
    town.orders.insert(60)
    until(lambda: town.api.stats()["batches"]["count"], what="the first batch")
    town.configure(upload_batch_size=4)
    town.orders.wait_uploaded(60, DEADLINE_S)

    sizes = town.api.stats()["batches"]["sizes"]
    assert sizes == sorted(sizes, reverse=True), "once smaller, always smaller"
    assert sizes[0] == 10
    assert {10, 4} <= set(sizes) <= {10, 4, 60 % 4, (60 - sizes.count(10) * 10) % 4}

    town.configure(upload_batch_size=100)
    town.until_heard()
    town.orders.insert(50, prefix="large")
    town.orders.wait_uploaded(110, DEADLINE_S)
    assert town.api.stats()["batches"]["sizes"][-1] == 50


@pytest.mark.parametrize("key", ["upload_concurrency", "max_concurrent_operations"])
def test_a_raised_limit_does_not_wait_for_the_calls_that_run(key: str, town: World) -> None:
    town.configure(**{"upload_batch_size": 1, "upload_concurrency": 20, key: 1})
    town.start()
    town.api.fault(SILENCE)
    town.orders.insert(10)
    town.api.until_in_flight(1)
    for limit in (2, 5):
        town.configure(**{key: limit})
        town.api.until_in_flight(limit)


@pytest.mark.parametrize("key", ["upload_concurrency", "max_concurrent_operations"])
def test_a_lowered_limit_lets_calls_end_and_starts_no_more(key: str, town: World) -> None:
    town.configure(**{"upload_batch_size": 1, "upload_concurrency": 20, key: 6})
    service = town.start()
    town.api.fault({"latency_s": 0.2})
    town.orders.insert(60)
    town.api.until_in_flight(6)
    town.configure(**{key: 2})
    town.until_heard(service)
    town.api.until_in_flight(2)
    town.api.control("POST", "reset")  # the most at once, from now on
    town.api.fault({"latency_s": 0.2})
    town.orders.insert(20, prefix="later")
    town.orders.wait_uploaded(80, DEADLINE_S)
    assert town.api.stats()["max_concurrent"] == 2
    assert not service.events("cancelled")


def test_max_attempts_decides_at_the_next_failure(town: World) -> None:
    town.configure(max_attempts=100)
    service = town.start()
    town.api.fault({"order_error": {"A-1": "Execution Timeout Expired. The timeout period elapsed."}})
    town.orders.insert(1)
    until(lambda: service.events("Job will be retried"), deadline_s=DEADLINE_S, what="the first failure")

    town.configure(max_attempts=1)
    until(lambda: town.orders.counts() == {"Failed": 1}, deadline_s=DEADLINE_S, what="the last failure")

    known = len(service.events("Job will be retried"))
    town.configure(max_attempts=100)
    town.until_heard(service)
    town.database.execute("UPDATE orders_inbox SET status = 'Pending'")
    until(lambda: len(service.events("Job will be retried")) > known, deadline_s=DEADLINE_S, what="one more try")


def test_a_lowered_timeout_ends_a_call_that_hangs(town: World) -> None:
    service = town.start(SHIPSTATION_TIMEOUT="600")
    town.api.fault(SILENCE)
    town.orders.insert(1)
    town.api.until_in_flight(1)
    town.configure(operation_timeout=1)
    until(lambda: service.events("timeout - Active operations"), deadline_s=DEADLINE_S, what="the end of the call")
    town.api.fault()
    town.orders.wait_uploaded(1, DEADLINE_S)


def test_a_raised_timeout_lets_a_call_end_that_runs_already(town: World) -> None:
    """Nobody cancels it, and no replica takes its rows: both would have happened long before its end."""
    town.configure(operation_timeout=3, fast_polling_interval=1)
    running = [town.start() for _ in range(2)]
    town.api.fault({"latency_s": 8})
    town.orders.insert(5)
    town.api.until_in_flight(1)
    town.configure(operation_timeout=LONG_S)
    town.orders.wait_uploaded(5, DEADLINE_S)

    assert town.database.execute("SELECT DISTINCT attempts FROM orders_inbox") == [(1,)]
    assert {each["writes"] for each in town.api.held().values()} == {1}
    for service in running:
        assert not service.events("timeout - Active operations")
        assert not service.events("Connector paused")
        assert not service.events("Rescued")
        assert not service.events("Claim lost")


def position(service: Service, text: str) -> int:
    """Which line of the log it is."""
    return next(number for number, line in enumerate(service.log()) if text in line["event"])
