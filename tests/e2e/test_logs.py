"""The log of real processes: what grep finds in it, and what holds a connection now."""

import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from waiting import until

from e2e.exposition import Exposition
from e2e.service import Service
from e2e.world import World, world

OPERATION = re.compile(
    r"Operation (\S+) (started|completed|released|failed|timeout|cancelled) - Active operations: (\d+)"
)
METRICS = re.compile(r"METRICS: workflow=upload count=(\d+) duration_ms=(\d+) action=(process|skip)")
#: The query that operators are given.
ACTIVITY = """SELECT pid, application_name, state, query_start, left(query, 50) FROM pg_stat_activity
WHERE datname = current_database() ORDER BY query_start"""


@pytest.fixture(scope="module")
def town(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(server, template, tmp_path_factory.mktemp("logs")) as town:
        yield town


@pytest.fixture(scope="module")
def stopped(town: World) -> Service:
    """A process that uploaded 5 orders, polled in vain for a while, uploaded 5 more, and was stopped."""
    town.configure(fast_polling_interval=1)
    service = town.start()
    for wave in (1, 2):
        town.orders.insert(5, prefix=f"wave{wave}")
        town.orders.wait_uploaded(5 * wave)
        until(lambda n=wave: len(service.events("queue empty")) == n, deadline_s=30, what="the empty queue's line")
        seen = len(service.events("action=skip"))
        until(lambda n=seen: len(service.events("action=skip")) >= n + 1, deadline_s=30, what="one more empty check")
    assert service.stop() == 0
    return service


def grep(service: Service, *patterns: str) -> int:
    """Lines that contain all patterns, as grep counts them."""
    lines = service.log_text.encode()
    for pattern in patterns:
        lines = subprocess.run(["grep", pattern], input=lines, stdout=subprocess.PIPE).stdout
    return len(lines.splitlines())


def test_the_count_is_logged_when_it_changes_and_only_then(stopped: Service) -> None:
    told = [line["event"] for line in stopped.log() if re.match(r"Processing \d|.* queue empty", line["event"])]
    assert told == ["Processing 5 pending orders", "Upload queue empty"] * 2


def test_every_line_is_json_with_time_and_level(stopped: Service) -> None:
    text = stopped.log_text
    assert text.endswith("\n")
    assert len(stopped.log()) == len(text.splitlines()), "a line is no JSON object"
    for line in stopped.log():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])
        assert line["level"] in {"info", "warning", "error"}
        assert line["event"]


def test_start_tells_mode_and_interval(stopped: Service) -> None:
    """What a person checks after a rollback."""
    assert grep(stopped, "interval=") == 1
    assert stopped.events("Upload workflow started (fast_polling=True, interval=1s)")


def test_pool_is_announced_and_its_end_too(stopped: Service) -> None:
    assert len(stopped.events("Connection pool initialized (min=1, max=4)")) == 1
    assert stopped.log()[-1]["event"] == "Connection pool closed"


def test_each_call_to_shipstation_is_one_line(stopped: Service, town: World) -> None:
    """The count that grep gives is the count that ShipStation saw, hour by hour."""
    seen = town.api.stats()["total"]
    assert grep(stopped, "ShipStation API") == seen == 2
    hours = Counter(line["timestamp"][:13] for line in stopped.events("ShipStation API"))
    assert sum(grep(stopped, "ShipStation API", hour) for hour in hours) == seen


def test_checks_yield_their_metrics_line(stopped: Service) -> None:
    """Their counts add up to the rows claimed."""
    lines = stopped.events("METRICS:")
    found = [METRICS.fullmatch(line["event"]) for line in lines]
    assert all(found)
    assert grep(stopped, "METRICS: workflow=upload") == len(lines)
    assert sum(int(match[1]) for match in found) == 10
    assert {match[3] for match in found} == {"process", "skip"}
    assert all((int(match[1]) > 0) == (match[3] == "process") for match in found)


def followed(service: Service) -> Counter[str]:
    """Follow the lines: each says how many operations run, itself included. Returns how often each word was used."""
    running: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for line in service.events("Operation "):
        match = OPERATION.fullmatch(line["event"])
        assert match, line["event"]
        name, word, active = match[1], match[2], int(match[3])
        words[word] += 1
        running[name] += 1 if word == "started" else -1
        assert running[name] >= 0, f"{name} ended before it started"
        assert active == running.total(), f"{line['event']}, but {running.total()} run"
    assert running.total() == 0
    return words


def test_operations_start_and_end_in_the_log(stopped: Service) -> None:
    assert followed(stopped) == {"started": 2, "completed": 2}


def test_active_operations_do_not_drift_when_operations_fail(town: World) -> None:
    """Several at once, some refused by the API, some cut off with their session: the count still ends at zero."""
    town.configure(upload_batch_size=1, upload_concurrency=4, fast_polling_interval=1)
    town.api.fault({"latency_s": 0.02}, {"status": 503, "count": 2})
    service = town.start()
    town.orders.insert(12, prefix="refused")
    town.orders.wait_uploaded(22, deadline_s=90)
    town.api.fault({"latency_s": 2})
    town.orders.insert(4, prefix="cut")
    town.api.until_in_flight(4)
    town.database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'order-listener session %'"
    )
    until(lambda: len(service.events("Session opened")) == 2, deadline_s=30, what="the next session")
    town.api.fault()
    town.orders.wait_uploaded(26, deadline_s=90)
    assert service.stop() == 0
    words = followed(service)
    assert words["cancelled"] == 4
    assert words["completed"] == 16
    assert words["started"] == words["completed"] + words["released"] + words["cancelled"]


def test_rollback_and_its_interval_are_found_by_grep(town: World) -> None:
    """`UPDATE configuration_params …` and the log tells the interval that is now in force."""
    town.configure(fast_polling_interval=1)
    service = town.start()
    town.configure(fast_polling_enabled=False)
    until(lambda: len(service.events("interval=")) == 2, deadline_s=30, what="the new interval's line")
    town.configure(fast_polling_enabled=True)
    until(lambda: len(service.events("interval=")) == 3, deadline_s=30, what="the old interval's line")
    assert service.stop() == 0
    assert [line["event"] for line in service.events("interval=")] == [
        "Upload workflow started (fast_polling=True, interval=1s)",
        "Upload workflow changed (fast_polling=False, interval=300s)",
        "Upload workflow changed (fast_polling=True, interval=1s)",
    ]
    changes = [line["event"] for line in service.events("Configuration changed")]
    assert changes == [f"Configuration changed: fast_polling_enabled {x}" for x in ("true -> false", "false -> true")]


def test_log_level_obeys_the_configuration_of_now(town: World) -> None:
    """No restart: raised, the routine lines end; lowered, they come back, with the change."""
    town.configure(fast_polling_interval=1, log_level="info")
    service = town.start()
    town.configure(log_level="error")
    wait_for_polls(service, 2)
    quiet = service.log_text
    wait_for_polls(service, 2)
    assert service.log_text == quiet
    town.configure(log_level="info")
    until(lambda: len(service.log_text) > len(quiet), deadline_s=30, what="routine lines")
    assert service.events("Configuration changed: log_level error -> info")
    assert service.stop() == 0


def wait_for_polls(service: Service, count: int) -> None:
    """Wait until the queue was looked at so often again."""

    def looks() -> float:
        return Exposition(service.get("/metrics")[1]).value("listener_checks_total", queue="upload", action="skip")

    start = looks()
    until(lambda: looks() >= start + count, deadline_s=30, what=f"{count} safety polls")


def test_a_console_log_says_the_same(town: World) -> None:
    service = town.listeners.start(LISTENER_LOG_FORMAT="console")
    until(lambda: "Session opened" in service.log_text, deadline_s=30, what="the session")
    assert service.stop() == 0
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* .*Connection pool initialized", service.log_text)
    assert re.search(r"Upload workflow started \(fast_polling=\w+, interval=\d+s\)", service.log_text)
    assert not service.log(), "a console line is no JSON"
    assert "\x1b" not in service.log_text


def test_garbage_on_the_http_port_does_not_spoil_the_log(town: World) -> None:
    """The web server's own complaint is a line like ours."""
    service = town.start()
    parts = urlsplit(service.address)
    with socket.create_connection((parts.hostname, parts.port)) as peer:
        peer.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert peer.recv(100)
    until(lambda: service.events("Invalid HTTP request"), deadline_s=30, what="the complaint")
    assert service.stop() == 0
    assert len(service.log()) == len(service.log_text.splitlines())


@pytest.mark.parametrize(("statement", "is_claim"), [("upload claim", True), ("upload settle", False)])
def test_operators_see_what_holds_a_connection(statement: str, is_claim: bool, town: World) -> None:
    """While a statement waits for a lock, pg_stat_activity names what it belongs to."""
    service = town.start()
    with town.database.connect(autocommit=False) as locker:
        if not is_claim:
            town.api.fault({"latency_s": 1})
            town.orders.insert(1, prefix="held")
            town.api.until_in_flight(1)
        locker.execute("LOCK TABLE orders_inbox IN SHARE MODE")  # readers pass, writers wait
        town.database.execute("SELECT pg_notify('listener_wake', 'orders_inbox')")
        names = until(
            lambda: [
                row
                for row in town.database.execute(ACTIVITY)
                if row[4].startswith(f"/* order-listener {statement} */") and row[2] == "active"
            ],
            deadline_s=30,
            what=f"{statement} in pg_stat_activity",
        )
        assert [name[1] for name in names] == ["order-listener upload"]
        locker.rollback()
    if not is_claim:
        held = "SELECT status FROM orders_inbox WHERE order_number = 'held-1'"
        until(lambda: town.database.execute(held) == [("Uploaded",)], deadline_s=30, what="the upload")
    names = {row[1] for row in town.database.execute(ACTIVITY)}
    assert any(re.fullmatch(r"order-listener session \d+", name) for name in names), names
    assert service.stop() == 0
