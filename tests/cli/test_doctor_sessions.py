"""The doctor on other people's sessions: what they hold back, on a server that is broken for it."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Server, fresh_database, private_server
from e2e.service import clean_environ
from waiting import until

from cli.ward import Ward
from listener.cli.doctor.examination import CHECKS
from listener.db.embedded import Cluster
from listener.db.migrate import migrate


@pytest.fixture
def open_transaction(patient: Ward) -> Iterator[psycopg.Connection[Any]]:
    conn = patient.database.connect(application_name="a report", autocommit=False)
    conn.execute("SELECT count(*) FROM orders_inbox")
    yield conn
    conn.close()


def test_a_transaction_stays_open(patient: Ward, open_transaction: psycopg.Connection[Any]) -> None:
    pid = open_transaction.info.backend_pid
    assert patient.trouble() == {}, "it is young"
    found = patient.only("transactions", long_s=0)
    assert re.search(
        rf"pid {pid} \(postgres, a report\) has a transaction open for \d+ s, idle in transaction", found.seen
    )
    assert "last: SELECT count(*) FROM orders_inbox" in found.seen
    assert "idle_in_transaction_session_timeout" in found.advice
    patient.database.execute(found.advice.partition(", or ")[2].partition(";")[0])
    until(lambda: patient.trouble(long_s=0) == {}, what="the end of the transaction")


def test_our_own_sessions_are_never_to_be_ended(patient: Ward) -> None:
    """The watch waits in one statement for a minute; a process of ours that hangs is restarted, not cut off."""
    with (
        psycopg.connect(patient.url, application_name="order-listener watch") as watch,
        psycopg.connect(patient.url, application_name="order-listener upload-1") as own,
    ):
        pid = own.info.backend_pid
        watch.execute("SELECT 1")
        own.execute("SELECT 1")
        found = patient.only("transactions", long_s=0)
    assert f"pid {pid} ({patient.role}, order-listener upload-1)" in found.seen
    assert "terminate" not in found.advice
    assert "restart a process that hangs" in found.advice


def test_a_transaction_that_is_blocked_names_the_blocker(
    patient: Ward, open_transaction: psycopg.Connection[Any]
) -> None:
    held_by = open_transaction.info.backend_pid
    open_transaction.execute("LOCK TABLE webhook_events IN SHARE MODE")
    with patient.database.connect(application_name="a writer", autocommit=False) as writer:
        pid = writer.info.backend_pid
        waiting = threading.Thread(target=writer.execute, args=["LOCK TABLE webhook_events IN EXCLUSIVE MODE"])
        waiting.start()
        waits = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        until(lambda: patient.database.execute(waits, [pid])[0][0], what="the writer's wait")
        found = patient.trouble(long_s=0)["transactions"]
        open_transaction.rollback()
        waiting.join()
    [blocked] = [each for each in found if f"pid {pid} " in each.seen]
    [blocker] = [each for each in found if f"pid {held_by} " in each.seen]
    assert f"pg_terminate_backend({held_by})" in blocker.advice
    assert blocked.advice == f"it waits for what pid {held_by} has locked: look at that one first"


def test_a_lock_does_not_end_the_examination(patient: Ward, open_transaction: psycopg.Connection[Any]) -> None:
    """Who holds it is what the person wants to know."""
    open_transaction.execute("LOCK TABLE webhook_events IN ACCESS EXCLUSIVE MODE")
    found = patient.trouble(long_s=0)
    assert {each.verdict for each in found["definitions"]} == {"unknown"}
    assert "who holds what" in found["definitions"][0].advice
    [holder] = found["transactions"]
    assert f"pg_terminate_backend({open_transaction.info.backend_pid})" in holder.advice
    assert all("no connection" not in each.seen for findings in found.values() for each in findings)


def test_a_prepared_transaction_was_forgotten(patient: Ward) -> None:
    with patient.database.connect(application_name="", autocommit=False) as conn:
        conn.execute("INSERT INTO orders_inbox (order_number) VALUES ('prepared')")
        conn.execute("PREPARE TRANSACTION 'it''s'")
    found = patient.only("prepared", long_s=0)
    assert 'transaction "it\'s" of postgres was prepared ' in found.seen
    patient.cured_by(found.advice.partition(" or ")[2])


def test_a_listener_sits_in_a_transaction(patient: Ward) -> None:
    with patient.database.connect(application_name="", autocommit=False) as conn:
        conn.execute("LISTEN listener_wake")
        conn.commit()
        conn.execute("SELECT 1")
        conn.execute("LISTEN other")
        found = patient.only("notifications")
        assert f"pid {conn.info.backend_pid} (postgres, no name) LISTENs inside an open transaction" in found.seen
        assert "have it commit after LISTEN" in found.advice


def test_a_replication_slot_is_not_used(patient: Ward) -> None:
    name = f"slot_{patient.database.name}"
    patient.database.execute("SELECT pg_create_physical_replication_slot(%s, true)", [name])
    found = patient.only("horizon")
    assert found.verdict == "warn"
    assert f"replication slot {name} is not in use, keeps " in found.seen
    patient.cured_by(found.advice.partition(", or ")[2])


@pytest.fixture(scope="module")
def bad_server(server_bin_dir: Path) -> Iterator[Cluster]:
    """A server of this module alone: logical replication, no autovacuum, a small queue where it can be small."""
    with private_server(server_bin_dir) as cluster:
        with psycopg.connect(cluster.url(), autocommit=True) as conn:
            is_new = conn.info.server_version >= 170000
            small = {"max_notify_queue_pages": "64"} if is_new else {}
            for key, value in {"wal_level": "logical", "autovacuum": "off", **small}.items():
                conn.execute(f"ALTER SYSTEM SET {key} = {value}")
        cluster.stop()
        cluster.start()
        yield cluster


@pytest.fixture(scope="module")
def other(bad_server: Cluster, patient: Ward) -> Iterator[Ward]:
    server = Server(bad_server.url())
    with fresh_database(server) as database:
        patient.login.install(database.url, "public")
        environ = {"DATABASE_URL": patient.login.url(database.url), "LISTENER_SCHEMA": "public"}
        yield Ward(database, patient.api, patient.environ | environ, patient.login)
    server.close()


def test_autovacuum_is_off(other: Ward) -> None:
    found = other.only("storage")
    assert "autovacuum is off on this server" in found.seen
    other.cured_by(found.advice)


def test_replicated_rows_fire_no_trigger(other: Ward) -> None:
    """None of statements, not even one that is enabled always. With the cure a sleeping listener hears of them."""
    execute = other.database.execute
    with fresh_database(other.database.server) as source:
        migrate(source.url, "public")
        source.execute("CREATE PUBLICATION orders FOR TABLE orders_inbox")
        source.execute("SELECT pg_create_logical_replication_slot('orders', 'pgoutput')")
        execute(
            f"CREATE SUBSCRIPTION orders CONNECTION '{source.url}' PUBLICATION orders"
            " WITH (create_slot = false, copy_data = false)"
        )
        found = other.trouble()
        for statement in found["bypasses"][0].advice.split("; "):
            other.paste(statement)
        cured = other.trouble()
        with other.database.connect() as sleeper:
            sleeper.execute("LISTEN listener_wake")
            sleeper.execute("SELECT pg_advisory_lock(1869374562, 'orders_inbox'::regclass::oid::integer)")
            source.execute("INSERT INTO orders_inbox (order_number) VALUES ('replicated')")
            heard = [each.payload for each in sleeper.notifies(timeout=30, stop_after=1)]
        execute("ALTER SUBSCRIPTION orders DISABLE")
        until(lambda: not source.connections(), what="the end of the subscription's worker")
        execute("ALTER SUBSCRIPTION orders SET (slot_name = NONE)")
        execute("DROP SUBSCRIPTION orders; DROP TRIGGER listener_replicated ON orders_inbox; DELETE FROM orders_inbox")
        source.execute("SELECT pg_drop_replication_slot('orders')")
    assert [each.seen for each in found["bypasses"]] == [
        "subscription orders into orders_inbox: replicated rows fire no ordinary trigger, and wait for the safety poll"
    ]
    assert "bypasses" not in cured
    assert heard == ["orders_inbox"]


def test_a_server_whose_writes_fire_no_trigger(other: Ward, bad_server: Cluster) -> None:
    """Set in postgresql.conf, where ALTER SYSTEM RESET would leave it."""
    file = bad_server.data_dir / "postgresql.conf"
    file.write_text(file.read_text() + "session_replication_role = replica\n")
    other.database.execute("SELECT pg_reload_conf()")
    until(lambda: "bypasses" in other.trouble(), what="the server's new settings")
    (found,) = other.trouble()["bypasses"]
    assert "session_replication_role is replica for the whole server" in found.seen
    for statement in found.advice.removesuffix("; then connect anew").split("; "):
        other.paste(statement)
    until(lambda: "bypasses" not in other.trouble(), what="the end of it")


def test_a_logical_slot_holds_vacuum_back(other: Ward) -> None:
    other.database.execute("SELECT pg_create_logical_replication_slot('forgotten', 'pgoutput')")
    found = other.only("horizon")
    assert "replication slot forgotten is not in use" in found.seen
    assert "holds VACUUM back by" in found.seen
    other.cured_by(found.advice.partition(", or ")[2])


def test_the_queue_of_notifications_fills(other: Ward) -> None:
    """Its size can be set from PostgreSQL 17 on; before, 8 GB would have to be written."""
    if other.database.server.version < 170000:
        pytest.skip("max_notify_queue_pages came with PostgreSQL 17")
    with psycopg.connect(other.database.url) as conn:
        conn.execute("LISTEN something")
        conn.commit()
        conn.execute("SELECT 1")
        for share, verdict in ((15, "warn"), (40, "fail")):
            other.database.execute(
                "SELECT pg_notify('x', repeat('y', 7990) || n) FROM generate_series(1, %s) AS n", [share]
            )
            found = other.only("notifications")
            assert found.verdict == verdict
            assert "of notifications is" in found.seen
            assert "end the oldest `idle in transaction` session" in found.advice


def run(other: Ward, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "listener", "doctor", *arguments],
        env={**clean_environ(), **other.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_prints_a_table_and_ends_with_1(patient: Ward) -> None:
    patient.database.execute("ALTER TABLE sync_runs DISABLE TRIGGER sync_runs_inserted")
    bad, plain = run(patient), run(patient, "--json")
    patient.database.execute("ALTER TABLE sync_runs ENABLE TRIGGER sync_runs_inserted")

    assert (bad.returncode, plain.returncode) == (1, 1)
    lines = bad.stdout.splitlines()
    assert lines[-1].startswith(f"not well: {len(CHECKS) - 2} ok, 1 warnings, 1 failed, 0 could not be made; ")
    at = next(n for n, line in enumerate(lines) if line.startswith("FAIL"))
    assert lines[at].split()[:4] == ["FAIL", "triggers", "trigger", "sync_runs_inserted"]
    assert lines[at + 1].strip() == '→ ALTER TABLE "Shop_1".sync_runs ENABLE TRIGGER sync_runs_inserted'
    told = json.loads(plain.stdout)
    assert told["well"] is False
    assert [each["advice"] for each in told["findings"] if each["verdict"] == "fail"] == [lines[at + 1].strip()[2:]]
    assert told["statements"] > 20


def test_a_terminal_without_arrows_shows_the_table_too(patient: Ward) -> None:
    done = run(patient, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "? start `listener run`" in done.stdout
