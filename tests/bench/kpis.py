"""The figures that tell whether the service does what it promises, each with its target and its alert value."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from e2e.exposition import Exposition
from e2e.service import Service

_TICKS = os.sysconf("SC_CLK_TCK")
#: Of the run: until then imports, pools and caches fill up.
_WARM_UP = 0.2
#: An order that was lost has none, and is told beside the table.
_WAITS = "SELECT extract(epoch FROM uploaded_at - created_at) FROM orders_inbox WHERE uploaded_at IS NOT NULL"
_LOOKS = """SELECT coalesce(sum(checks), 0), coalesce(sum(skipped), 0) FROM polling_metrics
WHERE workflow_name = 'shipstation-upload'"""
_RUNS = """SELECT count(*), count(*) FILTER (WHERE status = 'Failed') FROM sync_runs
WHERE reason = 'schedule' AND started_at IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes use at one moment. cpu_s: since each one's start. at_s: since the run's."""

    at_s: float
    connections: int
    rss_mib: list[float]
    cpu_s: dict[int, float]

    @classmethod
    def of(cls, at_s: float, connections: int, pids: Sequence[int]) -> "Sample":
        """Read /proc; a process that has just been killed counts as nothing."""
        rss_mib, cpu_s = [], {}
        for pid in pids:
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if pages:
                rss_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
                cpu_s[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
        return cls(at_s, connections, rss_mib, cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kpi:
    """One line. alert: the value from which somebody must be called; is_low: below it instead of above."""

    name: str
    target: str
    alert: float
    value: float
    unit: str
    is_low: bool = False
    is_alarm: bool = False


def assess(
    conn: psycopg.Connection,
    stats: dict[str, Any],
    running: Sequence[Service],
    samples: Sequence[Sample],
    quiet: Sequence[str],
    *,
    hours: float,
) -> list[Kpi]:
    """Return the KPIs of requirements R196 to R208. quiet: orders that no fault concerned; hours: of work."""
    waits = [float(row[0]) for row in conn.execute(f"{_WAITS} AND order_number = ANY (%s)", [[*quiet]])]
    longest = max((float(row[0]) for row in conn.execute(_WAITS)), default=0.0)
    [[checks, skipped]] = conn.execute(_LOOKS).fetchall()
    [[runs, failed]] = conn.execute(_RUNS).fetchall()
    scrapes = [Exposition(service.get("/metrics")[1]) for service in running]
    warm = [sample for sample in samples if sample.at_s >= _WARM_UP * samples[-1].at_s]
    peak = max(max(sample.rss_mib, default=0.0) for sample in warm)
    connections = statistics.fmean(sample.connections / max(len(sample.rss_mib), 1) for sample in warm)
    pickup_s, claim_s = (max(_bucket(s, f"listener_{name}_seconds") for s in scrapes) for name in ("pickup", "claim"))
    too_much = [
        ("commit → accepted, sound hours, p95", "≤ 30", 60.0, _p95(waits), "s"),
        ("commit → accepted, faults included, longest", "< 120", 120.0, longest, "s"),
        ("due → handler, p95 (bucket)", "≤ 30", 60.0, pickup_s, "s"),
        ("one claim, p95 (bucket)", "≤ 5", 50.0, 1000 * claim_s, "ms"),
        ("API calls an hour", "100–200", 250.0, stats["total"] / hours, ""),
        ("calls answered 429", "0", 1.0, stats["throttled"], ""),
        ("sync runs that failed", "< 1", 5.0, 100 * failed / max(runs, 1), "%"),
        ("connections of one process", "3–6", 8.0, connections, ""),
        ("memory of one process, peak", "flat", 200.0, peak, "MiB"),
        ("memory slope", "≈ 0", 10.0, _slope(warm), "MiB/h"),
        ("CPU of one process", "≤ 50", 80.0, _cpu(samples), "%"),
    ]
    too_little = [
        ("looks that found nothing (upload)", "≥ 80", 50.0, 100 * float(skipped) / max(float(checks), 1.0), "%"),
        ("sync cycles an hour", "30", 20.0, runs / hours, ""),
    ]
    return [_kpi(line, is_low=is_low) for lines, is_low in ((too_much, False), (too_little, True)) for line in lines]


def _kpi(line: tuple[str, str, float, float, str], *, is_low: bool) -> Kpi:
    name, target, alert, value, unit = line
    is_alarm = value < alert if is_low else value >= alert
    return Kpi(name=name, target=target, alert=alert, value=value, unit=unit, is_low=is_low, is_alarm=is_alarm)


def table(kpis: Sequence[dict[str, Any]]) -> str:
    """Return the lines of a table in Markdown."""
    lines = ["| KPI | target | alert | value | |", "|---|---|---|---|---|"]
    for kpi in kpis:
        sign = "<" if kpi["is_low"] else "≥"
        verdict = "ALERT" if kpi["is_alarm"] else "ok"
        lines.append(
            f"| {kpi['name']} | {kpi['target']} {kpi['unit']} | {sign} {kpi['alert']:g}"
            f" | {kpi['value']:.2f} | {verdict} |"
        )
    return "\n".join(lines)


def _p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[18] if len(values) > 1 else max(values, default=0.0)


def _bucket(scrape: Exposition, name: str) -> float:
    """Return the upper bound of the bucket that holds the 95th percentile of queue `upload`."""
    buckets = [
        (float(sample.labels["le"]), sample.value)
        for sample in scrape.families[name].samples
        if sample.name.endswith("_bucket") and sample.labels["queue"] == "upload"
    ]
    total = max((count for _, count in buckets), default=0.0)
    return min((bound for bound, count in buckets if count >= 0.95 * total), default=0.0) if total else 0.0


def _slope(samples: Sequence[Sample]) -> float:
    """Return MiB an hour of the clock, fitted through the processes' mean; a restart is no growth."""
    points = [(s.at_s, statistics.fmean(s.rss_mib)) for s in samples if s.rss_mib]
    if len(points) < 3:
        return 0.0
    slope, _ = statistics.linear_regression([at for at, _ in points], [mib for _, mib in points])
    return slope * 3600


def _cpu(samples: Sequence[Sample]) -> float:
    """Return the share of one core that a process used on average, from its first sample to its last."""
    first: dict[int, tuple[float, float]] = {}
    last: dict[int, tuple[float, float]] = {}
    for sample in samples:
        for pid, cpu_s in sample.cpu_s.items():
            first.setdefault(pid, (sample.at_s, cpu_s))
            last[pid] = (sample.at_s, cpu_s)
    spans = [(last[pid][0] - first[pid][0], last[pid][1] - first[pid][1]) for pid in first]
    return 100.0 * sum(used for _, used in spans) / max(sum(span for span, _ in spans), 1.0)
