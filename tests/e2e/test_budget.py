"""One limit for all processes: it is used up, and not exceeded, whoever else calls and whenever windows begin."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from conftest import Database, Server, fresh_database
from sandbox.server import Client, serving
from waiting import until

from e2e.service import Orders, services
from listener.sandbox.limits import Limiter, Verdict

LIMIT = 40
# Of each window, one to two seconds go to the header's whole seconds and the margin that covers them.
WINDOW_S = 4.0
PROCESSES = 3
# Each process may have two calls under way, of which it cannot know whether they still fit.
UNDER_WAY = PROCESSES * 2
DEADLINE_S = 120.0


@dataclass
class Shop:
    """A ShipStation with a short rate window, and processes that share the key."""

    database: Database
    orders: Orders
    api: Client
    window_s: float

    def begin_window(self) -> None:
        """ShipStation's window begins now."""
        self.api.control("PUT", "limits", {"limit": LIMIT, "window_s": self.window_s})

    def wait_for_our_window(self) -> None:
        """Wait until the window of the first looks has run out, so that ours begins with the first order."""
        until(
            lambda: self.database.execute("SELECT bool_and(resets_at < now()) FROM api_budgets")[0][0],
            what="the end of our window",
        )

    def windows(self) -> list[dict[str, Any]]:
        return list(self.api.stats()["windows"])

    def finish(self, count: int) -> None:
        """Wait until all is uploaded, once each, at no order's cost."""
        self.orders.wait_uploaded(count, deadline_s=DEADLINE_S)
        assert self.database.execute("SELECT DISTINCT attempts, last_error FROM orders_inbox") == [(1, None)]
        held = self.api.held()
        assert len(held) == count
        assert {each["writes"] for each in held.values()} == {1}

    def show(self, title: str) -> None:
        """Print the figures; pytest shows them with -s, or when the test fails."""
        stats = self.api.stats()
        calls = [(window["calls"], window["refused"]) for window in stats["windows"]]
        batches = stats["batches"]
        size = batches["orders"] / max(batches["count"], 1)
        figures = f"calls and refused per window {calls}, 429: {stats['throttled']}, average batch {size:.1f}"
        print(f"\n{title}: {figures}")  # noqa: T201


@contextmanager
def running(server: Server, template: str, folder: Path, *, batch_size: int, window_s: float) -> Iterator[Shop]:
    """Start the processes; stop them afterwards."""
    environ = {"SHIPSTATION_RATE_LIMIT": str(LIMIT), "SHIPSTATION_RATE_WINDOW": str(window_s)}
    sandbox = serving(limit=LIMIT, window_s=window_s, seed=5)
    with fresh_database(server, template) as database, sandbox as api:
        database.execute(
            "INSERT INTO configuration_params VALUES ('upload_batch_size', %s)"
            " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value",
            [str(batch_size)],
        )
        with services(database.service_url, api, folder) as listeners:
            for _ in range(PROCESSES):
                listeners.start(**environ)
            for service in listeners.all:
                service.wait_ready()
            yield Shop(database, Orders(database), api, window_s)
            assert [service.stop() for service in listeners.all] == [0] * PROCESSES


@pytest.fixture(scope="module")
def many_calls(server: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with running(server, template, tmp_path_factory.mktemp("budget"), batch_size=4, window_s=WINDOW_S) as shop:
        yield shop


@pytest.fixture
def shop(many_calls: Shop) -> Shop:
    """Small batches, so that the calls are many; nothing is left of the test before."""
    many_calls.database.execute("TRUNCATE orders_inbox")
    many_calls.api.control("POST", "reset")
    many_calls.wait_for_our_window()
    return many_calls


def test_five_thousand_orders_in_full_batches_never_exceed_the_limit(
    server: Server, template: str, tmp_path: Path
) -> None:
    # 8 s: 4,000 orders in what is left of it, also on a loaded machine
    with running(server, template, tmp_path, batch_size=100, window_s=8.0) as shop:
        shop.wait_for_our_window()
        shop.begin_window()
        shop.orders.insert(5_000)
        shop.finish(5_000)
        shop.show("5,000 orders")
        stats = shop.api.stats()

    assert stats["throttled"] == 0
    assert stats["batches"]["orders"] / stats["batches"]["count"] >= 95
    assert stats["batches"]["count"] <= 53


def test_each_full_window_is_used_up(shop: Shop) -> None:
    """The last window is not a full one."""
    shop.begin_window()
    shop.orders.insert(4 * LIMIT * 4)
    shop.finish(4 * LIMIT * 4)

    shop.show("small batches")
    calls = [window["calls"] for window in shop.windows()]
    assert shop.api.stats()["throttled"] == 0
    assert len(calls) >= 4
    assert min(calls[:-1]) >= 0.95 * LIMIT
    assert max(calls) <= LIMIT


def test_a_program_that_uses_the_same_key_is_left_its_calls(shop: Shop) -> None:
    """Our own count is too high then; what the replies say corrects it."""
    foreign = Foreign(shop.api)
    shop.begin_window()
    with foreign:
        shop.orders.insert(4 * LIMIT * 2)
        shop.finish(4 * LIMIT * 2)

    shop.show(f"foreign program with {foreign.calls} calls")
    calls = shop.api.control("GET", "requests?last=2000")["requests"]
    refused = [call for call in calls if call["status"] == 429 and call["method"] == "POST"]
    assert foreign.calls > 0
    assert len(refused) <= UNDER_WAY * len(shop.windows())


def test_windows_that_begin_at_other_moments_than_ours(shop: Shop) -> None:
    shop.begin_window()
    shop.orders.insert(4 * LIMIT * 2)
    for part in (0.2, 0.6):
        until(lambda at=part: done(shop) >= 4 * LIMIT * 2 * at, deadline_s=DEADLINE_S, what="progress")
        shop.begin_window()
    shop.finish(4 * LIMIT * 2)

    shop.show("shifted windows, the last")
    assert shop.api.stats()["throttled"] <= UNDER_WAY * 3


@pytest.mark.parametrize(
    ("rounded", "clock_s"), [(math.floor, -600.0), (lambda left_s: math.ceil(left_s) + 1, 600.0)], ids=["down", "up"]
)
def test_a_rounded_reset_and_a_wrong_clock_cost_no_call(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, rounded: Callable[[float], int], clock_s: float
) -> None:
    whole = Limiter.take

    def take(limiter: Limiter, account: str) -> Verdict:
        verdict = whole(limiter, account)
        left_s = limiter.window_s - (limiter._clock.ticks() - limiter._origin) % limiter.window_s
        return replace(verdict, reset_s=rounded(left_s))

    monkeypatch.setattr(Limiter, "take", take)
    shop.api.control("PUT", "clock", {"offset_s": clock_s})
    # our window is open already when ShipStation's begins, and would end before it
    ends = f"now() + interval '{WINDOW_S - 0.8} s'"
    shop.database.execute(f"UPDATE api_budgets SET resets_at = {ends}, remaining = call_limit")
    shop.begin_window()
    shop.orders.insert(4 * LIMIT + 60)
    shop.finish(4 * LIMIT + 60)

    shop.show(f"rounded reset, clock {clock_s:+g} s")
    assert shop.api.stats()["throttled"] == 0


class Foreign:
    """Somebody else's program with our key: about ten calls in each window."""

    def __init__(self, api: Client) -> None:
        self.calls = 0
        self._api = Client(api.address)
        self._stopped = Event()
        self._thread = Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.wait(WINDOW_S / 10):
            self._api.http.get("/stores")
            self.calls += 1

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._stopped.set()
        self._thread.join(10)
        self._api.close()


def done(shop: Shop) -> int:
    return shop.orders.counts().get("Uploaded", 0)
