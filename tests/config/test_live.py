"""Live configuration: tables of good and bad values, and what stays in force."""

import re
from collections.abc import Sequence
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.config.live import KEYS, LiveConfig, field_of, read_live_config

DEFAULTS = {
    "fast_polling_enabled": True,
    "enable_fast_upload_polling": True,
    "enable_fast_xml_polling": True,
    "doorbell_enabled": True,
    "fast_polling_interval": 15,
    "sync_interval": 120,
    "upload_enabled": True,
    "import_enabled": True,
    "sync_enabled": True,
    "upload_batch_size": 100,
    "upload_concurrency": 2,
    "import_concurrency": 2,
    "sync_concurrency": 4,
    "upload_priority": 1,
    "import_priority": 4,
    "sync_priority": 1,
    "sync_calls_per_cycle": 60,
    "max_attempts": 10,
    "operation_timeout": 300,
    "max_concurrent_operations": 15,
    "log_level": "info",
    "polling_metrics_enabled": True,
    "retention_days": 30,
}
RANGES = {
    "fast_polling_interval": (1, 3_600),
    "sync_interval": (10, 86_400),
    "upload_batch_size": (1, 100),
    "upload_concurrency": (1, 100),
    "import_concurrency": (1, 100),
    "sync_concurrency": (1, 100),
    "upload_priority": (1, 9),
    "import_priority": (1, 9),
    "sync_priority": (1, 9),
    "sync_calls_per_cycle": (10, 100_000),
    "max_attempts": (1, 100),
    "operation_timeout": (1, 86_400),
    "max_concurrent_operations": (1, 1_000),
    "retention_days": (1, 3_650),
}


Row = tuple[str, str | None]


def read_beside_seeds(rows: Sequence[Row], previous: LiveConfig | None = None) -> tuple[LiveConfig, dict[str, str]]:
    """Read rows together with those that the migration writes for the keys that they do not name."""
    named = {field_of(key) for key, _ in rows}
    seeds = [(key.name, key.default) for field, key in KEYS.items() if field not in named]
    reading = read_live_config([*seeds, *rows], previous)
    assert reading.missing == {}
    return reading.config, dict(reading.invalid)


def read(*rows: Row) -> LiveConfig:
    config, invalid = read_beside_seeds(rows)
    assert invalid == {}
    return config


def test_the_seeded_rows_mean_the_defaults() -> None:
    assert read().model_dump() == DEFAULTS
    assert list(KEYS) == list(DEFAULTS)


def test_every_key_describes_itself() -> None:
    for field, key in KEYS.items():
        assert key.name.lower() == field
        assert key.description
        assert key.parse(key.default) == DEFAULTS[field]
        if key.kind == "integer":
            assert (key.minimum, key.maximum) == RANGES[field]
            assert key.unit
    assert KEYS["log_level"].choices == get_args(LiveConfig.model_fields["log_level"].annotation)
    assert KEYS["enable_fast_xml_polling"].name == "ENABLE_FAST_XML_POLLING"


@pytest.mark.parametrize("word", ["true", "1", "yes", "on", "TRUE", " On ", "Yes", "\ttrue\n"])
def test_words_for_true(word: str) -> None:
    assert KEYS["sync_enabled"].parse(word) is True


@pytest.mark.parametrize("word", ["false", "0", "no", "off", "FALSE", " Off ", "No"])
def test_words_for_false(word: str) -> None:
    assert read(("sync_enabled", word)).sync_enabled is False


@pytest.mark.parametrize("bad", ["", "2", "ja", "t", "truefalse", "None", "\uff11"])
def test_other_words_are_no_booleans(bad: str) -> None:
    config, invalid = read_beside_seeds([("sync_enabled", bad)])
    assert config == LiveConfig()
    assert invalid == {
        "sync_enabled": f"sync_enabled must be true, 1, yes or on, or false, 0, no or off, got {bad!r}; "
        "true stays in force"
    }


@pytest.mark.parametrize(("field", "bounds"), RANGES.items())
def test_whole_numbers_have_bounds(field: str, bounds: tuple[int, int]) -> None:
    low, high = bounds
    for number in bounds:
        assert getattr(read((field, f" {number:05} ")), field) == number
    for bad in (
        str(low - 1),
        str(high + 1),
        "-5",
        "+5",
        "15.0",
        "1e2",
        "1_0",
        "",
        "fast",
        "\u0665",
        "9" * 5_000,
        "15 s",
    ):
        config, invalid = read_beside_seeds([(field, bad)])
        assert config == LiveConfig()
        (sentence,) = invalid.values()
        assert re.match(rf"{field} must be a whole number of [a-z ]+ from {low} to {high}, got '", sentence)
        assert sentence.endswith(f", got {bad[:80]!r}; {DEFAULTS[field]} stays in force")


def test_log_levels() -> None:
    assert read(("log_level", " WARNING ")).log_level == "warning"
    _, invalid = read_beside_seeds([("log_level", "warn")])
    assert invalid == {
        "log_level": "log_level must be one of debug, info, warning, error, got 'warn'; info stays in force"
    }


def test_a_bad_value_leaves_the_previous_one_in_force() -> None:
    before = read(("fast_polling_interval", "60"), ("sync_enabled", "no"))
    config, invalid = read_beside_seeds([("fast_polling_interval", "soon"), ("sync_enabled", None)], before)
    assert (config.fast_polling_interval, config.sync_enabled) == (60, False)
    assert invalid["fast_polling_interval"] == (
        "fast_polling_interval must be a whole number of seconds from 1 to 3600, got 'soon'; 60 stays in force"
    )
    assert re.match("sync_enabled must be true, .*, got NULL; false stays", invalid["sync_enabled"])


def test_without_its_row_an_interval_is_slow_and_everything_else_has_its_default() -> None:
    """N6: a lost row must not make us poll faster than the cron jobs did; R181: fast polling itself stays on."""
    before = read(("fast_polling_interval", "60"), ("upload_concurrency", "7"))
    reading = read_live_config([], before)
    assert reading.config == LiveConfig(fast_polling_interval=300, sync_interval=300)
    assert reading.invalid == {}
    assert set(reading.missing) == {key.name for key in KEYS.values()}
    assert reading.missing["fast_polling_enabled"] == "fast_polling_enabled has no row; true is in force"
    assert reading.missing["sync_interval"] == "sync_interval has no row; 300 is in force"


def test_another_spelling_of_a_key_is_its_row() -> None:
    rows = [(key.name, key.default) for key in KEYS.values() if key.name != "sync_interval"]
    assert read_live_config([*rows, ("Unified_Sync_Interval", "60")], None).missing == {}


def test_a_workflow_that_is_off_looks_at_its_switch_every_minute() -> None:
    config = read(("upload_enabled", "no"), ("fast_polling_enabled", "no"))
    assert not config.is_enabled("upload")
    assert config.poll_interval_s("upload") == 60.0
    assert config.is_enabled("import")
    assert config.is_enabled("invoices"), "a queue without a switch"
    assert config.is_enabled("fast_polling"), "a table of that name has no switch either"


def test_unknown_keys_belong_to_someone_else() -> None:
    assert read(("invoice_printer", "on fire"), ("", None), ("shopify_interval", "x")) == LiveConfig()


def test_a_key_that_is_nearly_ours_is_reported() -> None:
    rows = [("upload_enable", "no"), ("FAST_POLING_INTERVAL", "1"), ("invoice_printer", "x"), ("interval", "5")]
    assert read_live_config(rows, None).unknown == {
        "upload_enable": "'upload_enable' is no key; did you mean upload_enabled?",
        "FAST_POLING_INTERVAL": "'FAST_POLING_INTERVAL' is no key; did you mean fast_polling_interval?",
    }


def test_keys_in_any_case_and_by_their_older_names() -> None:
    config = read(
        ("FAST_POLLING_INTERVAL", "30"),
        ("UNIFIED_SYNC_INTERVAL", "300"),
        ("enable_fast_upload_polling", "off"),
        (" Upload_Enabled ", "no"),
    )
    assert (config.fast_polling_interval, config.sync_interval) == (30, 300)
    assert (config.enable_fast_upload_polling, config.upload_enabled) == (False, False)


@pytest.mark.parametrize("backwards", [False, True])
def test_of_two_rows_for_one_key_its_own_name_counts(backwards: bool) -> None:
    rows = [
        ("FAST_POLLING_INTERVAL", "30"),
        ("fast_polling_interval", "20"),
        ("sync_interval", "60"),
        ("UNIFIED_SYNC_INTERVAL", "300"),
        ("ENABLE_FAST_XML_POLLING", "off"),
        ("enable_fast_xml_polling", "on"),
    ]
    config = read(*(rows[::-1] if backwards else rows))
    assert (config.fast_polling_interval, config.sync_interval, config.enable_fast_xml_polling) == (20, 60, False)


def test_an_invalid_older_name_is_reported_under_the_keys_own() -> None:
    _, invalid = read_beside_seeds([("UNIFIED_SYNC_INTERVAL", "5")])
    assert list(invalid) == ["sync_interval"]


@pytest.mark.parametrize(
    ("rows", "intervals"),
    [
        ([], {"upload": 15, "import": 15, "sync": 15, "invoices": 15}),
        ([("fast_polling_interval", "7")], {"upload": 7, "import": 7, "sync": 7, "invoices": 7}),
        ([("fast_polling_enabled", "false")], {"upload": 300, "import": 300, "sync": 300, "invoices": 300}),
        ([("ENABLE_FAST_UPLOAD_POLLING", "false")], {"upload": 300, "import": 15, "sync": 15, "invoices": 15}),
        ([("ENABLE_FAST_XML_POLLING", "false")], {"upload": 15, "import": 300, "sync": 15, "invoices": 15}),
    ],
)
def test_the_rollback_switches(rows: list[tuple[str, str]], intervals: dict[str, int]) -> None:
    config = read(*rows)
    for queue, interval in intervals.items():
        assert config.poll_interval_s(queue) == float(interval)
        assert config.notifications_enabled(queue) is (interval != 300)


def test_the_rollback_statements_of_both_older_plans() -> None:
    newer = read(("fast_polling_enabled", "false"), ("fast_polling_interval", "300"), ("sync_interval", "300"))
    older = read(
        ("ENABLE_FAST_UPLOAD_POLLING", "false"),
        ("ENABLE_FAST_XML_POLLING", "false"),
        ("UNIFIED_SYNC_INTERVAL", "300"),
        ("FAST_POLLING_INTERVAL", "300"),
    )
    for config in (newer, older):
        assert [config.poll_interval_s(queue) for queue in ("upload", "import")] == [300.0, 300.0]
        assert not config.notifications_enabled("upload")
        assert config.sync_interval == 300


def test_a_configuration_cannot_be_changed_or_hold_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="frozen"):
        LiveConfig().sync_interval = 5  # type: ignore[misc]
    with pytest.raises(ValueError, match="Extra inputs"):
        LiveConfig(typo=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="greater than or equal to 10"):
        LiveConfig(sync_interval=1)


NAMES = st.sampled_from([*KEYS, *(key.name for key in KEYS.values()), "UNIFIED_SYNC_INTERVAL"]) | st.text(max_size=8)
VALUES = st.none() | st.text(max_size=8) | st.integers().map(str) | st.sampled_from(["true", "off", "info"])


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_any_table_gives_a_configuration(rows: list[tuple[str, str | None]]) -> None:
    reading = read_live_config(rows, None)
    assert LiveConfig.model_validate(reading.config.model_dump()) == reading.config
    assert set(reading.invalid) <= {key.name for key in KEYS.values()}
