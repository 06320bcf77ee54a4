"""ShipStation is down, throttled, broken or talks nonsense: no order pays, and all are uploaded once it is back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from conftest import Database, Server, fresh_database
from sandbox.server import Client, serving
from waiting import until

from e2e.service import Orders, Service, services

COUNT = 500
# Enough for a loaded machine to upload 100 orders in, little enough to wait for in the tests of silence.
TIMEOUT_S = "3"
# Two processes with two handler calls each.
SLOTS = 4
ACCOUNT = "shipstation …-key"
DEADLINE_S = 90.0


@dataclass
class Shop:
    """Two listeners that live through all tests of this file, their database and their ShipStation."""

    database: Database
    orders: Orders
    api: Client
    listeners: list[Service]
    seen: dict[int, int] = field(default_factory=dict)

    def since_before(self, text: str) -> list[dict[str, Any]]:
        """The log lines of this test, of both processes, by time."""
        found = [
            line
            for number, service in enumerate(self.listeners)
            for line in service.log()[self.seen.get(number, 0) :]
            if text in line["event"]
        ]
        return sorted(found, key=lambda line: str(line["timestamp"]))

    def begin(self) -> None:
        """A new test: forget orders and log lines."""
        self.database.execute("TRUNCATE orders_inbox")
        self.api.control("POST", "reset")
        self.seen = {number: len(service.log()) for number, service in enumerate(self.listeners)}

    def paused(self) -> list[dict[str, Any]]:
        return self.since_before("Connector paused")

    def failures(self) -> int:
        """How often the account was paused in this outage."""
        return int(self.database.execute("SELECT coalesce(max(failures), 0) FROM api_budgets")[0][0])

    def connector(self, service: Service) -> dict[str, Any]:
        status, parts = service.get("/readyz")
        assert status == 200, "restarting the process would mend nothing"
        return dict(parts["connectors"][ACCOUNT])

    def gauge(self, service: Service) -> str:
        _, text = service.get("/metrics")
        [line] = [line for line in text.splitlines() if line.startswith("listener_connector_paused{")]
        return str(line.rpartition(" ")[2])

    def calls(self) -> list[dict[str, Any]]:
        return list(self.api.control("GET", "requests?last=2000")["requests"])

    def rows(self) -> dict[str, tuple[str, int, str | None]]:
        """Number → status, attempts, last_error."""
        found = self.database.execute("SELECT order_number, status, attempts, last_error FROM orders_inbox")
        return {number: (status, attempts, error) for number, status, attempts, error in found}

    def wait_for(self, counts: dict[str, int]) -> None:
        until(
            lambda: self.orders.counts() == counts,
            deadline_s=DEADLINE_S,
            what=f"{counts}; now {self.orders.counts()}; {self.listeners[0].log_text[-3000:]}",
        )


@pytest.fixture(scope="module")
def both(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    # 1 s: a 429 names the end of the window, which is waited for
    with fresh_database(server, template) as database, serving(window_s=1.0, seed=3) as api:
        database.execute(
            "INSERT INTO configuration_params VALUES ('max_attempts', '3')"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
        )
        with services(database.service_url, api, tmp_path_factory.mktemp("outage")) as group:
            listeners = [group.start(SHIPSTATION_TIMEOUT=TIMEOUT_S).wait_ready() for _ in range(2)]
            yield Shop(database, Orders(database), api, listeners)
            assert [service.stop() for service in listeners] == [0, 0]


@pytest.fixture
def shop(both: Shop) -> Iterator[Shop]:
    both.begin()
    yield both
    both.api.control("DELETE", "faults")


@dataclass(frozen=True)
class Outage:
    """A fault of the API as a whole. effect: the orders may have been stored before it.

    calls: of one probe; HTTP 500 needs a second one that tells whose fault it is.
    """

    fault: dict[str, Any]
    reason: str = "outage"
    effect: bool = False
    calls: int = 1


OUTAGES = {
    "503": Outage({"status": 503}),
    "502 with effect": Outage({"status": 502, "effect": True}, effect=True),
    "429": Outage({"status": 429}, "throttled"),
    "401": Outage({"status": 401}, "credentials"),
    "HTML 200": Outage({"html200": True}),
    "cut JSON": Outage({"cut_json": True}, effect=True),
    "JSON without results": Outage({"null_fields": ["results"]}, effect=True),
    "silence": Outage({"hang_s": 600, "effect": False}),
    "silence after the effect": Outage({"hang_s": 600}, effect=True),
    "reset": Outage({"reset_before": True}),
    "reset after the effect": Outage({"reset_after": True}, effect=True),
    "500 for everything": Outage({"status": 500}, calls=2),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_is_charged_to_no_order(shop: Shop, outage: Outage) -> None:
    shop.api.fault(outage.fault)
    shop.orders.insert(COUNT)
    until(lambda: shop.failures() >= 3, deadline_s=DEADLINE_S, what="the pause and two probes that failed")

    for service in shop.listeners:
        state = shop.connector(service)
        assert (state["status"], state["reason"]) == ("paused", outage.reason)
        assert state["detail"]
        assert shop.gauge(service) == "1.0"
    assert "Failed" not in shop.orders.counts()
    assert_one_probe_per_pause(shop, outage)

    shop.api.control("DELETE", "faults")
    shop.wait_for({"Uploaded": COUNT})

    assert set(shop.rows().values()) == {("Uploaded", 1, None)}, "no attempt was counted"
    held = shop.api.held()
    assert len(held) == COUNT
    assert outage.effect or {each["writes"] for each in held.values()} == {1}
    assert shop.api.stats()["overlaps"] == 0
    assert not shop.since_before("Job failed")
    assert not shop.since_before("Job will be retried")
    assert {line["reason"] for line in shop.paused()} == {outage.reason}
    until(lambda: shop.since_before("Connector resumed"), what="the end of the pause in the log")
    for service in shop.listeners:
        assert shop.connector(service)["status"] == "ok"
        assert shop.gauge(service) == "0.0"


def assert_one_probe_per_pause(shop: Shop, outage: Outage) -> None:
    """Between two pauses lies one probe; beside the first one also the calls that were under way when it began."""
    faulty = [call["received_at"] for call in shop.calls() if call["fault"]]
    # read after the calls, and one more: the last probe may not have failed yet
    assert len(faulty) <= (SLOTS + shop.failures()) * outage.calls
    if (
        outage.reason == "credentials"
    ):  # told once: the pauses show in the calls alone, the shortest lasts half a second
        assert all(later - earlier > 0.5 for earlier, later in pairwise(faulty[SLOTS:]))
        return
    for pause, following in pairwise(shop.paused()[1:]):
        start, end = seconds(pause), seconds(following)
        assert sum(start < at < end for at in faulty) <= outage.calls
        assert end - start > pause["for_s"] / 2, "the next pause began by a second probe, not after this one"


def seconds(line: dict[str, Any]) -> float:
    """When the line was logged, in seconds since 1970."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


def test_a_429_without_headers_waits_a_whole_window_unless_an_operator_ends_it(shop: Shop) -> None:
    shop.api.fault({"status": 429, "headers": False})
    shop.orders.insert(COUNT)
    [pause] = until(shop.paused, what="the pause")
    assert pause["reason"] == "throttled"
    assert pause["for_s"] >= 60.0
    shop.api.control("DELETE", "faults")

    shop.database.execute("UPDATE api_budgets SET paused_until = now()")

    shop.wait_for({"Uploaded": COUNT})
    assert set(shop.rows().values()) == {("Uploaded", 1, None)}
    assert {each["writes"] for each in shop.api.held().values()} == {1}
    assert len([call for call in shop.calls() if call["fault"]]) <= SLOTS


def test_one_order_that_breaks_every_call_fails_alone(shop: Shop) -> None:
    shop.api.fault({"poison": ["A-77"]})
    shop.orders.insert(COUNT)

    shop.wait_for({"Uploaded": COUNT - 1, "Failed": 1})

    rows = shop.rows()
    status, attempts, error = rows.pop("A-77")
    assert (status, attempts) == ("Failed", 3)
    assert error is not None
    assert error.startswith("ShipStation answered 500: An error has occurred.")
    assert error.endswith("(gave up after 3 attempts)")
    assert set(rows.values()) == {("Uploaded", 1, None)}
    assert len(shop.api.held()) == COUNT - 1
    assert [shop.connector(service)["status"] for service in shop.listeners] == ["ok", "ok"]

    shop.orders.insert(10, prefix="B")
    shop.wait_for({"Uploaded": COUNT + 9, "Failed": 1})


def test_an_order_that_breaks_its_call_pauses_nobody_when_it_is_alone(shop: Shop) -> None:
    shop.api.fault({"poison": ["A-1"]})
    shop.orders.insert(1)

    shop.wait_for({"Failed": 1})

    assert shop.rows()["A-1"][1] == 3
    assert not shop.paused()


def test_an_order_that_is_refused_with_its_whole_call_fails_alone_in_shipstations_words(shop: Shop) -> None:
    shop.api.fault({"reject_400": ["A-123"], "message": "The request is invalid. Path '[22].items[0].upc'."})
    shop.orders.insert(COUNT)

    shop.wait_for({"Uploaded": COUNT - 1, "Failed": 1})

    rows = shop.rows()
    assert rows.pop("A-123") == (
        "Failed", 1, "ShipStation answered 400: The request is invalid. Path '[22].items[0].upc'.",
    )  # fmt: skip
    assert set(rows.values()) == {("Uploaded", 1, None)}
    assert not shop.paused()


def test_what_shipstation_says_of_single_orders_is_theirs_alone(shop: Shop) -> None:
    """Validation fails one; a passing trouble and a missing result are tried again; the rest is stored."""
    shop.api.fault(
        {"order_error": {"A-7": "'Ship Name' must not be empty."}},
        {"order_error": {"A-8": "Execution Timeout Expired. The timeout period elapsed."}, "count": 1},
        {"drop_result": True, "count": 1},
        {"shuffle": True, "unknown_fields": True},
    )
    shop.orders.insert(COUNT)

    shop.wait_for({"Uploaded": COUNT - 1, "Failed": 1})

    rows = shop.rows()
    assert rows.pop("A-7") == ("Failed", 1, "ShipStation refused the order: 'Ship Name' must not be empty.")
    again = {number for number, row in rows.items() if row == ("Uploaded", 2, None)}
    assert again >= {"A-8"}
    assert len(again) in (1, 2), "the missing result may have been that of A-8"
    assert {row for number, row in rows.items() if number not in again} == {("Uploaded", 1, None)}
    stored = shop.database.execute("SELECT order_key, shipstation_order_id FROM orders_inbox WHERE status = 'Uploaded'")
    held = shop.api.held()
    assert dict(stored) == {key: str(each["orderId"]) for key, each in held.items()}
    assert not shop.paused()
