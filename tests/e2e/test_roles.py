"""The whole way with least privilege: a writer inserts, the service works, as the roles of deploy/roles.sql."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Server
from roles import Roles, roles
from sandbox.server import Client, serving
from waiting import until
from workflows.imports import shop

from e2e.service import PAYLOAD, Service, Services, services

pytestmark = pytest.mark.own_role("makes the four roles itself, under names of its own")

SECRET = "a-long-random-token-0123456789"


@pytest.fixture(scope="module")
def made(server: Server, psql: Path) -> Iterator[Roles]:
    with roles(server, psql, schema="shop") as made:
        made.database.execute("SET search_path = shop")
        yield made


@pytest.fixture(scope="module")
def town(made: Roles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, Client]]:
    with serving() as api, services(made.url("runtime"), api, tmp_path_factory.mktemp("roles")) as group:
        group.environ |= {"LISTENER_SCHEMA": "shop", "LISTENER_QUEUES": "upload,import,sync"}
        group.environ |= {"SHIPSTATION_WEBHOOK_SECRET": SECRET}
        yield group, api


def test_upload_configuration_import_sync_and_http(made: Roles, town: tuple[Services, Client]) -> None:
    group, api = town
    service = group.start().wait_ready()
    with made.connect("writer") as writer:
        writer.execute(
            "INSERT INTO orders_inbox (source, order_number, payload) SELECT 'shop', n::text, %s::jsonb"
            " FROM generate_series(1, 20) AS n",
            [json.dumps(PAYLOAD)],
        )
        until(
            lambda: states(writer) == {"Uploaded": 20}, deadline_s=30, what=f"the uploads; {service.log_text[-2000:]}"
        )
    assert len(api.held()) == 20

    changed = group.run("config", "set", "upload_batch_size", "5")
    assert changed.returncode == 0, changed.stderr
    assert made.database.execute("SELECT changed_by FROM configuration_history ORDER BY id DESC LIMIT 1")[0][
        0
    ].startswith(made.name("runtime"))
    until(lambda: (service.metric("listener_config_version") or 0) > 0, what="the new configuration")

    made.database.execute("INSERT INTO import_files (name, content) VALUES ('a.xml', %s)", [shop.numbered(5)])
    until(lambda: len(api.held()) == 25, deadline_s=30, what=f"the imported orders; {service.log_text[-2000:]}")

    synced = group.run("sync", "shipstation", "--json", LISTENER_QUEUES="sync")
    assert synced.returncode == 0 or "already running" in synced.stderr, synced.stderr
    until(lambda: fulfilled(made) == 25, deadline_s=30, what=f"what sync brings; {service.log_text[-2000:]}")
    assert service.get("/readyz")[0] == 200
    assert {each["queue"] for each in service.get("/api/v1/queues")[1]["data"]} == {"upload", "import", "sync"}
    until(lambda: made.database.execute("SELECT count(*) > 0 FROM polling_metrics")[0][0], what="polling_metrics")
    assert troubles(service) == []


def test_the_commands_beside_it(made: Roles, town: tuple[Services, Client]) -> None:
    """status, import, restore and the doctor, each with the service's own address."""
    group, _ = town
    file = group.folder / "by-hand.xml"
    file.write_text(shop.numbered(2, first=900))
    for arguments in (
        ("status", "--json"),
        ("import", str(file)),
        ("config", "restore", "2026-01-01 00:00+00"),
        ("doctor",),
    ):
        done = group.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)


def test_the_service_stops_and_another_one_starts(town: tuple[Services, Client]) -> None:
    group, _ = town
    assert [each.stop() for each in group.all] == [0]
    again = group.start().wait_ready()
    assert again.stop() == 0
    assert troubles(again) == []


def states(conn: Any) -> dict[str, int]:
    return dict(conn.execute("SELECT status, count(id) FROM orders_inbox GROUP BY status").fetchall())


def fulfilled(made: Roles) -> int:
    return int(made.database.execute("SELECT count(fulfillment_status) FROM orders_inbox")[0][0])


def troubles(service: Service) -> list[Any]:
    return [line for line in service.log() if line.get("level") in ("warning", "error") or "Trouble" in line["event"]]
