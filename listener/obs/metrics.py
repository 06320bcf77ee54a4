"""Prometheus metrics. Names and labels are fixed; units are in the names."""

import math
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from listener.core import events as e
from listener.obs.timings import SECONDS, Timings

M = TypeVar("M", Counter, Gauge, Histogram)

OUTCOMES = ("complete", "retry", "snooze", "fail", "release")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# A `_created` time beside every counter and histogram: twice the families, and no question that it answers.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One process's metrics in a registry of their own."""

    def __init__(self, queues: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self._running: Counts[str] = Counts()
        self._children: dict[tuple[object, tuple[str, ...]], Any] = {}
        ProcessCollector(registry=self.registry)
        self._make_queue_metrics(self.registry)
        self._make_api_metrics(self.registry)
        self._make_process_metrics(self.registry)
        for queue in queues:
            self._show_queue(queue)

    def _make_queue_metrics(self, r: CollectorRegistry) -> None:
        q = ["queue"]
        self._wakes = Counter("listener_wakes", "Times a dispatcher woke, by reason", [*q, "reason"], registry=r)
        self._bell = Counter(
            "listener_bell", "Rings heard, by who rang: writer or listener", [*q, "rung_by"], registry=r
        )
        self._arming = Counter(
            "listener_bell_arming_seconds", "Seconds from an empty look to the doorbell being on", q, registry=r
        )
        self._unannounced = Counter(
            "listener_unannounced_rows", "Rows that a safety poll found though no bell had told of them", q, registry=r
        )
        self._checks = Counter(
            "listener_checks", "Looks at a queue: process = rows were claimed, skip = none", [*q, "action"], registry=r
        )
        self._claimed = Counter("listener_jobs_claimed", "Rows claimed", q, registry=r)
        self._settled = Counter("listener_jobs_settled", "Outcomes written", [*q, "outcome"], registry=r)
        self._lost = Counter("listener_claims_lost", "Results dropped because the claim was gone", q, registry=r)
        self._rescued = Counter(
            "listener_jobs_rescued", "Rows given back whose session was gone or whose time ran out", q, registry=r
        )
        self._pickup = Timings(
            "listener_pickup_seconds", "Seconds from a row becoming due to its handler's start", registry=r
        )
        self._handler = Timings("listener_handler_seconds", "Seconds of one handler call", registry=r)
        self._claim = Timings("listener_claim_seconds", "Seconds of one claim statement", registry=r)
        self._pending = Gauge("listener_queue_pending", "Rows waiting (status Pending, due or not)", q, registry=r)
        self._oldest = Gauge(
            "listener_queue_oldest_pending_seconds", "Seconds the oldest due row has been waiting", q, registry=r
        )
        self._failed = Gauge("listener_queue_failed", "Rows that failed for good (status Failed)", q, registry=r)
        self._fast = Gauge(
            "listener_fast_polling_enabled", "1 while the queue follows notifications, 0 = rolled back", q, registry=r
        )
        self._interval = Gauge("listener_poll_interval_seconds", "Seconds between two safety polls", q, registry=r)
        self._enabled = Gauge("listener_queue_enabled", "1 while the queue may claim", q, registry=r)
        self._active = Gauge("listener_active_operations", "Handler calls running in this process", q, registry=r)

    def _make_api_metrics(self, r: CollectorRegistry) -> None:
        api = ["connector", "account"]
        self._requests = Counter(
            "listener_api_requests",
            "Calls to an outside API, by HTTP status or the transport's failure",
            [*api, "status"],
            registry=r,
        )
        self._request_s = Histogram(
            "listener_api_request_seconds",
            "Seconds of one call to an outside API",
            ["connector"],
            buckets=SECONDS,
            registry=r,
        )
        self._remaining = Gauge(
            "listener_api_budget_remaining",
            "Calls that may still be made in this rate window, by all replicas",
            api,
            registry=r,
        )
        self._paused = Gauge(
            "listener_connector_paused", "1 while the account is paused for all replicas", api, registry=r
        )

    def _make_process_metrics(self, r: CollectorRegistry) -> None:
        self._version = Gauge(
            "listener_config_version",
            "Number of the newest configuration change in force here; equal in all replicas",
            registry=r,
        )
        self._invalid = Gauge(
            "listener_config_invalid",
            "Configuration rows whose value is not in force because it does not parse",
            registry=r,
        )
        self._connected = Gauge(
            "listener_session_connected", "1 while the process holds its session, the lease of its rows", registry=r
        )
        self._troubles = Counter(
            "listener_troubles", "What failed and was survived, by what was being done", ["where"], registry=r
        )
        self._connections = Gauge(
            "listener_database_connections", "Connections to the database, of all replicas together", registry=r
        )
        self._pool: dict[str, Gauge] = {
            name: Gauge(f"listener_pool_{name}", text, registry=r)
            for name, text in {
                "connections": "Connections in the pool",
                "connections_idle": "Connections in the pool that nobody uses",
                "connections_max": "Most connections the pool may open",
                "requests_waiting": "Callers waiting for a connection",
            }.items()
        }
        self._pool_errors = Counter(
            "listener_pool_connection_errors", "Failed attempts to connect since the process started", registry=r
        )
        self._pool_errors_seen = 0

    def _show_queue(self, queue: str) -> None:
        """Make the series exist at 0: an absent series and a quiet one must not look the same."""
        for counter in (self._claimed, self._lost, self._rescued, self._arming, self._unannounced):
            counter.labels(queue)
        for ringer in ("writer", "listener"):
            self._bell.labels(queue, ringer)
        for outcome in OUTCOMES:
            self._settled.labels(queue, outcome)
        for action in ("process", "skip"):
            self._checks.labels(queue, action)
        for timings in (self._pickup, self._handler, self._claim):
            timings.show(queue)
        self._running[queue] = 0

    def _child(self, metric: M, *labels: str) -> M:
        """The series of a family; the family's own way to it costs 10 µs, and an event may need three."""
        child = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return cast("M", child)

    def on_event(self, event: e.Event) -> None:
        """Count an event; never raises."""
        match event:
            case e.OperationStarted(queue=queue, jobs=jobs):  # the first two: up to thousands a second
                self._running[queue] += 1
                for job in jobs:
                    self._pickup.observe(queue, job.due_for_s)
            case e.OperationEnded(queue=queue, duration_s=duration_s):
                self._running[queue] -= 1
                self._handler.observe(queue, duration_s)
            case e.Woke(queue=queue, reason=reason):
                self._child(self._wakes, queue, reason).inc()
            case e.Rung(queue=queue, by=by):
                self._child(self._bell, queue, by).inc()
            case e.BellArmed(queue=queue, duration_s=duration_s):
                self._child(self._arming, queue).inc(duration_s)
            case e.Unannounced(queue=queue, count=count):
                self._child(self._unannounced, queue).inc(count)
            case e.Checked(queue=queue, claimed=claimed, duration_s=duration_s):
                self._child(self._checks, queue, "process" if claimed else "skip").inc()
                self._child(self._claimed, queue).inc(claimed)
                self._claim.observe(queue, duration_s)
            case e.Settled(queue=queue, outcomes=outcomes, lost=lost):
                for outcome, count in outcomes.items():
                    self._child(self._settled, queue, outcome).inc(count)
                self._child(self._lost, queue).inc(lost)
            case e.Rescued(queue=queue, count=count):
                self._child(self._rescued, queue).inc(count)
            case e.ApiCalled(connector=connector, account=account, status=status, duration_s=duration_s):
                self._child(self._requests, connector, account, status).inc()
                self._child(self._request_s, connector).observe(duration_s)
            case e.ConfigLoaded(version=version, invalid=invalid):
                self._version.set(version)
                self._invalid.set(len(invalid))
            case e.QueueMode(queue=queue, is_enabled=is_enabled, fast_polling=fast_polling, interval_s=interval_s):
                self._child(self._enabled, queue).set(is_enabled)
                self._child(self._fast, queue).set(fast_polling)
                self._child(self._interval, queue).set(interval_s)
            case e.Trouble(where=where):
                self._child(self._troubles, where).inc()
            case e.SessionOpened():
                self._connected.set(1)
            case e.SessionClosed():
                self._connected.set(0)
            case _:
                pass

    def show_depth(self, queue: str, *, pending: int, failed: int, oldest_pending_s: float) -> None:
        """Set a queue's gauges; read from the table at each scrape."""
        self._pending.labels(queue).set(pending)
        self._failed.labels(queue).set(failed)
        self._oldest.labels(queue).set(oldest_pending_s)

    def show_connections(self, count: int) -> None:
        """Set how many connections the service holds, as the server counts them."""
        self._connections.set(count)

    def forget_depths(self) -> None:
        """The database does not answer: show no figure rather than an old one."""
        self._connections.set(math.nan)  # without labels it cannot be taken away; NaN is no figure, and breaks no rule
        for gauge in (self._pending, self._failed, self._oldest, self._remaining, self._paused):
            gauge.clear()

    def show_budget(self, budget: Mapping[str, Any]) -> None:
        """Set an account's gauges from its row of `api_budgets`."""
        labels = (budget["connector"], budget["account"])
        self._remaining.labels(*labels).set(budget["remaining"])
        self._paused.labels(*labels).set(int(budget["is_paused"]))

    def show_pool(self, stats: Mapping[str, int]) -> None:
        """Set the pool's metrics from psycopg_pool's own counters."""
        self._pool["connections"].set(stats.get("pool_size", 0))
        self._pool["connections_idle"].set(stats.get("pool_available", 0))
        self._pool["connections_max"].set(stats.get("pool_max", 0))
        self._pool["requests_waiting"].set(stats.get("requests_waiting", 0))
        errors = stats.get("connections_errors", 0)  # since the pool was opened
        self._pool_errors.inc(errors - self._pool_errors_seen)
        self._pool_errors_seen = errors

    def render(self) -> bytes:
        """Return the exposition text."""
        for queue, running in self._running.items():
            self._active.labels(queue).set(running)
        return generate_latest(self.registry)
