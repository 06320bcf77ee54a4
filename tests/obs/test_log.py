"""The exact lines that people and grep look for."""

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from listener.core import events as e
from listener.obs import log
from listener.obs.log import EventLog, set_level, set_up

Lines = Callable[[], list[dict[str, Any]]]

METRICS_LINE = re.compile(r"METRICS: workflow=upload count=\d+ duration_ms=\d+ action=(process|skip)")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where lines go; afterwards the process's logging is as it was."""
    root, pool = logging.getLogger(), logging.getLogger("psycopg.pool")
    handlers, levels = root.handlers[:], (root.level, pool.level)
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    pool.setLevel(levels[1])
    structlog.reset_defaults()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    set_up(format="json", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def events(lines: Lines) -> EventLog:
    return EventLog({"upload": "orders"}, log.own())


def checked(claimed: int, waiting: int | None) -> e.Checked:
    return e.Checked(queue="upload", claimed=claimed, waiting=waiting, duration_s=0.0124)


def texts(lines: Lines, *, without: str = "METRICS") -> list[str]:
    return [line["event"] for line in lines() if without not in line["event"]]


def test_a_count_is_logged_when_it_changes(events: EventLog, lines: Lines) -> None:
    """5, 5, 0, 0, 5 gives: processing 5, empty, processing 5."""
    for count in (5, 5, 0, 0, 5):
        events.on_event(checked(count, count))
    assert texts(lines) == ["Processing 5 pending orders", "Upload queue empty", "Processing 5 pending orders"]


def test_ten_empty_checks_after_work_are_one_line(events: EventLog, lines: Lines) -> None:
    for count in (3, *[0] * 10):
        events.on_event(checked(count, count))
    assert texts(lines) == ["Processing 3 pending orders", "Upload queue empty"]


def test_a_queue_that_was_never_full_is_not_called_empty(events: EventLog, lines: Lines) -> None:
    for _ in range(3):
        events.on_event(checked(0, 0))
    assert texts(lines) == []


def test_a_check_that_did_not_count_says_nothing_about_the_count(events: EventLog, lines: Lines) -> None:
    for waiting in (200, None, 100):
        events.on_event(checked(100, waiting))
    assert texts(lines) == ["Processing 200 pending orders", "Processing 100 pending orders"]


def test_counts_of_two_queues_do_not_mix(lines: Lines) -> None:
    events = EventLog({"upload": "orders", "import": "files"}, log.own())
    events.on_event(checked(2, 2))
    events.on_event(e.Checked(queue="import", claimed=2, waiting=2, duration_s=0))
    assert texts(lines) == ["Processing 2 pending orders", "Processing 2 pending files"]


def test_a_check_yields_the_metrics_line(events: EventLog, lines: Lines) -> None:
    events.on_event(checked(3, 3))
    assert lines()[0]["event"] == "METRICS: workflow=upload count=3 duration_ms=12 action=process"


def test_an_empty_check_is_a_skip(events: EventLog, lines: Lines) -> None:
    events.on_event(checked(0, 0))
    assert lines()[0]["event"] == "METRICS: workflow=upload count=0 duration_ms=12 action=skip"


def test_no_check_is_missing_from_the_metrics_lines(
    events: EventLog, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load a line stands for the checks of a second; what is held back is written at the end."""
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    for step_s, claimed in ((0.0, 1), (0.2, 0), (0.3, 4), (1.0, 0), (0.1, 2)):
        now[0] += step_s
        events.on_event(checked(claimed, None))
    events.close()
    events.close()
    found = [line for line in lines() if METRICS_LINE.fullmatch(line["event"])]
    assert [(line["event"].split()[2], line["event"].split()[4], line["checks"]) for line in found] == [
        ("count=1", "action=process", 1),
        ("count=4", "action=process", 3),
        ("count=2", "action=process", 1),
    ]


@pytest.mark.parametrize("result", ["completed", "released", "failed", "timeout", "cancelled"])
def test_operations_are_logged_with_the_count_of_active_ones(result: str, events: EventLog, lines: Lines) -> None:
    """The old scripts' words. The lines count themselves: a slot is taken before its operation begins."""
    for operation in ("upload-6", "upload-7"):
        events.on_event(e.OperationStarted(queue="upload", operation=operation, active=2, jobs=[]))
    error = None if result == "completed" else "ShipStation answered 503"
    events.on_event(
        e.OperationEnded(queue="upload", operation="upload-7", active=1, result=result, duration_s=0.25, error=error)
    )
    first, begin, end = lines()
    assert first["event"] == "Operation upload-6 started - Active operations: 1"
    assert begin["event"] == "Operation upload-7 started - Active operations: 2"
    assert end["event"] == f"Operation upload-7 {result} - Active operations: 1"
    assert end["duration_ms"] == 250
    assert end["level"] == ("info" if result == "completed" else "warning")
    assert end.get("error") == error


def test_a_call_is_logged_with_the_vendors_name(events: EventLog, lines: Lines) -> None:
    """Calls an hour = `grep "ShipStation API" | grep -c "2026-11-21 14"`."""
    events.on_event(
        e.ApiCalled(
            connector="shipstation", account="default", method="POST", path="/orders", status="429", duration_s=0.5
        )
    )
    (line,) = lines()
    assert line["event"] == "ShipStation API POST /orders"
    assert (line["status"], line["account"], line["duration_ms"]) == ("429", "default", 500)
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+Z$", line["timestamp"])


@pytest.mark.parametrize(
    ("queue", "fast", "interval_s", "text"),
    [
        ("upload", True, 15.0, "Upload workflow started (fast_polling=True, interval=15s)"),
        ("upload", False, 300.0, "Upload workflow started (fast_polling=False, interval=300s)"),
        ("invoices", True, 2.5, "invoices workflow started (fast_polling=True, interval=2.5s)"),
    ],
)
def test_the_start_line_tells_mode_and_interval(
    queue: str, fast: bool, interval_s: float, text: str, events: EventLog, lines: Lines
) -> None:
    mode = e.QueueMode(queue=queue, is_enabled=True, fast_polling=fast, interval_s=interval_s, is_start=True)
    events.on_event(mode)
    assert texts(lines) == [text]


def test_a_change_of_mode_is_told_in_the_same_words(events: EventLog, lines: Lines) -> None:
    events.on_event(e.QueueMode(queue="upload", is_enabled=False, fast_polling=True, interval_s=60, is_start=False))
    assert texts(lines) == ["Upload workflow changed (fast_polling=True, interval=60s, enabled=False)"]


def test_each_changed_key_has_a_line_of_its_own(events: EventLog, lines: Lines) -> None:
    changes = {"fast_polling_interval": ("15", "300"), "log_level": ("info", "debug")}
    events.on_event(e.ConfigLoaded(version=7, invalid={}, changes=changes))
    assert texts(lines) == [
        "Configuration changed: fast_polling_interval 15 -> 300",
        "Configuration changed: log_level info -> debug",
    ]
    assert {line["version"] for line in lines()} == {7}


def test_a_missing_row_is_told_once(events: EventLog, lines: Lines) -> None:
    for _ in range(2):
        events.on_event(e.ConfigLoaded(version=1, invalid={}, missing={"sync_interval": "300 is in force"}))
    assert [(line["event"], line["level"]) for line in lines()] == [("Configuration row missing", "warning")]


def test_a_bad_configuration_value_is_told_once(events: EventLog, lines: Lines) -> None:
    """It is read again at each safety poll; a new problem, or the same one after it was mended, is told again."""
    for invalid in ({"a": "bad"}, {"a": "bad"}, {"a": "worse"}, {}, {"a": "worse"}):
        events.on_event(e.ConfigLoaded(version=1, invalid=invalid))
    assert [line["problem"] for line in lines()] == ["bad", "worse", "worse"]


EVERY_EVENT: list[e.Event] = [
    e.Woke(queue="upload", reason="notify"),
    e.Settled(queue="upload", outcomes={"complete": 1}, lost=2, duration_s=0.1),
    e.JobFailed(queue="upload", id="7", outcome="fail", attempt=3, error="no such country: \x00 'ÿ' \"x\" \n second"),
    e.JobFailed(queue="upload", id="7", outcome="retry", attempt=1, error="later"),
    e.Rescued(queue="upload", count=4),
    e.SessionOpened(key=1, backend_pid=2, recovered_s=None),
    e.SessionOpened(key=1, backend_pid=2, recovered_s=0.123456),
    e.SessionClosed(reason="gone", retry_s=None),
    e.ConnectorPaused(connector="shipstation", account="…abcd", reason="outage", message="503", for_s=1.23456),
    e.ConnectorResumed(connector="shipstation", account="…abcd"),
    e.Stopping(stage=1, active=2),
    e.Stopping(stage=2, active=1),
    e.Trouble(where="upload claim", error="no connection"),
]


def test_every_line_is_one_json_object_with_time_and_level(events: EventLog, lines: Lines) -> None:
    """A line break or a quote in an error text does not break the log."""
    for event in EVERY_EVENT:
        events.on_event(event)
    assert len(lines()) == len(EVERY_EVENT) - 1, "a wake is told at level debug only"
    for line in lines():
        assert line["event"]
        assert line["level"] in {"info", "warning", "error"}
        assert datetime.fromisoformat(line["timestamp"])


def test_the_console_shows_the_same_words(stream: io.StringIO) -> None:
    """Without colours where nobody can see them."""
    set_up(format="console", stream=stream)
    EventLog({"upload": "orders"}, log.own()).on_event(checked(5, 5))
    text = stream.getvalue()
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d.*Processing 5 pending orders", text)
    assert METRICS_LINE.search(text)
    assert "\x1b" not in text


def test_the_level_may_change_while_loggers_exist(stream: io.StringIO) -> None:
    set_up(format="json", stream=stream)
    logger = structlog.get_logger()
    for level in ("warning", "debug", "error"):
        set_level(level)
        logger.debug(f"debug at {level}")
        logger.warning(f"warning at {level}")
    told = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert told == ["warning at warning", "debug at debug", "warning at debug"]


def test_warnings_of_libraries_are_lines_like_ours(lines: Lines) -> None:
    """uvicorn and others speak through the standard library; half a log in another format would parse nowhere."""
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request %s.", "received")
    logging.getLogger("httpx2").info("too chatty")
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=ValueError("broken"))
    warning, error = lines()
    assert (warning["event"], warning["level"]) == ("Invalid HTTP request received.", "warning")
    assert warning["timestamp"]
    assert error["level"] == "error"
    assert error["exception"].endswith("ValueError: broken")
