"""Reads `/metrics` as Prometheus does."""

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

#: Name → type and labels, as they are promised to dashboards and alerts.
PROMISED: dict[str, tuple[str, set[str]]] = {
    "listener_wakes_total": ("counter", {"queue", "reason"}),
    "listener_checks_total": ("counter", {"queue", "action"}),
    "listener_jobs_claimed_total": ("counter", {"queue"}),
    "listener_jobs_settled_total": ("counter", {"queue", "outcome"}),
    "listener_claims_lost_total": ("counter", {"queue"}),
    "listener_jobs_rescued_total": ("counter", {"queue"}),
    "listener_bell_total": ("counter", {"queue", "rung_by"}),
    "listener_bell_arming_seconds_total": ("counter", {"queue"}),
    "listener_unannounced_rows_total": ("counter", {"queue"}),
    "listener_pickup_seconds": ("histogram", {"queue"}),
    "listener_handler_seconds": ("histogram", {"queue"}),
    "listener_claim_seconds": ("histogram", {"queue"}),
    "listener_queue_pending": ("gauge", {"queue"}),
    "listener_queue_oldest_pending_seconds": ("gauge", {"queue"}),
    "listener_queue_failed": ("gauge", {"queue"}),
    "listener_active_operations": ("gauge", {"queue"}),
    "listener_api_requests_total": ("counter", {"connector", "account", "status"}),
    "listener_api_request_seconds": ("histogram", {"connector"}),
    "listener_api_budget_remaining": ("gauge", {"connector", "account"}),
    "listener_connector_paused": ("gauge", {"connector", "account"}),
    "listener_queue_enabled": ("gauge", {"queue"}),
    "listener_fast_polling_enabled": ("gauge", {"queue"}),
    "listener_poll_interval_seconds": ("gauge", {"queue"}),
    "listener_config_version": ("gauge", set()),
    "listener_config_invalid": ("gauge", set()),
    "listener_session_connected": ("gauge", set()),
    "listener_pool_connections": ("gauge", set()),
    "listener_pool_connections_idle": ("gauge", set()),
    "listener_pool_connections_max": ("gauge", set()),
    "listener_pool_requests_waiting": ("gauge", set()),
    "listener_pool_connection_errors_total": ("counter", set()),
    "listener_troubles_total": ("counter", {"where"}),
    "listener_database_connections": ("gauge", set()),
}


class Exposition:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        #: By the name that queries use: counters with ``_total``.
        self.families: dict[str, Metric] = {}
        for family in text_string_to_metric_families(text):
            self.families[f"{family.name}_total" if family.type == "counter" else family.name] = family

    def value(self, sample: str, **labels: str) -> float | None:
        """The value of the one sample with these labels; None when it is not there."""
        found = [s.value for s in self._samples(sample) if s.labels == labels]
        assert len(found) <= 1, f"{sample}{labels} is there {len(found)} times"
        return found[0] if found else None

    def by(self, label: str, sample: str) -> dict[str, float]:
        """Label value → value of each sample."""
        return {s.labels[label]: s.value for s in self._samples(sample)}

    def labels(self, name: str) -> Iterable[set[str]]:
        """The label names of each series, without the histogram's own."""
        return [set(s.labels) - {"le"} for s in self.families[name].samples]

    def _samples(self, name: str) -> list:
        return [s for family in self.families.values() for s in family.samples if s.name == name]
