"""`listener rollout check`: passes where a stage went well, and each criterion is seen failing."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from e2e.service import clean_environ
from queues import lease

from cli.ward import SCHEMA, Ward
from listener.cli.rollout import STAGES, Criterion, judge, read_exposition
from listener.cli.rollout import check as check_command
from listener.core.errors import ConfigError

HOURS = 2.0
NAMES = ["settings", "watched", "skip upload", "work", "API calls", "rate limit", "errors", "connections",
         "skip import", "end to end", "syncs", "doctor"]  # fmt: skip


@contextmanager
def metrics(calls: int | str = 300, throttled: int = 0) -> Iterator[str]:
    """The /metrics of a process that has run for two hours."""
    text = (
        f'listener_api_requests_total{{connector="shipstation",account="…7890",status="200"}} {calls}\n'
        f'listener_api_requests_total{{connector="shipstation",account="…7890",status="429"}} {throttled}.0\n'
        f"process_start_time_seconds {time.time() - 7200}\n"
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nobody reads it."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def gone_well(patient: Ward) -> Iterator[Ward]:
    """Two hours of the last stage."""
    execute = patient.database.execute
    execute("UPDATE configuration_history SET changed_at = now() - interval '3 hours'")
    execute(
        "INSERT INTO polling_metrics (workflow_name, check_timestamp, checks, skipped, action_taken, duration_ms)"
        " SELECT name, LOCALTIMESTAMP - n * interval '10 min', 10, 9, 'processed', 5"
        " FROM unnest('{shipstation-upload,xml-import}'::text[]) AS name, generate_series(0, 18) AS n"
    )
    execute(
        "INSERT INTO orders_inbox (order_number, status, created_at, scheduled_at, finished_at, attempts)"
        " SELECT n::text, 'Uploaded', now() - interval '1 hour', now() - interval '1 hour',"
        " now() - interval '1 hour' + interval '1 s', 1 FROM generate_series(1, 200) AS n"
    )
    execute(
        "INSERT INTO sync_runs (status, account, finished_at)"
        " SELECT 'Succeeded', 'a', now() - n * interval '2 min' FROM generate_series(0, 59) AS n"
    )
    execute("INSERT INTO import_files (name, status, finished_at) VALUES ('orders.xml', 'Imported', now())")
    yield patient
    execute("DELETE FROM orders_inbox; DELETE FROM sync_runs; DELETE FROM polling_metrics; DELETE FROM import_files")


def check(patient: Ward, *urls: str, plan: str = "two-stage", stage: int = 2) -> dict[str, Criterion]:
    return {each.name: each for each in anyio.run(judge, patient.env(), STAGES[plan][stage], HOURS, urls)}


def failing(patient: Ward, url: str) -> tuple[str, str]:
    """The one criterion that does not pass, and what was seen."""
    bad = [each for each in check(patient, url).values() if each.verdict == "fail"]
    assert len(bad) == 1, bad
    return bad[0].name, bad[0].seen


def test_a_stage_that_went_well_passes(gone_well: Ward) -> None:
    with metrics() as url:
        found = check(gone_well, url)
    assert list(found) == NAMES
    assert {each.verdict for each in found.values()} == {"pass"}, found


BREAKS = {
    "the interval is another": (
        "UPDATE configuration_params SET param_value = '300' WHERE param_key = 'sync_interval';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "UPDATE configuration_params SET param_value = '120' WHERE param_key = 'sync_interval';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "settings", "sync_interval is 300",
    ),
    "a switch was changed a moment ago": (
        "UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'fast_polling_enabled';"
        " UPDATE configuration_params SET param_value = 'true' WHERE param_key = 'fast_polling_enabled'",
        "UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "watched", "0.0 h",
    ),
    "nobody has looked for an hour": (
        "UPDATE polling_metrics SET check_timestamp = check_timestamp - interval '1 hour'",
        "UPDATE polling_metrics SET check_timestamp = check_timestamp + interval '1 hour'",
        "watched", "the last check was 1.0 h ago",
    ),
    "nobody looked for 20 minutes an hour ago": (
        "UPDATE polling_metrics SET check_timestamp = check_timestamp - interval '10 min'"
        " WHERE check_timestamp < LOCALTIMESTAMP - interval '55 min'",
        "UPDATE polling_metrics SET check_timestamp = check_timestamp + interval '10 min'"
        " WHERE check_timestamp < LOCALTIMESTAMP - interval '55 min'",
        "watched", "0.8 h",
    ),
    "uploads are seldom skipped": (
        "UPDATE polling_metrics SET skipped = 7 WHERE workflow_name = 'shipstation-upload'",
        "UPDATE polling_metrics SET skipped = 9",
        "skip upload", "70.0% of 120 checks found nothing to do",
    ),
    "imports are seldom skipped": (
        "UPDATE polling_metrics SET skipped = 8 WHERE workflow_name = 'xml-import'",
        "UPDATE polling_metrics SET skipped = 9",
        "skip import", "80.0% of 120 checks found nothing to do",
    ),
    "files fail": (
        "INSERT INTO import_files (name, status, finished_at) VALUES ('x', 'Failed', now())",
        "DELETE FROM import_files WHERE name = 'x'",
        "errors", "Failed: 0 of 200 orders, 1 of 2 files, 0 of 60 syncs",
    ),
    "hardly anybody has ordered": (
        "UPDATE orders_inbox SET status = 'Shipped' WHERE id NOT IN (SELECT id FROM orders_inbox ORDER BY id LIMIT 19)",
        "UPDATE orders_inbox SET status = 'Uploaded'",
        "work", "not enough to judge: 19 orders, 1 files",
    ),
    "no file has come": (
        "UPDATE import_files SET status = 'Elsewhere'",
        "UPDATE import_files SET status = 'Imported'",
        "work", "not enough to judge: 200 orders, 0 files",
    ),
    "uploads are switched off": (
        "UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'upload_enabled';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "UPDATE configuration_params SET param_value = 'true' WHERE param_key = 'upload_enabled';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "settings", "upload_enabled is false",
    ),
    "syncs are switched off": (
        "UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'sync_enabled';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "UPDATE configuration_params SET param_value = 'true' WHERE param_key = 'sync_enabled';"
        " UPDATE configuration_history SET changed_at = now() - interval '3 hours'",
        "settings", "sync_enabled is false",
    ),
    "orders take three minutes": (
        "UPDATE orders_inbox SET finished_at = finished_at + interval '3 min' WHERE id % 10 = 0",
        "UPDATE orders_inbox SET finished_at = finished_at - interval '3 min' WHERE id % 10 = 0",
        "end to end", "p95 181.0 s, longest 181.0 s, of 200 orders",
    ),
    "retried orders count from their beginning": (
        "UPDATE orders_inbox SET attempts = 3, scheduled_at = finished_at, created_at = created_at - interval '5 min'",
        "UPDATE orders_inbox SET attempts = 1, created_at = created_at + interval '5 min',"
        " scheduled_at = created_at + interval '5 min'",
        "end to end", "p95 301.0 s",
    ),
    "syncs are missing": (
        "UPDATE sync_runs SET status = 'Superseded' WHERE id % 2 = 0",
        "UPDATE sync_runs SET status = 'Succeeded'",
        "syncs", "15.0 an hour",
    ),
    "a trigger is off": (
        "ALTER TABLE sync_runs DISABLE TRIGGER sync_runs_retry",
        "ALTER TABLE sync_runs ENABLE TRIGGER sync_runs_retry",
        "doctor", "triggers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS)
def test_each_criterion_is_seen_failing(gone_well: Ward, broken: str) -> None:
    breaks, mends, name, seen = BREAKS[broken]
    gone_well.database.execute(breaks)
    with metrics() as url:
        found = failing(gone_well, url)
    gone_well.database.execute(mends)
    assert found[0] == name
    assert seen in found[1]


def test_calls_are_counted_by_the_processes(gone_well: Ward) -> None:
    with metrics(calls=500) as many, metrics(throttled=2) as throttled:
        assert failing(gone_well, many) == ("API calls", "250 an hour, over 2.0 h since the start")
        assert failing(gone_well, throttled) == ("rate limit", "2 answers 429")
    found = check(gone_well, "http://127.0.0.1:9/metrics")
    assert [each.name for each in found.values() if each.verdict == "unknown"] == ["API calls", "rate limit"]
    assert "does not answer" in found["API calls"].seen


def test_every_process_is_asked(gone_well: Ward) -> None:
    """Of two, one has made half of the calls."""
    with metrics() as one, lease(gone_well.database, 3, schema=SCHEMA), lease(gone_well.database, 4, schema=SCHEMA):
        found = check(gone_well, one)
    assert [each.name for each in found.values() if each.verdict != "pass"] == ["API calls", "rate limit"]
    assert found["API calls"].seen == "2 processes run, and 1 would be asked; give the address of each with --metrics"


def test_a_process_that_is_named_twice_is_asked_once(gone_well: Ward) -> None:
    with metrics() as one:
        assert check(gone_well, one, one)["API calls"] == check(gone_well, one)["API calls"]


@pytest.mark.parametrize("calls", ["many", "NaN", ""])
def test_figures_that_are_none_cannot_be_judged(gone_well: Ward, calls: str) -> None:
    with metrics(calls) as url:
        found = check(gone_well, url)
    assert [each.name for each in found.values() if each.verdict != "pass"] == ["API calls", "rate limit"]
    assert found["rate limit"].seen == f"{url} answered 200 without the process's metrics"


def test_orders_of_an_older_table_may_have_no_creation_time(gone_well: Ward) -> None:
    gone_well.database.execute("UPDATE orders_inbox SET created_at = NULL, attempts = 2, revision = 0")
    with metrics() as url:
        found = check(gone_well, url)["end to end"]
    gone_well.database.execute("UPDATE orders_inbox SET created_at = scheduled_at, attempts = 1")
    assert (found.verdict, found.seen) == ("pass", "p95 1.0 s, longest 1.0 s, of 200 orders")


@pytest.mark.parametrize(
    "url",
    ["localhost:8080/metrics", "ftp://localhost/metrics", "http://", "http://localhost:99999/metrics", "http://[::1/"],
)
def test_an_address_of_metrics_without_http_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^not an address of metrics: --metrics .*: write http://host:port/metrics$"):
        check_command(metrics=[url])


def test_too_many_connections(gone_well: Ward) -> None:
    held = [gone_well.database.connect(as_service=True, application_name="order-listener pool") for _ in range(10)]
    with metrics() as url:
        found = check(gone_well, url)["connections"]
    for conn in held:
        conn.close()
    assert found.verdict == "fail"
    assert int(found.seen.split()[0]) >= 10


def test_a_first_stage_without_an_order_does_not_pass(gone_well: Ward) -> None:
    """Upload alone: the other two are meant to be off; and nobody has ordered."""
    settings = (
        "UPDATE configuration_params SET param_value = '{}' WHERE param_key IN ('import_enabled', 'sync_enabled')"
    )
    past = "UPDATE configuration_history SET changed_at = now() - interval '3 hours'"
    with metrics() as url:
        on = check(gone_well, url, plan="two-stage", stage=1)
        gone_well.database.execute(f"{settings.format('false')}; {past}")
        good = check(gone_well, url, plan="two-stage", stage=1)
        gone_well.database.execute("UPDATE orders_inbox SET status = 'Shipped'")
        idle = check(gone_well, url, plan="two-stage", stage=1)
    gone_well.database.execute(f"UPDATE orders_inbox SET status = 'Uploaded'; {settings.format('true')}; {past}")
    assert (on["settings"].verdict, on["settings"].seen) == ("fail", "import_enabled is true, sync_enabled is true")
    assert {each.verdict for each in good.values()} == {"pass"}, good
    assert [(each.name, each.seen) for each in idle.values() if each.verdict != "pass"] == [
        ("work", "not enough to judge: 0 orders")
    ]


def test_a_stage_that_has_not_begun_cannot_be_judged(gone_well: Ward) -> None:
    gone_well.database.execute("UPDATE polling_metrics SET workflow_name = 'later ' || workflow_name")
    with metrics() as url:
        found = check(gone_well, url, plan="three-week", stage=1)
    gone_well.database.execute("UPDATE polling_metrics SET workflow_name = substr(workflow_name, 7)")
    assert (found["watched"].verdict, found["skip upload"].verdict) == ("unknown", "unknown")
    assert found["settings"].seen == "enable_fast_xml_polling is true, sync_interval is 120"
    assert "end to end" not in found


def test_the_command(gone_well: Ward) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "listener", "rollout", "check", *arguments],
            env={**clean_environ(), **gone_well.environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    with metrics() as url, lease(gone_well.database, 3, schema=SCHEMA):
        good = run("--stage", "2", "--hours", "2", "--metrics", url)
        bad = run("--plan", "three-week", "--stage", "2", "--metrics", url, "--json")
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.splitlines()[-1] == "two-stage, stage 2: go on"
    assert bad.returncode == 1
    told = json.loads(bad.stdout)
    assert (told["plan"], told["stage"], told["passed"]) == ("three-week", 2, False)
    assert [each["name"] for each in told["criteria"] if each["verdict"] == "fail"] == ["settings", "watched"]
    with pytest.raises(
        ConfigError, match="two-stage has no --stage 3; known: --plan two-stage --stage 1, 2; --plan three"
    ):
        check_command(plan="two-stage", stage=3)


def test_expositions_are_read() -> None:
    assert read_exposition("# HELP x\nother 5\n") == (0.0, 0, None)
    told = 'listener_api_requests_total{status="429"} 5 1700000000000\nprocess_start_time_seconds 1.7e9 1700000000000\n'
    assert read_exposition(told) == (5.0, 5, 1.7e9)
