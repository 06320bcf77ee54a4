"""What configuration_params takes: the database and the service agree on every value."""

import json
from collections.abc import Iterator

import psycopg
import pytest
from conftest import Database, Server, fresh_database
from docs.generate import RULES, rules
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.config.live import ALIASES, KEYS, field_of

BOOLEAN, NUMBER, LONG, CHOICE = "upload_enabled", "fast_polling_interval", "sync_interval", "log_level"
#: Key, value, and whether it is taken.
VALUES: list[tuple[str, str | None, bool]] = [
    *[(BOOLEAN, word, True) for word in ("true", "1", "yes", "on", "false", "0", "no", "off")],
    *[
        (BOOLEAN, word, True)
        for word in ("TRUE", "False", "YES", "nO", "On", "OFF", " true", "off ", "\tyes\n", "\v1\f\r")
    ],
    *[
        (BOOLEAN, word, False)
        for word in ("", " ", "ture", "flase", "t", "f", "y", "n", "2", "-1", "00", "01", "true false")
    ],
    *[(BOOLEAN, word, False) for word in ("'true'", '"true"', "enabled", "null", "None", "да", "true;", "t\u200brue")],
    # blanks and letters that only Unicode counts as such: no-break space, em space, NEL, file separator, full width
    *[
        (BOOLEAN, word, False)
        for word in ("\u00a0true", "\u2003on", "\u0085yes", "\x1con", "\uff54\uff52\uff55\uff45", "\uff11")
    ],
    (BOOLEAN, None, False),
    *[(NUMBER, word, True) for word in ("1", "15", "3600", " 15 ", "0015", "0000000001", "15\n")],
    *[
        (NUMBER, word, False)
        for word in ("0", "3601", "-1", "+5", "15s", "15 s", "15.0", "1e2", "0x10", "1_0", "1,000", "")
    ],
    *[
        (NUMBER, word, False)
        for word in (" ", "fast", "NaN", "infinity", "true", "00000000015", "4294967296", "9" * 40, "1 5")
    ],
    # digits that are digits in Unicode only: Arabic-Indic, Devanagari, full width, superscript
    *[(NUMBER, word, False) for word in ("\u0665", "\u0967\u096b", "\uff11\uff15", "\u00b2")],
    (NUMBER, None, False),
    *[(LONG, word, True) for word in ("10", "86400")],
    *[(LONG, word, False) for word in ("9", "86401", "2 minutes", "00:02:00")],
    *[(CHOICE, word, True) for word in ("debug", "info", "warning", "error", "ERROR", " Info ")],
    # dotless i and Kelvin sign: their lower and upper case leave ASCII, or come from elsewhere
    *[
        (CHOICE, word, False)
        for word in ("", "warn", "critical", "10", "inf\u00f6", "\u0130nfo", "\u0131nfo", "debug,info")
    ],
    (CHOICE, None, False),
]


@pytest.fixture(scope="module")
def shared(server: Server, template: str) -> Iterator[Database]:
    """One database for all values: a refused one leaves nothing, an accepted one is no other's business."""
    with fresh_database(server, template) as database:
        yield database


def is_taken(database: Database, key: str, value: str | None) -> bool:
    """Write a row, and tell whether the database let us."""
    try:
        database.execute(
            "INSERT INTO configuration_params (param_key, param_value) VALUES (%s, %s)"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
            [key, value],
        )
    except psycopg.errors.InvalidParameterValue:
        return False
    return True


def is_read(key: str, value: str | None) -> bool:
    """Tell whether the service takes the value."""
    try:
        KEYS[field_of(key)].parse(value or "")
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("key", "value", "expected"), VALUES, ids=[json.dumps(v[:2])[:40] for v in VALUES])
def test_the_database_and_the_service_take_the_same_values(
    key: str, value: str | None, expected: bool, shared: Database
) -> None:
    is_there = is_taken(shared, key, value)
    assert (is_there, is_read(key, value)) == (expected, expected)
    if is_there:
        assert shared.execute("SELECT param_value FROM configuration_params WHERE param_key = %s", [key]) == [(value,)]


def test_the_table_of_values_is_long_enough() -> None:
    assert len(VALUES) >= 60


NEAR = st.sampled_from([str(value) for _, value, _ in VALUES])
#: Everything that a text of Postgres can hold.
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=12)
EDITED = st.tuples(TEXT, NEAR, TEXT).map(lambda parts: parts[0][:1] + parts[1] + parts[2][:1])


@settings(deadline=None, max_examples=600)
@given(
    key=st.sampled_from([*KEYS, *(key.name for key in KEYS.values()), *ALIASES]),
    value=st.none() | NEAR | EDITED | TEXT | st.integers(-10, 100_000).map(str),
)
def test_for_any_text_the_trigger_accepts_exactly_what_the_model_accepts(
    shared: Database, key: str, value: str | None
) -> None:
    assert is_taken(shared, key, value) == is_read(key, value), (key, value)


@settings(deadline=None, max_examples=300)
@given(key=TEXT | st.sampled_from([name.title() for name in KEYS]) | EDITED)
def test_for_any_key_the_database_and_the_service_agree_whether_it_is_ours(shared: Database, key: str) -> None:
    [(rule,)] = shared.execute("SELECT listener_configuration_rule(%s) ->> 'field'", [key])
    assert rule == (field_of(key) if field_of(key) in KEYS else None)


def test_the_rules_in_the_database_are_those_of_the_model() -> None:
    assert RULES.read_text() == rules(), "run `python tests/docs/generate.py`"


@pytest.mark.parametrize(
    ("key", "value", "message", "suggestion"),
    [
        (NUMBER, "15s", "a whole number of seconds from 1 to 3600, got '15s'", "15"),
        (NUMBER, "99999", "a whole number of seconds from 1 to 3600, got '99999'", "3600"),
        (NUMBER, "-4", "a whole number of seconds from 1 to 3600, got '-4'", "1"),
        (NUMBER, "soon", "a whole number of seconds from 1 to 3600, got 'soon'", "15"),
        (NUMBER, None, "a whole number of seconds from 1 to 3600, got NULL", "15"),
        (NUMBER, "9" * 100, f"a whole number of seconds from 1 to 3600, got '{'9' * 80}'", "3600"),
        (BOOLEAN, "flase", "true, 1, yes or on, or false, 0, no or off, got 'flase'", "false"),
        (BOOLEAN, "ture", "true, 1, yes or on, or false, 0, no or off, got 'ture'", "true"),
        (BOOLEAN, "it's", "true, 1, yes or on, or false, 0, no or off, got 'it''s'", "true"),
        (CHOICE, "warn", "one of debug, info, warning, error, got 'warn'", "warning"),
        ("UNIFIED_SYNC_INTERVAL", "1", "a whole number of seconds from 10 to 86400, got '1'", "10"),
    ],
)
def test_a_refusal_says_what_is_allowed_and_what_to_write(
    shared: Database, key: str, value: str | None, message: str, suggestion: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue) as refused:
        shared.execute(
            "INSERT INTO configuration_params VALUES (%s, %s) ON CONFLICT (param_key) DO UPDATE"
            " SET param_value = excluded.param_value",
            [key, value],
        )
    assert refused.value.diag.message_primary == f"{key} must be {message}"
    hint = str(refused.value.diag.message_hint)
    assert hint == f"UPDATE configuration_params SET param_value = '{suggestion}' WHERE param_key = '{key}'"
    shared.execute(hint.encode())  # may be pasted


def test_keys_of_others_take_anything(database: Database) -> None:
    for key, value in (("invoice_printer", "on fire"), ("", None), ("upload_enable", "maybe")):
        assert is_taken(database, key, value)


def test_a_row_that_is_left_out_is_not_refused(database: Database) -> None:
    """The older scripts' INSERT … ON CONFLICT DO NOTHING runs whatever its value."""
    database.execute(
        "INSERT INTO configuration_params VALUES ('sync_interval', 'x') ON CONFLICT (param_key) DO NOTHING"
    )


def test_a_bad_value_that_is_there_does_not_stop_a_change_of_its_description(database: Database) -> None:
    database.execute("ALTER TABLE configuration_params DISABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET param_value = 'x' WHERE param_key = 'sync_interval'")
    database.execute("ALTER TABLE configuration_params ENABLE TRIGGER USER")
    database.execute("UPDATE configuration_params SET description = 'mine', param_value = param_value")
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        database.execute("UPDATE configuration_params SET param_value = 'y' WHERE param_key = 'sync_interval'")
