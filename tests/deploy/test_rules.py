"""Every key figure has its alert at the value that was agreed: silent just below it, loud just above. Nothing here
needs a database; promtool plays hours in a second."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from e2e.exposition import PROMISED

from deploy.tools import RULES, alerts, program, recorded, rules, run, runbook_anchors
from listener.obs.timings import SECONDS

ALERTMANAGER = RULES[0].parents[1] / "alertmanager.yml"
MINUTES = 150  # of samples, one a minute: an hour's window, an hour of patience, and some more
LONG_MINUTES = 8 * 60  # the same for what looks back six hours
JOB = 'job="order-listener",instance="a"'
#: Kpi → words that its alert's target must hold and the threshold of its alert, as they were agreed.
AGREED = {
    "order-detection-latency": ("at most 30 s", "> 60"),
    "upload-latency": ("at most 30 s", "> 60"),
    "skip-rate": ("at least 80 %", "< 0.5"),
    "api-calls": ("100 to 200 an hour", "> 250"),
    "check-duration": ("below 5 ms", "> 0.05"),
    "database-connections": ("3 to 5", "> 10"),
    "error-rate": ("below 1 %", "> 0.05"),
    "end-to-end-latency": ("below 2 min", "> 120"),
    "rate-limit-errors": ("none", "> 0"),
    "sync-cycles": ("about 30 an hour", "< 10"),
    "sync-duration": ("at most 40 s", "> 120"),
    "pool-use": ("below 50 %", "> 0.5"),
    "database-health": ("always connected", "== 0"),
    "lock-timeouts": ("none", "> 0"),
    "success-rate": ("at least 95 %", "< 0.95"),
    "cpu": ("0.3 to 0.5", "> 0.9"),
    "memory": ("stable", "> 10 * 1024 * 1024"),
}


def hourly(series: str, per_hour: float, *, start: float = 0, minutes: int = MINUTES) -> dict[str, str]:
    """A counter that grows evenly."""
    return {"series": series, "values": f"{start}{per_hour / 60:+}x{minutes}"}


def steady(series: str, value: float) -> dict[str, str]:
    return {"series": series, "values": f"{value}x{MINUTES}"}


def timings(name: str, queue: str, seconds: float) -> list[dict[str, str]]:
    """A histogram of which every observation lies in the bucket that ends at `seconds`."""
    bounds = [*(repr(float(bound)) for bound in SECONDS), "+Inf"]
    return [
        hourly(f'{name}_bucket{{queue="{queue}",le="{bound}"}}', 600 if float(bound) >= seconds else 0)
        for bound in bounds
    ]


def pickups(queue: str, pickup: float, handler: float) -> list[dict[str, str]]:
    pair = [("listener_pickup_seconds", pickup), ("listener_handler_seconds", handler)]
    return [series for name, seconds in pair for series in timings(name, queue, seconds)]


def settled(queue: str, complete: float, fail: float) -> list[dict[str, str]]:
    return [
        hourly(f'listener_jobs_settled_total{{queue="{queue}",outcome="{outcome}"}}', count)
        for outcome, count in (("complete", complete), ("fail", fail), ("retry", 0), ("release", 50))
    ]


def checks(queue: str, skip: float, process: float) -> list[dict[str, str]]:
    return [
        hourly(f'listener_checks_total{{queue="{queue}",action="{action}"}}', count)
        for action, count in (("skip", skip), ("process", process))
    ]


def calls(status: str, per_hour: float) -> dict[str, str]:
    return hourly(f'listener_api_requests_total{{connector="shipstation",account="a",status="{status}"}}', per_hour)


def held(connections: float) -> list[dict[str, str]]:
    return [steady("listener_database_connections", connections), steady("listener_session_connected", 1)]


def synced(per_hour: float, *, age_s: float = 0, enabled: int = 1) -> list[dict[str, str]]:
    return [
        *settled("sync", per_hour, 0),
        steady('listener_queue_enabled{queue="sync"}', enabled),
        steady(f"process_start_time_seconds{{{JOB}}}", MINUTES * 60 - age_s if age_s else 0),
    ]


def waits(age_s: float, *, interval: int = 15, enabled: int = 1, paused: int = 0) -> list[dict[str, str]]:
    return [
        steady('listener_queue_oldest_pending_seconds{queue="upload"}', age_s),
        steady('listener_poll_interval_seconds{queue="upload"}', interval),
        steady('listener_queue_enabled{queue="upload"}', enabled),
        steady('listener_connector_paused{connector="shipstation",account="a"}', paused),
    ]


def pool(idle: float) -> list[dict[str, str]]:
    sizes = {"connections": 4, "connections_idle": idle, "connections_max": 4}
    return [steady(f'listener_pool_{name}{{instance="a"}}', size) for name, size in sizes.items()]


def grown(bytes_per_hour: float) -> list[dict[str, str]]:
    names = (("resident_memory_bytes", bytes_per_hour, 80_000_000), ("start_time_seconds", 0, 0))
    return [
        hourly(f"process_{name}{{{JOB}}}", growth, start=start, minutes=LONG_MINUTES) for name, growth, start in names
    ]


@dataclass(frozen=True, slots=True)
class Case:
    """What makes an alert fire, and what is just not enough. More than one way: the first two are the edge."""

    loud: list[dict[str, str]]
    silent: list[list[dict[str, str]]]


#: One for each alert. Histograms know their buckets only: 60 s is an edge of one, 50 ms too.
CASES = {
    "OrderDetectionSlow": Case(pickups("upload", 120, 0.1), [pickups("upload", 60, 0.1), pickups("import", 120, 0.1)]),
    "UploadSlow": Case(pickups("upload", 60, 60), [pickups("upload", 30, 10)]),
    "SkipRateLow": Case(checks("upload", 49, 51), [checks("upload", 51, 49), checks("sync", 1, 99)]),
    "ApiCallsHigh": Case([calls("200", 200), calls("500", 51)], [[calls("200", 200), calls("500", 49)]]),
    "QueueCheckSlow": Case(timings("listener_claim_seconds", "upload", 0.1), [
        timings("listener_claim_seconds", "upload", 0.05)
    ]),
    "DatabaseConnectionsRising": Case(held(9), [held(8), held(11)]),
    "DatabaseConnectionsHigh": Case(held(11), [held(10), [
        steady("listener_database_connections", 18),
        *(steady(f'listener_session_connected{{instance="{each}"}}', 1) for each in "ab"),
    ], [steady("listener_database_connections", 6), steady("listener_session_connected", 0)]]),
    "ErrorRateHigh": Case(settled("upload", 94, 6), [
        settled("upload", 96, 4), settled("upload", 0, 0), settled("upload", 4, 1)
    ]),
    "EndToEndSlow": Case(pickups("import", 60, 30) + pickups("upload", 60, 30), [
        pickups("import", 30, 30) + pickups("upload", 30, 30), pickups("upload", 300, 300),
    ]),
    "ApiRateLimited": Case(
        # the first and only 429 of this process, minutes before the end: no increase() shows it
        [{"series": calls("429", 0)["series"], "values": f"_x{MINUTES - 14} 1x14"}],
        [[calls("429", 0), calls("200", 100)], [steady(calls("429", 0)["series"], 7)]],
    ),
    "SyncCyclesFew": Case(synced(9), [synced(11), synced(9, age_s=1800), synced(0, enabled=0)]),
    "SyncSlow": Case(timings("listener_handler_seconds", "sync", 300), [
        timings("listener_handler_seconds", "sync", 120)
    ]),
    "PoolBusy": Case(pool(1), [pool(2)]),
    "DatabaseSessionLost": Case([steady("listener_session_connected", 0)], [[steady("listener_session_connected", 1)]]),
    "RowsRescued": Case([hourly('listener_jobs_rescued_total{queue="upload"}', 1)], [
        [steady('listener_jobs_rescued_total{queue="upload"}', 5)]
    ]),
    "ApiSuccessRateLow": Case([calls("200", 94), calls("500", 6)], [[calls("200", 96), calls("500", 4)]]),
    "CpuHigh": Case([hourly(f"process_cpu_seconds_total{{{JOB}}}", 3300)], [
        [hourly(f"process_cpu_seconds_total{{{JOB}}}", 3200)]
    ]),
    "MemoryGrowing": Case(grown(11 * 2**20), [grown(9 * 2**20)]),
    "ListenerDown": Case([steady(f"up{{{JOB}}}", 0)], [[steady(f"up{{{JOB}}}", 1)]]),
    "ListenerAbsent": Case([steady('up{job="other"}', 1)], [[steady(f"up{{{JOB}}}", 0)]]),
    "RowsWaiting": Case(waits(61), [
        waits(60), waits(600, enabled=0), waits(340, interval=300), waits(500, paused=1)
    ]),
    "QueuesUnread": Case([
        steady("listener_session_connected", 1),
        {"series": 'listener_queue_oldest_pending_seconds{queue="upload"}', "values": "0x60 stale"},
    ], [
        [steady("listener_session_connected", 0)], [steady("listener_session_connected", 1), *waits(0)]
    ]),
    "RowsFailed": Case([hourly('listener_queue_failed{queue="upload"}', 4)], [
        [steady('listener_queue_failed{queue="upload"}', 9)],
        [hourly('listener_queue_failed{queue="upload"}', -4, start=20)]
    ]),
    "ConnectorPaused": Case(
        [steady('listener_connector_paused{connector="shipstation",account="a"}', 1)],
        [[steady('listener_connector_paused{connector="shipstation",account="a"}', 0)]],
    ),
    "NotificationsLost": Case([hourly('listener_unannounced_rows_total{queue="upload"}', 4)], [
        [steady('listener_unannounced_rows_total{queue="upload"}', 4)]
    ]),
    "ConfigurationInvalid": Case([steady("listener_config_invalid", 1)], [[steady("listener_config_invalid", 0)]]),
    "ConfigurationDiffers": Case(
        [steady('listener_config_version{instance="a"}', 4), steady('listener_config_version{instance="b"}', 5)],
        [[steady('listener_config_version{instance="a"}', 5), steady('listener_config_version{instance="b"}', 5)]],
    ),
    "Trouble": Case([
        # four at once, the first of this place: no increase() shows them
        {"series": 'listener_troubles_total{where="safety poll"}', "values": f"_x{MINUTES - 10} 4x10"},
    ], [
        [hourly('listener_troubles_total{where="upload claim"}', 11)]
    ]),
    "RolledBack": Case([steady('listener_fast_polling_enabled{queue="upload"}', 0)], [
        [steady('listener_fast_polling_enabled{queue="upload"}', 1)]
    ]),
    "QueueDisabled": Case([steady('listener_queue_enabled{queue="upload"}', 0)], [
        [steady('listener_queue_enabled{queue="upload"}', 1)]
    ]),
}  # fmt: skip


def names_in(expression: str) -> set[str]:
    """The metrics and recorded series that an expression reads."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", re.sub(r'"[^"]*"', "", expression))
    return set(re.findall(r"\b(?:\w+:[\w:]+|listener_\w+|process_\w+|up\b)", bare))


def exported() -> set[str]:
    """Series as the service exports them, a histogram's parts too."""
    histograms = [name for name, (kind, _) in PROMISED.items() if kind == "histogram"]
    parts = {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    return set(PROMISED) | parts | {"process_cpu_seconds_total", "process_resident_memory_bytes",
                                    "process_start_time_seconds", "up"}  # fmt: skip


def test_rules_read_what_the_service_exports() -> None:
    known = exported() | recorded()
    for rule in rules():
        read = names_in(str(rule["expr"]))
        assert read, rule
        assert read <= known, f"{rule.get('alert') or rule['record']} reads {read - known}"


def test_every_alert_has_its_section_in_the_runbook() -> None:
    anchors = runbook_anchors()
    for alert in alerts():
        where, _, anchor = alert["annotations"]["runbook"].partition("#")
        assert (where, anchor) == ("deploy/README.md", alert["alert"].lower())
        assert anchor in anchors, alert["alert"]


def test_every_key_figure_has_the_target_and_the_alert_that_were_agreed() -> None:
    by_kpi = {alert["labels"]["kpi"]: alert for alert in alerts() if "kpi" in alert["labels"]}
    assert by_kpi.keys() == AGREED.keys()
    for kpi, (target, threshold) in AGREED.items():
        alert = by_kpi[kpi]
        assert target in alert["annotations"]["target"], kpi
        assert re.search(re.escape(threshold) + r"(?![\d.])", alert["expr"]), kpi


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == {alert["alert"] for alert in alerts()}
    assert {alert["labels"]["severity"] for alert in alerts()} == {"page", "warning", "info"}


def metrics_of(series: list[dict[str, str]]) -> set[str]:
    return {each["series"].partition("{")[0] for each in series}


def promtool_tests(cases: list[tuple[str, list[dict[str, str]]]], *, fires: bool) -> list[dict]:
    """Cases that have no metric in common go into one test: each test evaluates every rule for hours."""
    tests: list[dict] = []
    for name, series in cases:
        minutes = LONG_MINUTES if name == "MemoryGrowing" else MINUTES
        question = {
            "expr": f'count by (alertname) (ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0',
            "eval_time": f"{minutes}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
        }
        for test in tests if minutes == MINUTES else []:
            if not metrics_of(series) & metrics_of(test["input_series"]):
                test["input_series"] += series
                test["promql_expr_test"].append(question)
                break
        else:
            test = {"interval": "1m", "input_series": list(series), "promql_expr_test": [question]}
            tests.insert(0, test)
    return tests


def test_a_restart_of_postgres_pages_nobody() -> None:
    """It heals in seconds, a failover in minutes."""
    [rule] = [rule for rule in alerts() if rule["alert"] == "DatabaseSessionLost"]
    assert (rule["expr"], rule["for"]) == ("listener_session_connected == 0", "5m")


@pytest.mark.parametrize(
    ("first", "then", "is_silenced"),
    [
        ({"alertname": "ConnectorPaused"}, {"alertname": "RowsWaiting", "queue": "upload"}, True),
        ({"alertname": "ConnectorPaused"}, {"alertname": "EndToEndSlow"}, True),
        ({"alertname": "ConnectorPaused"}, {"alertname": "RowsWaiting", "queue": "import"}, False),
        ({"alertname": "QueuesUnread"}, {"alertname": "RowsWaiting", "queue": "import"}, True),
        ({"alertname": "RowsWaiting", "queue": "upload"}, {"alertname": "ConnectorPaused"}, False),
    ],
)
def test_only_what_follows_is_silenced(first: dict[str, str], then: dict[str, str], is_silenced: bool) -> None:
    """A pause of ShipStation says nothing of files."""
    inhibits = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    found = [rule for rule in inhibits if fits(rule["source_matchers"], first) and fits(rule["target_matchers"], then)]
    assert bool(found) is is_silenced


def fits(matchers: list[str], labels: dict[str, str]) -> bool:
    """As Alertmanager matches: a pattern from end to end, a label that is missing is empty."""
    parts = [each.partition("=") for each in matchers]
    return all(re.fullmatch(value.lstrip("~").strip('"'), labels.get(name, "")) for name, _, value in parts)


def test_every_severity_has_its_route() -> None:
    """In the sample for Alertmanager; what it silences are alarms that exist."""
    told = yaml.safe_load(ALERTMANAGER.read_text())
    receivers = {each["name"] for each in told["receivers"]}
    routes = {
        re.findall(r'severity="(\w+)"', route["matchers"][0])[0]: route["receiver"] for route in told["route"]["routes"]
    }
    assert routes == {"page": "pager", "warning": "mail", "info": "nobody"}
    assert {*routes.values(), told["route"]["receiver"]} <= receivers
    silenced = {
        name
        for rule in told["inhibit_rules"]
        for key in ("source_matchers", "target_matchers")
        for name in re.findall(r"\w+", rule[key][0].partition("=")[2])
    }
    assert silenced <= {alert["alert"] for alert in alerts()}


def test_alertmanager_takes_the_sample() -> None:
    done = run(program("amtool", "prometheus-alertmanager"), "check-config", ALERTMANAGER)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_valid() -> None:
    done = run(program("promtool", "prometheus"), "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("way", ["loud", "silent"])
def test_every_alert_fires_beyond_its_value_and_not_before(way: str, tmp_path: Path) -> None:
    cases = [(name, each) for name, case in CASES.items() for each in ([case.loud] if way == "loud" else case.silent)]
    tests = promtool_tests(cases, fires=way == "loud")
    file = tmp_path / f"{way}.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(path) for path in RULES], "evaluation_interval": "5m", "tests": tests})
    )
    done = run(program("promtool", "prometheus"), "test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
