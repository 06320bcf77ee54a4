"""Every event moves its metric; no series is missing, none shows what is not known."""

from typing import Any

import pytest
from e2e.exposition import PROMISED, Exposition

from listener.core import events as e
from listener.core.job import Job
from listener.obs.metrics import Metrics

QUEUE = {"queue": "upload"}
ACCOUNT = {"connector": "shipstation", "account": "default"}
BUDGET = {**ACCOUNT, "remaining": 12, "is_paused": True}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["upload"])


def read(metrics: Metrics) -> Exposition:
    return Exposition(metrics.render().decode())


def called(status: str) -> e.ApiCalled:
    return e.ApiCalled(**ACCOUNT, method="POST", path="/orders", status=status, duration_s=0.2)


def job(due_for_s: float) -> Job:
    return Job(queue="upload", id=1, claim_id=1, attempt=1, revision=0, due_for_s=due_for_s, row={})


def started(**changes: Any) -> e.OperationStarted:
    return e.OperationStarted(
        **{"queue": "upload", "operation": "upload-1", "active": 1, "jobs": [job(0.004), job(2.0)], **changes}
    )


def ended(result: str) -> e.OperationEnded:
    return e.OperationEnded(queue="upload", operation="upload-1", active=0, result=result, duration_s=0.3)


def test_every_promised_metric_is_exported(metrics: Metrics) -> None:
    """With type and help, even before anything happened."""
    families = read(metrics).families
    assert {name: families[name].type for name in PROMISED} == {name: kind for name, (kind, _) in PROMISED.items()}
    assert not [name for name in PROMISED if len(families[name].documentation) <= 10]


def test_a_quiet_queue_shows_zeros(metrics: Metrics) -> None:
    """An absent series and a quiet one must not look the same to an alert."""
    now = read(metrics)
    for name in ("jobs_claimed_total", "claims_lost_total", "jobs_rescued_total", "active_operations"):
        assert now.value(f"listener_{name}", **QUEUE) == 0
    for name in ("pickup", "handler", "claim"):
        assert now.value(f"listener_{name}_seconds_count", **QUEUE) == 0
    assert now.by("action", "listener_checks_total") == {"process": 0, "skip": 0}
    assert now.by("outcome", "listener_jobs_settled_total").keys() == {"complete", "retry", "snooze", "fail", "release"}


def test_checks_count_what_they_claimed(metrics: Metrics) -> None:
    for claimed in (5, 0, 2):
        metrics.on_event(e.Checked(queue="upload", claimed=claimed, waiting=claimed, duration_s=0.002))
    now = read(metrics)
    assert now.by("action", "listener_checks_total") == {"process": 2, "skip": 1}
    assert now.value("listener_jobs_claimed_total", **QUEUE) == 7
    assert now.value("listener_claim_seconds_count", **QUEUE) == 3
    assert now.value("listener_claim_seconds_sum", **QUEUE) == pytest.approx(0.006)


def test_wakes_are_counted_by_reason(metrics: Metrics) -> None:
    for reason in ("notify", "notify", "poll"):
        metrics.on_event(e.Woke(queue="upload", reason=reason))
    assert read(metrics).by("reason", "listener_wakes_total") == {"notify": 2, "poll": 1}


@pytest.mark.parametrize("result", ["completed", "released", "failed", "timeout", "cancelled"])
def test_active_operations_return_to_zero_however_they_end(metrics: Metrics, result: str) -> None:
    metrics.on_event(started())
    now = read(metrics)
    assert now.value("listener_active_operations", **QUEUE) == 1
    assert now.value("listener_pickup_seconds_count", **QUEUE) == 2
    assert now.value("listener_pickup_seconds_sum", **QUEUE) == pytest.approx(2.004)
    metrics.on_event(ended(result))
    now = read(metrics)
    assert now.value("listener_active_operations", **QUEUE) == 0
    assert now.value("listener_handler_seconds_sum", **QUEUE) == pytest.approx(0.3)


def test_outcomes_lost_claims_and_rescues_are_counted(metrics: Metrics) -> None:
    metrics.on_event(e.Settled(queue="upload", outcomes={"complete": 4, "retry": 1}, lost=2, duration_s=0.01))
    metrics.on_event(e.Rescued(queue="upload", count=3))
    now = read(metrics)
    outcomes = now.by("outcome", "listener_jobs_settled_total")
    assert (outcomes["complete"], outcomes["retry"], outcomes["fail"]) == (4, 1, 0)
    assert now.value("listener_claims_lost_total", **QUEUE) == 2
    assert now.value("listener_jobs_rescued_total", **QUEUE) == 3


def test_calls_are_counted_by_status_or_kind_of_failure(metrics: Metrics) -> None:
    for status in ("200", "200", "429", "timeout"):
        metrics.on_event(called(status))
    now = read(metrics)
    assert now.by("status", "listener_api_requests_total") == {"200": 2, "429": 1, "timeout": 1}
    assert now.value("listener_api_requests_total", **ACCOUNT, status="200") == 2
    assert now.value("listener_api_request_seconds_count", connector="shipstation") == 4


def test_session_and_configuration_follow_their_events(metrics: Metrics) -> None:
    assert read(metrics).value("listener_session_connected") == 0
    metrics.on_event(e.SessionOpened(key=1, backend_pid=2, recovered_s=None))
    metrics.on_event(e.ConfigLoaded(version=3, invalid={"max_attempts": "no number"}))
    now = read(metrics)
    assert now.value("listener_session_connected") == 1
    assert now.value("listener_config_version") == 3
    assert now.value("listener_config_invalid") == 1
    metrics.on_event(e.SessionClosed(reason="gone", retry_s=1.0))
    assert read(metrics).value("listener_session_connected") == 0


def test_figures_of_the_database_vanish_when_it_does_not_answer(metrics: Metrics) -> None:
    """An old figure would be a lie; a missing one raises the alert for absent series."""
    metrics.show_depth("upload", pending=4, failed=1, oldest_pending_s=2.5)
    metrics.show_budget(BUDGET)
    now = read(metrics)
    assert now.value("listener_queue_pending", **QUEUE) == 4
    assert now.value("listener_queue_failed", **QUEUE) == 1
    assert now.value("listener_queue_oldest_pending_seconds", **QUEUE) == 2.5
    assert now.value("listener_api_budget_remaining", **ACCOUNT) == 12
    assert now.value("listener_connector_paused", **ACCOUNT) == 1
    metrics.forget_depths()
    now = read(metrics)
    for name in ("queue_pending", "queue_failed", "queue_oldest_pending_seconds"):
        assert now.value(f"listener_{name}", **QUEUE) is None
    for name in ("api_budget_remaining", "connector_paused"):
        assert now.value(f"listener_{name}", **ACCOUNT) is None


def test_pool_gauges_are_the_pools_own_figures(metrics: Metrics) -> None:
    metrics.show_pool({"pool_size": 3, "pool_available": 1, "pool_max": 4, "requests_waiting": 2})
    now = read(metrics)
    assert now.value("listener_pool_connections") == 3
    assert now.value("listener_pool_connections_idle") == 1
    assert now.value("listener_pool_connections_max") == 4
    assert now.value("listener_pool_requests_waiting") == 2


def test_errors_of_the_pool_are_counted_once(metrics: Metrics) -> None:
    """The pool tells their sum at each scrape; a pool that never failed does not name it."""
    for stats, expected in (
        ({}, 0),
        ({"connections_errors": 2}, 2),
        ({"connections_errors": 2}, 2),
        ({"connections_errors": 5}, 5),
    ):
        metrics.show_pool(stats)
        assert read(metrics).value("listener_pool_connection_errors_total") == expected


def test_two_processes_in_one_interpreter_share_nothing() -> None:
    """The registry is the process object's own, not the library's global one."""
    first, second = Metrics(["upload"]), Metrics(["upload"])
    first.on_event(e.Rescued(queue="upload", count=1))
    assert read(second).value("listener_jobs_rescued_total", **QUEUE) == 0


def test_troubles_and_connections_are_shown(metrics: Metrics) -> None:
    """While the database is away the number of connections is no figure, rather than an old one."""
    for _ in range(2):
        metrics.on_event(e.Trouble(where="upload claim", error="deadlock detected"))
    metrics.show_connections(7)
    assert read(metrics).value("listener_troubles_total", where="upload claim") == 2
    assert read(metrics).value("listener_database_connections") == 7
    metrics.forget_depths()
    now = read(metrics).value("listener_database_connections")
    assert now is not None
    assert now != now  # NaN
