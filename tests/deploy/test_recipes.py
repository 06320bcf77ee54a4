"""The runbook's recipes give the right figures on sample data, and its commands exist."""

import json
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from conftest import Database, Server
from roles import roles

from deploy.tools import DEPLOY, runbook_anchors
from listener.cli.commands import HOMES
from listener.core import events as e
from listener.obs import log

TEXT = (DEPLOY / "README.md").read_text()


def recipes(language: str, comment: str, after: str) -> dict[str, str]:
    """Name → command, of the first block of a language after a heading."""
    [block] = re.findall(rf"```{language}\n(.*?)```", TEXT.split(f"\n### {after}\n")[1].split("\n## ")[0], re.DOTALL)
    parts = re.split(rf"^{comment} (.*)\n", block, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


SHELL = recipes("sh", "#", "Logs")
SQL = recipes("sql", "--", "SQL")


@pytest.fixture
def sample_log(tmp_path: Path) -> Iterator[Path]:
    """Lines as the service writes them: 4 looks in 3 lines (one skipped), 2 calls, an error, a call of another hour."""
    path = tmp_path / "listener.log"
    with path.open("w") as file:
        log.set_up(format="json", stream=file)
        lines = log.EventLog({"upload": "orders"}, log.own())
        tell = lines.on_event
        tell(e.QueueMode(queue="upload", is_enabled=True, fast_polling=True, interval_s=15, is_start=True))
        for checks in ([(2, 0.006)], [(1, 0.003), (0, 0.001)], [(0, 0.002)]):
            lines._checks.clear()
            lines._last_line_s["upload"] = float("inf")  # nothing is due: each line is written below
            for claimed, duration_s in checks:
                tell(e.Checked(queue="upload", claimed=claimed, waiting=None, duration_s=duration_s))
            lines.close()
        for status in ("200", "500"):
            tell(
                e.ApiCalled(
                    connector="shipstation", account="a", method="POST", path="/orders", status=status, duration_s=1
                )
            )
        tell(e.JobFailed(queue="upload", id="1", outcome="fail", attempt=1, error="no such country"))
        file.write('{"event": "ShipStation API GET /orders", "level": "info", "timestamp": "2020-01-01 00:00:00.0Z"}\n')
    yield path
    structlog.reset_defaults()


EXPECTED = {
    "skip rate": "50.0 %",  # 2 of 4 looks; of 3 lines one says skip
    "average duration of a look": "3.0 ms",  # 12 ms in 4 looks
    "errors": "1",
    "API calls of this hour": "2",
    "interval in force": "Upload workflow started (fast_polling=True, interval=15s)",
}


def shell(command: str, path: Path) -> str:
    environ = {"LOG": str(path), "PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=20)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize("name", SHELL)
def test_a_log_recipe_gives_the_right_figure(name: str, sample_log: Path) -> None:
    if datetime.now(UTC).minute == 59:
        pytest.skip("the hour may end between the log and the question")
    said = shell(SHELL[name], sample_log)
    if name == "last 20 looks":
        assert [re.findall(r"count=(\d+)", line) for line in said.splitlines()] == [["2"], ["1"], ["0"]]
    else:
        assert said == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(SHELL.keys() - {"errors", "API calls of this hour"}))
def test_a_log_without_a_look_is_no_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty.log").write_text("")
    assert shell(SHELL[name], tmp_path / "empty.log") == ""


@pytest.fixture
def sample(database: Database) -> Database:
    """An hour of checks and older ones, orders in every state, syncs."""
    database.execute(
        """
        INSERT INTO polling_metrics
            (workflow_name, check_timestamp, record_count, action_taken, duration_ms, checks, skipped, longest_ms)
        SELECT 'shipstation-upload', LOCALTIMESTAMP - make_interval(mins => ago), n, action, ms, checks, skipped,
               longest
        FROM (VALUES (1, 5, 'processed', 8, 4, 3, 5), (2, 0, 'skipped', 2, 1, 1, 2), (180, 0, 'skipped', 90, 3, 3, 40))
            AS sample (ago, n, action, ms, checks, skipped, longest);
        INSERT INTO orders_inbox (source, order_number, payload, status, last_error, created_at, uploaded_at)
        VALUES ('shop', '1', '{}', 'Uploaded', NULL, now() - interval '10 min', now() - interval '7 min'),
               ('shop', '2', '{}', 'Failed', 'items: none', now() - interval '10 min', NULL),
               ('shop', '3', '{}', 'Waiting', NULL, now(), NULL);
        INSERT INTO sync_runs (account, status, finished_at)
        VALUES ('a', 'Succeeded', now() - interval '5 min'), ('a', 'Failed', now() - interval '4 min'),
               ('a', 'Succeeded', now() - interval '2 hours');
        """
    )
    return database


def first(rows: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(float(each) if str(each).replace(".", "").isdigit() else each for each in rows[0])


def test_sql_recipes_give_the_right_figures(sample: Database) -> None:
    answers = {name: sample.execute(text) for name, text in SQL.items()}
    assert first(answers["checks of the last hour"]) == ("shipstation-upload", 5, 2.0, 1, 4, 80.0)
    assert [row[1:] for row in answers["checks of each hour"]][-1][:2] == ("shipstation-upload", 3)
    assert first([answers["checks of each hour"][-1][2:]]) == (3, 30.0, 40, 100.0)
    assert answers["checks of each hour"] == sorted(
        answers["checks of each hour"], key=lambda row: row[0], reverse=True
    )
    assert [row[:2] for row in answers["state of the queue"]] == [("Failed", 1), ("Uploaded", 1), ("Waiting", 1)]
    assert [(row[1], row[4]) for row in answers["newest errors"]] == [("2", "items: none")]
    assert answers["syncs of the last hour"] == [(1,)]
    assert float(answers["minutes from order to ShipStation"][0][0]) == 3.0
    assert first(answers["pool health"]) == (1, 0, 1)


@pytest.mark.own_role("the test plays a connection of the product")
def test_activity_recipes_name_who_does_what(sample: Database) -> None:
    holder = sample.connect(autocommit=False, application_name="order-listener upload-1")
    holder.execute("LOCK TABLE orders_inbox IN SHARE MODE")
    assert ("order-listener upload-1", "idle in transaction", 1) in sample.execute(SQL["connections by name"])
    watch = sample.connect(autocommit=False, application_name="order-listener watch")
    watch.execute("SELECT 1")  # it waits for another session of ours, a minute at a time, and nobody is to end that one
    held = [row[1] for row in sample.execute(SQL["who holds what"])]
    assert "order-listener upload-1" in held
    assert "order-listener watch" not in held
    [what] = [row for row in sample.execute(SQL["what runs"]) if row[1] == "order-listener upload-1"]
    assert what[4] == "LOCK TABLE orders_inbox IN SHARE MODE"[:50]
    holder.rollback()


def test_the_panels_that_alarms_lead_to_are_on_the_dashboard() -> None:
    [path] = (DEPLOY / "grafana" / "dashboards").glob("*.json")
    titles = {panel["title"] for panel in json.loads(path.read_text())["panels"]}
    named = set(re.findall(r'panel\s+"([^"]+)"', TEXT, re.IGNORECASE))
    assert len(named) > 3
    assert named <= titles, named - titles


def test_every_recipe_is_run_by_a_test() -> None:
    assert SHELL.keys() == EXPECTED.keys() | {"last 20 looks"}
    assert len(SQL) == 10


def test_each_sql_recipe_runs_as_the_role_that_it_names(server: Server, psql: Path) -> None:
    with roles(server, psql) as made, made.connect("reader") as reader, made.connect("runtime") as runtime:
        for name, text in SQL.items():
            (runtime if name == "newest errors" else reader).execute(text.encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(SQL["newest errors"].encode())


def test_triggers_are_switched_on_by_the_owner(server: Server, psql: Path) -> None:
    """Without a superuser, who alone may touch the triggers of foreign keys."""
    [statement] = re.findall(r"as the owner `(ALTER TABLE [^`]+)`", TEXT)
    with roles(server, psql) as made, made.connect("owner") as owner:
        made.database.execute("CREATE TABLE notes (about bigint REFERENCES orders_inbox)")
        made.database.execute("ALTER TABLE orders_inbox DISABLE TRIGGER USER")
        owner.execute(statement.encode())
        off = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders_inbox'::regclass AND tgenabled = 'D'"
        assert made.database.execute(off) == [(0,)]


def test_the_rollback_statements_work(database: Database) -> None:
    statements = TEXT.split("\n## Roll back\n")[1].split("```sql\n")[1].split("```")[0]
    database.execute(statements)
    changed = database.execute("SELECT param_key FROM configuration_history WHERE new_value = 'false'")
    assert {"fast_polling_enabled", "upload_enabled"} <= {key for (key,) in changed}


def test_commands_and_links_lead_somewhere() -> None:
    known = {*HOMES, "doctor"}
    named = set(re.findall(r"(?:^|[`/(] ?|run |-n 30 )listener ([a-z]+)(?=[ `\n)])", TEXT, flags=re.MULTILINE))
    assert len(named) > 5
    assert named <= known, named - known
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        file, _, anchor = link.partition("#")
        assert not file or (DEPLOY / file).exists(), link
        assert not anchor or anchor in runbook_anchors(), link
