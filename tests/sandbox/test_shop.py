"""The shop's sandbox: windows to the minute, pages, credentials, notices of shipments."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from listener.sandbox.clock import Clock
from listener.sandbox.shop import Shop, ShopSettings, build
from sandbox.server import AppServer

NOON = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    app = build(ShopSettings(page_size=2, skips=("virtual",)), clock=Clock(source=NOON.timestamp))
    with AppServer(app) as server:
        yield server


@pytest.fixture
def shop(server: AppServer) -> Shop:
    shop: Shop = server.config.app.state.sandbox  # type: ignore[union-attr]
    shop.orders.clear()
    return shop


@pytest.fixture
def http(server: AppServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=server.url, auth=("shop-user", "shop-password"), trust_env=False, verify=False
    ) as client:
        yield client


def export(http: httpx2.Client, start: str, end: str, page: int = 1) -> tuple[str, list[str]]:
    """Pages, and the numbers of one."""
    query: dict[str, Any] = {"action": "export", "start_date": f"11/20/2026 {start}", "end_date": f"11/20/2026 {end}"}
    text = http.get("/export", params={**query, "page": page}).text
    return re.findall('pages="(.*?)"', text)[0], re.findall("<OrderNumber>(.*?)<", text)


def test_a_window_takes_both_of_its_minutes_whatever_the_status(shop: Shop, http: httpx2.Client) -> None:
    shop.sell("a", ago_s=60, status="cancelled")
    shop.sell("b")
    assert export(http, "11:59", "11:59") == ("1", ["a"])
    assert export(http, "11:59", "12:00") == ("1", ["b", "a"])
    assert export(http, "12:01", "12:02") == ("0", [])


def test_what_is_skipped_counts_for_the_pages(shop: Shop, http: httpx2.Client) -> None:
    for n in range(5):
        shop.sell(f"S-{n}", ago_s=n, status="virtual" if n in (0, 1) else "paid")
    assert [export(http, "11:00", "12:00", page) for page in (1, 2, 3, 4)] == [
        ("3", []),
        ("3", ["S-2", "S-3"]),
        ("3", ["S-4"]),
        ("3", []),
    ]


def test_refusals(http: httpx2.Client) -> None:
    assert http.get("/export", auth=("shop-user", "wrong")).status_code == 401
    assert http.get("/export?action=other").status_code == 400
    assert http.get("/export?action=export&start_date=2026-11-20&end_date=x").status_code == 400
    assert http.put("/sandbox/orders", json={"orders": [{}]}).status_code == 400


def test_notices_of_shipments_are_kept(shop: Shop, http: httpx2.Client) -> None:
    reply = http.post("/export?action=shipnotify&order_number=a&tracking_number=1Z", content=b"<ShipNotice/>")
    assert reply.status_code == 200
    assert http.get("/sandbox/notices").json() == [
        {"action": "shipnotify", "order_number": "a", "tracking_number": "1Z", "body": "<ShipNotice/>"}
    ]
