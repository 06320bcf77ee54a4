"""Order files of outside sources, with the service as it runs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox.server import AppServer
from waiting import until
from workflows.imports import shop as xml

from e2e.world import World
from listener.sandbox import drive
from listener.sandbox.shop import Shop, ShopSettings, build


@pytest.fixture
def shop_server() -> Iterator[tuple[AppServer, Shop]]:
    app = build(ShopSettings(page_size=10))
    with AppServer(app) as server:
        yield server, app.state.sandbox
        app.state.sandbox.close()


def test_a_shop_s_orders_are_uploaded_also_when_the_process_dies_over_them(
    town: World, shop_server: tuple[AppServer, Shop]
) -> None:
    """Killed in the middle of its pages: the next process reads them again, and each order is there once."""
    server, shop = shop_server
    for n in range(35):
        shop.sell(f"S-{n}", ago_s=3_600 + 60 * n)
    settings = {
        "LISTENER_QUEUES": "upload,import",
        "IMPORT_SHOP_URL": f"{server.url}/export",
        "IMPORT_SHOP_USER": "shop-user",
        "IMPORT_SHOP_PASSWORD": "shop-password",
        "IMPORT_SHOP_INTERVAL": "1",
        "IMPORT_SHOP_DAYS": "0.5",
    }
    shop.plan.replace([{"count": 2}, {"hang_s": 60}])
    first = town.start(**settings)
    until(lambda: shop.traffic.in_flight, what="a page that does not come")
    first.kill()
    assert town.orders.counts() == {}
    shop.plan.clear()
    second = town.start(**settings)
    town.orders.wait_uploaded(35)
    assert len(town.api.held()) == 35
    shop.sell("S-3", CustomerNotes="changed")
    until(
        lambda: [o for o in town.api.held().values() if o["writes"] == 2],
        deadline_s=20,
        what="the changed order's upload",
    )
    shop.change_password("other")
    paused = until(lambda: second.events("Connector paused"), deadline_s=20, what="the pause")
    assert (paused[0]["connector"], paused[0]["reason"]) == ("shop", "credentials")
    status, body = second.get("/readyz")
    assert "IMPORT_SHOP_USER" in str(body), (status, body)
    assert "shop-password" not in second.log_text


def test_a_file_in_drive_is_uploaded_whatever_happens_to_the_process(town: World, tmp_path: Path) -> None:
    app = drive.build()
    cloud: drive.Cloud = app.state.sandbox
    with AppServer(app) as server:
        (tmp_path / "key.json").write_text(json.dumps(cloud.keys.key_file(server.url)))
        settings = {
            "LISTENER_QUEUES": "upload,import",
            "DRIVE_FOLDER_ID": "orders",
            "DRIVE_SERVICE_ACCOUNT_FILE": str(tmp_path / "key.json"),
            "DRIVE_BASE_URL": server.url,
            "DRIVE_INTERVAL": "1",
        }
        cloud.put("a.xml", xml.numbered(20).encode(), folder="orders")
        cloud.plan.replace({"hang_s": 60, "path": "/drive/v3/files/*"})
        first = town.start(**settings)
        until(lambda: town.database.execute("SELECT id FROM import_files"), what="the row of the file")
        until(lambda: cloud.traffic.in_flight, what="its download")
        first.kill()
        cloud.plan.clear()
        town.start(**settings)
        town.orders.wait_uploaded(20)
        cloud.put("b.xml", xml.numbered(30).encode(), folder="orders")
        town.orders.wait_uploaded(30)
        assert len(town.api.held()) == 30
        assert all(order["writes"] == 1 for order in town.api.held().values())
        cloud.close()
