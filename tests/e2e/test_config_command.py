"""`listener config`: what a person types, what a script reads, and what is said about mistakes."""

import json
import subprocess
from datetime import datetime
from typing import Any

import pytest
from conftest import Database

from e2e.service import Services
from listener.config.live import KEYS

DONE, FAILED, WRONG_USAGE = 0, 1, 2


def value_of(database: Database, key: str) -> str | None:
    found = database.execute("SELECT param_value FROM configuration_params WHERE param_key = %s", [key])
    return found[0][0] if found else None


def lines(done: subprocess.CompletedProcess[str], code: int = DONE) -> list[str]:
    assert done.returncode == code, done
    return (done.stderr if code else done.stdout).splitlines()


def read_json(done: subprocess.CompletedProcess[str]) -> Any:
    assert (done.returncode, done.stderr) == (DONE, ""), done
    return json.loads(done.stdout)


def test_list_shows_every_key_and_what_is_wrong(listeners: Services, database: Database) -> None:
    database.execute("DELETE FROM configuration_params WHERE param_key = 'fast_polling_enabled'")
    database.execute(
        "INSERT INTO configuration_params VALUES ('upload_concurrency', '7'), ('upload_enable', '0')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    shown = lines(listeners.run("config", "list"))
    assert shown[0].split() == ["key", "value", "default", "meaning"]
    assert [line.split()[0] for line in shown[1 : len(KEYS) + 1]] == [key.name for key in KEYS.values()]
    assert next(line for line in shown if line.startswith("upload_concurrency")).endswith("(changed)")
    assert shown[len(KEYS) + 1 :] == [
        "! fast_polling_enabled has no row; true is in force",
        "! 'upload_enable' is no key; did you mean upload_enabled?",
    ]

    entries = {entry["key"]: entry for entry in read_json(listeners.run("config", "list", "--json"))}
    assert (entries["upload_concurrency"]["value"], entries["upload_concurrency"]["default"]) == ("7", "2")
    assert entries["fast_polling_enabled"]["problem"] == shown[-2][2:]


@pytest.mark.parametrize("schema", ["public", "ops"])
def test_what_set_prints_undoes_it(listeners: Services, database: Database, schema: str) -> None:
    if schema != "public":
        listeners.environ["LISTENER_SCHEMA"] = schema
        database.install(schema)
    table = '"configuration_params"' if schema == "public" else f'"{schema}"."configuration_params"'
    said = lines(listeners.run("config", "set", "FAST_POLLING_INTERVAL", " 60 "))
    undo = f"UPDATE {table} SET param_value = '15' WHERE param_key = 'fast_polling_interval';"
    assert said == ["fast_polling_interval is 60, was 15", f"undo: {undo}"]
    assert lines(listeners.run("config", "get", "fast_polling_interval")) == ["60"]
    database.execute(undo.encode())
    assert lines(listeners.run("config", "get", "fast_polling_interval")) == ["15"]

    said = lines(listeners.run("config", "set", "upload_enabled", "No"))
    undo = f"UPDATE {table} SET param_value = 'true' WHERE param_key = 'upload_enabled';"
    assert said == ["upload_enabled is false, was true", f"undo: {undo}"]
    database.execute(undo.encode())
    assert lines(listeners.run("config", "get", "upload_enabled")) == ["true"]


def test_set_writes_the_keys_own_row_and_knows_the_value_of_another_spelling(
    listeners: Services, database: Database
) -> None:
    database.execute("UPDATE configuration_params SET param_key = 'Upload_Enabled' WHERE param_key = 'upload_enabled'")
    database.execute("UPDATE configuration_params SET param_value = 'off' WHERE param_key = 'Upload_Enabled'")
    done = read_json(listeners.run("config", "set", "upload_enabled", "on", "--json"))
    assert done == {
        "key": "upload_enabled",
        "value": "true",
        "before": "false",
        "undo": "UPDATE \"configuration_params\" SET param_value = 'false' WHERE param_key = 'upload_enabled';",
    }
    assert (value_of(database, "Upload_Enabled"), value_of(database, "upload_enabled")) == ("true", "true")


def test_over_an_open_change_it_says_who_is_in_the_way(listeners: Services, database: Database) -> None:
    with database.connect(autocommit=False, application_name="forgotten") as conn:
        conn.execute("UPDATE configuration_params SET param_value = '9' WHERE param_key = 'max_attempts'")
        [told] = lines(listeners.run("config", "set", "upload_enabled", "no"), FAILED)
    pid = conn.info.backend_pid if not conn.closed else None
    assert "a transaction that has changed the configuration is still open: pid " in told
    assert "forgotten" in told  # and since when, where the role sees that
    assert pid is None or str(pid) in told


def test_mistakes_change_nothing_and_are_named(listeners: Services, database: Database) -> None:
    for arguments, problem in (
        (
            ("set", "fast_polling_interval", "15s"),
            "fast_polling_interval must be a whole number of seconds from 1 to 3600, got '15s'",
        ),
        (
            ("set", "upload_enable", "no"),
            "'upload_enable' is no key of the configuration; did you mean upload_enabled?",
        ),
        (("set", "max_attempts", "-1"), "max_attempts must be a whole number of attempts from 1 to 100, got '-1'"),
        (
            ("set", "invoices_enabled", "no"),
            "'invoices_enabled' is no key of the configuration; `listener config list` shows them all",
        ),
        (("get", "xyz"), "'xyz' is no key of the configuration; `listener config list` shows them all"),
        (("restore", "yesterday"), "'yesterday' is no moment; write it as 2026-11-21T10:00+00:00"),
        (
            ("restore", "2026-11-21T10:00"),
            "'2026-11-21T10:00' has no offset; add it, as in 2026-11-21T10:00+00:00 for UTC",
        ),
    ):
        assert lines(listeners.run("config", *arguments), WRONG_USAGE) == [f"listener: {problem}"]
    [told] = lines(listeners.run("config", "restore", "2999-01-01T00:00Z"), WRONG_USAGE)
    assert told.startswith("listener: cannot restore the configuration of 2999-01-01")
    assert database.execute("SELECT count(*) FROM configuration_history") == [(0,)]


def test_history_and_restore(listeners: Services, database: Database) -> None:
    moment: datetime = database.execute("SELECT clock_timestamp()")[0][0]
    database.execute("UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'fast_polling_enabled'")
    database.execute("UPDATE configuration_params SET param_value = '300' WHERE param_key = 'sync_interval'")
    database.execute("INSERT INTO configuration_params VALUES ('mine', 'x')")

    shown = lines(listeners.run("config", "history", "--limit", "3"))
    assert [line.split("  ")[1] for line in shown] == [
        "mine: (no row) -> x",
        "UNIFIED_SYNC_INTERVAL: 120 -> 300",
        "sync_interval: 120 -> 300",
    ]
    [only] = read_json(listeners.run("config", "history", "FAST_POLLING_enabled", "--json"))
    assert (only["old_value"], only["new_value"], only["action"]) == ("true", "false", "update")

    *said, undo = lines(listeners.run("config", "restore", moment.isoformat()))
    assert said == [
        "UNIFIED_SYNC_INTERVAL: 300 -> 120",
        "fast_polling_enabled: false -> true",
        "mine: x -> (no row)",
        "sync_interval: 300 -> 120",
        f"4 values put back to {moment.isoformat()}",
    ]
    assert (value_of(database, "fast_polling_enabled"), value_of(database, "mine")) == ("true", None)
    [nothing] = lines(listeners.run("config", "restore", moment.isoformat()))
    assert nothing.startswith("nothing to put back: all values are as they were")
    assert undo.startswith("undo: listener config restore ")
    assert len(lines(listeners.run("config", "restore", undo.split()[-1]))) == 6
    assert (value_of(database, "fast_polling_enabled"), value_of(database, "mine")) == ("false", "x")
    assert lines(listeners.run("config", "history", "nobody")) == ["no changes of 'nobody'"]


def test_without_a_database_it_says_so(listeners: Services) -> None:
    [told] = lines(listeners.run("config", "list", DATABASE_URL="postgresql://nobody@127.0.0.1:9/none"), FAILED)
    assert told.startswith("listener: nothing accepts connections at 127.0.0.1:9/none")
