"""Every change of the configuration is written down, told once, kept equal over its spellings, and can be undone."""

import random
import re
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psycopg
import pytest
from conftest import Database, Server, fresh_database
from psycopg import sql

from listener.config.live import KEYS
from listener.db.migrate import migrate

UPSERT = (
    "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
    " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
)


def rows(database: Database) -> dict[str, str | None]:
    return dict(database.execute("SELECT param_key, param_value FROM configuration_params"))


def history(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT param_key, old_value, new_value, action FROM configuration_history ORDER BY id")


def now(database: Database) -> datetime:
    moment: datetime = database.execute("SELECT clock_timestamp()")[0][0]
    return moment


def restore(database: Database, moment: datetime) -> dict[str, tuple[str | None, str | None]]:
    changes = database.execute("SELECT * FROM config_restore(%s)", [moment])
    return {key: (old, new) for key, old, new in changes}


def test_the_history_tells_what_who_and_when(database: Database) -> None:
    before = now(database)
    with database.connect(application_name="nightly job") as conn:
        conn.execute("UPDATE configuration_params SET param_value = '20' WHERE param_key = 'sync_interval'")
    [first, second] = database.execute(
        "SELECT param_key, old_value, new_value, action, changed_by, changed_at FROM configuration_history ORDER BY id"
    )
    user = database.execute("SELECT session_user")[0][0]
    assert first[:5] == ("sync_interval", "120", "20", "update", f"{user} (nightly job)")
    assert second[:5] == ("UNIFIED_SYNC_INTERVAL", "120", "20", "update", f"{user} (nightly job)")
    assert before < first[5] < now(database)
    [(updated_at, updated_by)] = database.execute(
        "SELECT updated_at, updated_by FROM configuration_params WHERE param_key = 'sync_interval'"
    )
    assert (updated_by, before < updated_at) == (f"{user} (nightly job)", True)


def test_nothing_is_noted_where_nothing_changed(database: Database) -> None:
    database.execute("UPDATE configuration_params SET param_value = param_value, description = 'new'")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        database.execute("UPDATE configuration_params SET param_value = 'x' WHERE param_key = 'sync_interval'")
    assert history(database) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE configuration_params SET param_value = '60' WHERE param_key = 'UNIFIED_SYNC_INTERVAL'", "60"),
        ("UPDATE configuration_params SET param_value = '60' WHERE param_key = 'sync_interval'", "60"),
        ("INSERT INTO configuration_params VALUES ('Sync_Interval', '60')", "60"),
        # both at once, differently: the key's own name counts, whatever the order of the rows
        (
            "UPDATE configuration_params SET param_value = CASE param_key WHEN 'sync_interval' THEN '61' ELSE '62' END"
            " WHERE param_key IN ('sync_interval', 'UNIFIED_SYNC_INTERVAL')",
            "61",
        ),
        ("INSERT INTO configuration_params VALUES ('SYNC_INTERVAL', '63'), ('Unified_sync_interval', '64')", "63"),
    ],
)
def test_all_spellings_of_a_key_have_one_value(statement: str, expected: str, database: Database) -> None:
    database.execute(statement)
    spellings = {k: v for k, v in rows(database).items() if k.lower() in ("sync_interval", "unified_sync_interval")}
    assert len(spellings) >= 2
    assert set(spellings.values()) == {expected}
    replayed = {"sync_interval": "120", "UNIFIED_SYNC_INTERVAL": "120"}
    replayed |= {key: new for key, _, new, _ in history(database)}
    assert replayed == spellings, "the history ends where the table does"


def test_spellings_that_differ_from_before_the_trigger_stay_until_one_is_set(database: Database) -> None:
    database.execute("ALTER TABLE configuration_params DISABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET param_value = '77' WHERE param_key = 'UNIFIED_SYNC_INTERVAL'")
    database.execute("ALTER TABLE configuration_params ENABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET description = 'x'")
    database.execute("UPDATE configuration_params SET param_value = 'off' WHERE param_key = 'fast_polling_enabled'")
    assert (rows(database)["sync_interval"], rows(database)["UNIFIED_SYNC_INTERVAL"]) == ("120", "77")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE configuration_params SET param_value = '60' WHERE param_key LIKE '%%nterval'",
        "INSERT INTO configuration_params VALUES ('Upload_Enabled', 'no'), ('mine', 'x')",
        "DELETE FROM configuration_params",
        "TRUNCATE configuration_params",
    ],
)
def test_every_statement_rings_once(statement: str, database: Database) -> None:
    with database.connect() as conn:
        conn.execute("LISTEN config_changed")
        database.execute(statement)
        heard = [(n.channel, n.payload) for n in conn.notifies(timeout=0.5)]
    assert heard == [("config_changed", "")]


def test_removed_and_emptied_rows_come_back_with_their_description(database: Database) -> None:
    whole = database.execute("SELECT param_key, param_value, description FROM configuration_params ORDER BY 1")
    moment = now(database)
    database.execute("DELETE FROM configuration_params WHERE param_key LIKE 'fast%'")
    database.execute("TRUNCATE configuration_params")
    restore(database, moment)
    assert database.execute("SELECT param_key, param_value, description FROM configuration_params ORDER BY 1") == whole


def test_a_renamed_key_is_one_removed_and_one_added(database: Database) -> None:
    moment = now(database)
    database.execute("UPDATE configuration_params SET param_key = 'old_interval' WHERE param_key = 'sync_interval'")
    assert restore(database, moment) == {"old_interval": ("120", None), "sync_interval": (None, "120")}


def test_a_value_that_is_refused_today_is_left_out_with_a_warning(database: Database) -> None:
    database.execute("ALTER TABLE configuration_params DISABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET param_value = 'bad' WHERE param_key = 'sync_interval'")
    database.execute("ALTER TABLE configuration_params ENABLE TRIGGER USER")
    moment = now(database)
    database.execute("UPDATE configuration_params SET param_value = '50' WHERE param_key = 'sync_interval'")
    database.execute("UPDATE configuration_params SET param_value = 'no' WHERE param_key = 'fast_polling_enabled'")
    warnings: list[str] = []
    with database.connect() as conn:
        conn.add_notice_handler(lambda diag: warnings.append(str(diag.message_primary)))
        conn.execute("SELECT config_restore(%s)", [moment])
    assert warnings == ["sync_interval was 'bad' then, which is refused today; it stays '50'"]
    assert rows(database)["fast_polling_enabled"] == "true"


@pytest.mark.parametrize("moment", ["NULL", "now() + interval '1 hour'", "'infinity'"])
def test_only_the_past_can_be_restored(moment: str, database: Database) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="give a moment of the past"):
        database.execute(f"SELECT config_restore({moment})")


def _change(random_: random.Random, database: Database) -> None:
    """Change something, as anybody might."""
    key = random_.choice(
        [*(key.name for key in KEYS.values()), "FAST_POLLING_INTERVAL", "UNIFIED_SYNC_INTERVAL", "mine"]
    )
    field = key.lower().replace("unified_", "")
    most = (KEYS[field].maximum if field in KEYS else None) or 0
    good = {
        "boolean": ["true", "off", "Yes"],
        "integer": [str(min(number, most)) for number in (10, 50, 100)],
        "choice": ["info", "error"],
    }
    value = random_.choice(good[KEYS[field].kind] if field in KEYS else ["a", "b", None])
    action: Callable[[], Any] = random_.choices(
        [
            lambda: database.execute(UPSERT, [key, value]),
            lambda: database.execute(
                "UPDATE configuration_params SET param_value = '30' WHERE param_key ~* 'interval$'"
            ),
            lambda: database.execute("DELETE FROM configuration_params WHERE param_key = %s", [key]),
            lambda: database.execute("TRUNCATE configuration_params"),
        ],
        weights=[80, 5, 14, 1],
    )[0]
    action()


@pytest.mark.parametrize("seed", range(3))
def test_any_moment_of_a_random_history_can_be_restored_and_the_restore_undone(seed: int, database: Database) -> None:
    random_ = random.Random(seed)
    moments = [(now(database), rows(database))]
    for _ in range(200):
        _change(random_, database)
        moments.append((now(database), rows(database)))
    last = moments[-1]
    for moment, values in [*random_.sample(moments, 40), moments[0]]:
        before = rows(database)
        changes = restore(database, moment)
        assert rows(database) == values
        assert changes.keys() == {key for key in before | values if before.get(key, "-") != values.get(key, "-")}
    restore(database, last[0])
    assert rows(database) == last[1]


def test_twenty_writers_of_both_spellings_never_stand_in_each_others_way(database: Database) -> None:
    """Two spellings are two rows: without turns, writers would lock them in opposite order."""
    failures: list[BaseException] = []

    def write(number: int) -> None:
        random_ = random.Random(number)
        names = ["fast_polling_interval", "FAST_POLLING_INTERVAL", "sync_interval", "UNIFIED_SYNC_INTERVAL"]
        try:
            with psycopg.connect(database.url, application_name="listener tests") as conn:
                for _ in range(15):
                    for name in random_.sample(names, 2):  # several statements in one transaction
                        conn.execute(UPSERT, [name, str(random_.randint(10, 3600))])
                    conn.commit()
        except psycopg.Error as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=[number]) for number in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert failures == []
    values = rows(database)
    assert values["fast_polling_interval"] == values["FAST_POLLING_INTERVAL"]
    assert values["sync_interval"] == values["UNIFIED_SYNC_INTERVAL"]
    last = {key: new for key, _, new, _ in history(database)}
    assert last.items() <= values.items(), "the history is in the order of commit"


@pytest.mark.parametrize("privileges", ["INSERT", "SELECT, INSERT, UPDATE, DELETE, TRUNCATE"])
def test_a_writer_needs_no_right_to_the_history(privileges: str, database: Database) -> None:
    role = sql.Identifier(f"{database.name}_{len(privileges)}")
    database.server.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        database.execute(sql.SQL(f"GRANT {privileges} ON configuration_params TO {{}}").format(role))
        with database.connect() as conn:
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            # a temporary table of the writer's own is not taken for ours
            conn.execute("CREATE TEMP TABLE configuration_history (not_ours text)")
            conn.execute("INSERT INTO configuration_params VALUES ('Sync_Interval', '99')")
            if privileges != "INSERT":
                conn.execute("UPDATE configuration_params SET param_value = '98' WHERE param_key = 'sync_interval'")
                conn.execute("TRUNCATE configuration_params")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("INSERT INTO public.configuration_history (param_key) VALUES ('forged')")
        noted = {key for key, *_ in history(database)}
        assert {"Sync_Interval", "sync_interval", "UNIFIED_SYNC_INTERVAL"} <= noted
    finally:
        database.execute(sql.SQL("DROP OWNED BY {}").format(role))
        database.server.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.mark.parametrize("kind", ["integer", "varchar(5)", "date", "boolean"])
def test_an_adopted_column_that_means_something_else_stops_nobody(kind: str, database: Database) -> None:
    database.execute("ALTER TABLE configuration_params DROP COLUMN updated_by")
    database.execute(f"ALTER TABLE configuration_params ADD COLUMN updated_by {kind}")
    database.execute("UPDATE configuration_params SET param_value = '20' WHERE param_key = 'sync_interval'")
    [(who,)] = database.execute("SELECT DISTINCT changed_by FROM configuration_history")
    assert "listener tests" in who


def test_every_key_has_a_row_so_that_an_update_finds_it(database: Database) -> None:
    """An UPDATE of a row that is not there would do nothing, without a word, and it may be the emergency stop."""
    present = rows(database)
    for key in KEYS.values():
        assert present[key.name] == key.default
    [(count,)] = database.execute("SELECT count(*) FROM configuration_params WHERE description IS NULL")
    assert count == 0


def test_rows_of_another_spelling_get_no_second_one(server: Server) -> None:
    with fresh_database(server) as database:
        database.execute("CREATE TABLE configuration_params (param_key text PRIMARY KEY, param_value text)")
        database.execute("INSERT INTO configuration_params VALUES ('Upload_Enabled', 'off')")
        migrate(database.url, "public")
        assert rows(database)["Upload_Enabled"] == "off"
        assert "upload_enabled" not in rows(database)


def test_config_set_takes_any_spelling_of_a_key_and_no_other_key(database: Database) -> None:
    assert database.execute("SELECT * FROM config_set('Unified_Sync_Interval', '60')") == [
        ("sync_interval", True, "120")
    ]
    assert rows(database)["UNIFIED_SYNC_INTERVAL"] == "60"
    database.execute("DELETE FROM configuration_params WHERE param_key = 'upload_enabled'")
    assert database.execute("SELECT * FROM config_set('upload_enabled', 'no')") == [("upload_enabled", False, None)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="'upload_enabld' is no key of the configuration"):
        database.execute("SELECT config_set('upload_enabld', 'no')")


def test_a_function_that_waits_for_its_turn_says_for_whom(database: Database) -> None:
    with database.connect(autocommit=False, application_name="forgotten") as conn:
        conn.execute("UPDATE configuration_params SET param_value = '9' WHERE param_key = 'max_attempts'")
        with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
            database.execute("SELECT config_set('upload_enabled', 'no')")
        pid = conn.info.backend_pid
    told = str(refused.value.diag.message_primary)
    assert re.search(rf" is still open: pid {pid}, user \w+, forgotten, since \d{{4}}-\d\d-\d\d [\d:.]+\S+$", told)
    assert f"pg_terminate_backend({pid})" in str(refused.value.diag.message_hint)
    [(limit,)] = database.execute("SELECT current_setting('lock_timeout')")
    assert limit == "0"


def test_rows_without_a_key_and_large_values_of_others_are_let_alone(database: Database) -> None:
    database.execute("ALTER TABLE configuration_params DROP CONSTRAINT configuration_params_pkey")
    database.execute("ALTER TABLE configuration_params ALTER COLUMN param_key DROP NOT NULL")
    database.execute("INSERT INTO configuration_params VALUES (NULL, 'x'), ('theirs', repeat('y', 1000000))")
    database.execute("UPDATE configuration_params SET param_value = 'z' WHERE param_key IS NULL")
    database.execute("TRUNCATE configuration_params")
    assert {key for key, *_ in history(database)} >= {"theirs", "upload_enabled"}
