"""The doctor on rows: configuration that is not in force, work that nobody does, an API that refuses us."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from queues import lease

from cli.ward import SCHEMA, Ward


@contextmanager
def past_the_triggers(patient: Ward, key: str, value: str) -> Iterator[None]:
    """A row as a restored dump would bring it."""
    execute = patient.database.execute
    row = execute("SELECT param_value FROM configuration_params WHERE param_key = %s", [key])
    execute("SET session_replication_role = replica")
    execute(
        "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
        [key, value],
    )
    yield
    execute("DELETE FROM configuration_params WHERE param_key = %s", [key])
    if row:
        execute("INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)", [key, row[0][0]])
    execute("RESET session_replication_role")


@pytest.mark.parametrize(
    ("key", "value", "verdict", "seen", "advice"),
    [
        ("upload_concurrency", "many", "fail", "from 1 to 100, got 'many'; 2 stays in force",
         "listener config set upload_concurrency VALUE"),
        ("uplod_enabled", "false", "warn", "'uplod_enabled' is no key; did you mean upload_enabled?",
         "take the row 'uplod_enabled' away"),
        ("fast_polling_enabled", "false", "warn", "rolled back to a poll every 300 s",
         "listener config set fast_polling_enabled true"),
        ("sync_enabled", "off", "warn", "queue sync claims nothing", "listener config set sync_enabled true"),
    ],
)  # fmt: skip
def test_a_row_is_not_in_force(patient: Ward, key: str, value: str, verdict: str, seen: str, advice: str) -> None:
    with past_the_triggers(patient, key, value):
        found = patient.only("configuration")
    assert found.verdict == verdict
    assert seen in found.seen
    assert advice in found.advice


@pytest.fixture
def inbox(patient: Ward) -> Iterator[Ward]:
    patient.database.execute("SELECT setval(pg_get_serial_sequence('orders_inbox', 'id'), 1000)")
    yield patient
    patient.database.execute("DELETE FROM orders_inbox")


def test_rows_of_a_session_that_is_gone(inbox: Ward) -> None:
    inbox.database.execute(
        "INSERT INTO orders_inbox (id, order_number, status, claim_id, claimed_by, claimed_at)"
        " VALUES (41, '1', 'Processing', 1, 7, now()), (42, '2', 'Processing', 2, 8, now())"
    )
    with lease(inbox.database, 8, schema=SCHEMA):
        found = inbox.only("work")
    assert found.verdict == "fail"
    assert "1 row of upload Processing under a session that is gone (orders_inbox.id = 41)" in found.seen
    assert found.advice == "wait for the next safety poll"
    found = inbox.only("work")
    assert "2 rows" in found.seen
    assert found.advice == "start `listener run`, which frees them at its start"


def test_rows_that_an_older_program_left(inbox: Ward) -> None:
    inbox.database.execute("INSERT INTO orders_inbox (id, order_number, status) VALUES (43, '3', 'Processing')")
    found = inbox.only("work")
    assert "1 row of upload Processing without a claim (orders_inbox.id = 43)" in found.seen
    inbox.cured_by(found.advice.removeprefix("stop that program, then "))
    assert inbox.database.execute("SELECT status FROM orders_inbox") == [("Pending",)]


def test_rows_wait_for_long(inbox: Ward) -> None:
    inbox.database.execute(
        "INSERT INTO orders_inbox (id, order_number, scheduled_at) VALUES"
        " (44, '4', now() - interval '10 minutes'), (45, '5', now() - interval '1 minute'),"
        " (46, '6', now() + interval '1 day')"
    )
    found = inbox.only("work")
    assert "1 row of upload due for more than 300 s (oldest: orders_inbox.id = 44)" in found.seen
    assert found.advice == "start `listener run`"
    assert "2 rows of upload due for more than 30 s" in inbox.only("work", long_s=30).seen
    with lease(inbox.database, 9, schema=SCHEMA):
        assert "is upload in LISTENER_QUEUES" in inbox.only("work").advice


def test_rows_have_failed(inbox: Ward) -> None:
    inbox.database.execute("INSERT INTO orders_inbox (order_number, status) VALUES ('7', 'Failed')")
    found = inbox.only("work")
    assert (found.verdict, found.seen) == ("warn", "1 row of upload Failed")
    assert found.advice == (
        "SELECT id, last_error FROM \"Shop_1\".orders_inbox WHERE status = 'Failed';"
        " then `listener retry upload --failed`"
    )


def test_an_attached_table_is_looked_at_too(patient: Ward) -> None:
    execute, as_owner = patient.database.execute, patient.database.execute_as_owner
    as_owner('CREATE TABLE "Bills 100%" ("no" bigint PRIMARY KEY, "queue status" text)')
    as_owner("SELECT attach_queue('\"Bills 100%\"'::regclass, ready => 'Do %s', done => 'Did')")
    patient.login.grant(patient.database.url, SCHEMA)
    execute("INSERT INTO \"Bills 100%\" (\"no\", status, scheduled_at) VALUES (5, 'Do %s', now() - interval '1 hour')")
    found = patient.only("work")
    assert "1 row of Bills 100% due for more than 300 s (oldest: Bills 100%.no = 5)" in found.seen
    assert found.advice == "start your program that works on it"
    execute("SELECT detach_queue('\"Bills 100%\"'::regclass)")
    execute('DROP TABLE "Bills 100%"')


def test_rows_that_no_claim_finds(patient: Ward) -> None:
    """Of a table that brought its own priority along, which may be null."""
    as_owner = patient.database.execute_as_owner
    as_owner("CREATE TABLE tickets (id int PRIMARY KEY, priority int); SELECT attach_queue('tickets'::regclass)")
    patient.login.grant(patient.database.url, SCHEMA)
    patient.database.execute(
        "INSERT INTO tickets (id, priority, scheduled_at) VALUES (7, NULL, now() - interval '1 day')"
    )
    found = patient.only("work")
    assert found.verdict == "fail"
    assert "1 row of tickets without a priority or scheduled_at, which no claim finds (tickets.id = 7)" in found.seen
    as_owner(found.advice)
    found = patient.only("work")
    assert "1 row of tickets due for more than 300 s" in found.seen
    as_owner("SELECT detach_queue('tickets'::regclass); DROP TABLE tickets")


def test_a_listener_runs(patient: Ward) -> None:
    before = [each for each in patient.examine().findings if each.check == "listeners"]
    assert [(each.verdict, each.advice) for each in before] == [("warn", "start `listener run`, or your own program")]
    with lease(patient.database, 11, schema=SCHEMA):
        during = [each for each in patient.examine().findings if each.check == "listeners"]
    assert [(each.verdict, each.seen) for each in during] == [("ok", "1 live session: 11")]


def test_the_secret_is_wrong_and_nobody_else_is_paused_for_it(patient: Ward) -> None:
    found = patient.only("credentials", SHIPSTATION_API_SECRET="another-secret")
    assert found.verdict == "fail"
    assert "refuses the credentials (401" in found.seen
    assert found.advice == "check SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET"
    assert patient.database.execute("SELECT paused_until FROM api_budgets") == [(None,)]


def test_the_account_is_paused_already(patient: Ward) -> None:
    patient.database.execute(
        "UPDATE api_budgets SET paused_until = now() + interval '50 s', pause_reason = 'throttled',"
        " pause_message = 'too many'"
    )
    found = patient.only("credentials")
    patient.database.execute("UPDATE api_budgets SET paused_until = NULL, pause_reason = NULL, pause_message = NULL")
    assert "is paused for all processes (throttled): too many" in found.seen
    assert "the service probes by itself" in found.advice


def test_credentials_are_missing(patient: Ward) -> None:
    found = patient.only("credentials", SHIPSTATION_API_KEY="", SHIPSTATION_API_SECRET="")
    assert found.seen == "SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET are not set"
    assert "leave both out of LISTENER_QUEUES" in found.advice
    assert patient.trouble(SHIPSTATION_API_KEY="", SHIPSTATION_API_SECRET="", LISTENER_QUEUES="import") == {}


@pytest.fixture
def keyless(inbox: Ward) -> Iterator[dict[str, str]]:
    """Settings without keys, of a program that works on an attached table."""
    inbox.database.execute_as_owner("CREATE TABLE invoices (id int PRIMARY KEY); SELECT attach_queue('invoices')")
    inbox.login.grant(inbox.database.url, SCHEMA)
    yield {"SHIPSTATION_API_KEY": "", "SHIPSTATION_API_SECRET": ""}
    inbox.database.execute("SELECT detach_queue('invoices')")
    inbox.database.execute("DROP TABLE invoices")


def test_a_program_of_attached_queues_needs_no_credentials(inbox: Ward, keyless: dict[str, str]) -> None:
    assert inbox.trouble(**keyless, LISTENER_QUEUES="invoices") == {}
    unsaid = inbox.only("credentials", **keyless)
    assert (unsaid.verdict, unsaid.advice) == ("warn", "name your program's queues in LISTENER_QUEUES, or set both")
    assert "only `listener run` would miss them" in unsaid.seen


def test_who_also_has_orders_needs_credentials(inbox: Ward, keyless: dict[str, str]) -> None:
    assert inbox.only("credentials", **keyless, LISTENER_QUEUES="upload").verdict == "fail"
    inbox.database.execute("INSERT INTO orders_inbox (order_number, status) VALUES ('8', 'Uploaded')")
    assert inbox.only("credentials", **keyless).verdict == "fail"
    switch = "UPDATE configuration_params SET param_value = %s WHERE param_key IN ('upload_enabled', 'sync_enabled')"
    inbox.database.execute(switch, ["false"])
    assert inbox.trouble(**keyless)["credentials"][0].verdict == "warn"
    inbox.database.execute(switch, ["true"])


@pytest.mark.parametrize(
    ("names", "seen", "advice"),
    [
        ("invoces", "'invoces', which is no queue; known: upload, import, sync, invoices", "listener attach invoces"),
        ("invoices,sync", "sync, which is `listener run`'s, and invoices, which is your program's", "of its own"),
    ],
)
def test_queues_that_no_process_takes(inbox: Ward, keyless: dict[str, str], names: str, seen: str, advice: str) -> None:
    found = inbox.only("credentials", **keyless, LISTENER_QUEUES=names)
    assert found.verdict == "fail"
    assert seen in found.seen
    assert advice in found.advice


def test_the_api_is_broken_or_away(patient: Ward) -> None:
    patient.api.fault({"status": 500})
    broken = patient.only("credentials")
    patient.api.fault()
    assert "answers 500 to a plain question" in broken.seen
    away = patient.only("credentials", SHIPSTATION_BASE_URL="http://127.0.0.1:9")
    assert away.verdict == "fail"
    assert "check the network and SHIPSTATION_BASE_URL" in away.advice


def test_the_rate_window_is_used_up(patient: Ward) -> None:
    patient.trouble(SHIPSTATION_RATE_LIMIT="40")
    patient.database.execute("UPDATE api_budgets SET remaining = 0, resets_at = now() + interval '50 s'")
    found = patient.only("credentials", SHIPSTATION_RATE_LIMIT="40")
    patient.database.execute("DELETE FROM api_budgets")
    assert (found.verdict, found.advice) == ("warn", "ask again in a minute")
    assert "no call is left in this rate window" in found.seen


def test_others_use_up_the_rate_window(patient: Ward) -> None:
    """The key is right, and so are network and address."""
    patient.api.fault({"status": 429})
    found = patient.only("credentials")
    patient.api.fault()
    assert found.verdict == "warn"
    assert "answered 429" in found.seen
    assert found.advice.startswith("somebody else uses the same key, or SHIPSTATION_RATE_LIMIT")
