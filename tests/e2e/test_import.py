"""Files of orders become uploaded orders, with the service as it runs."""

from typing import Any

import pytest
from waiting import until
from workflows.imports import shop

from e2e.service import Service
from e2e.world import World


@pytest.fixture
def service(town: World) -> Service:
    return town.start(LISTENER_QUEUES="all")


def add(town: World, content: str, **columns: Any) -> int:
    """Insert a file; its id."""
    names = ["name", "content", *columns]
    values = ["orders.xml", content, *columns.values()]
    marks = ", ".join(["%s"] * len(values))
    [(id_,)] = town.database.execute(
        f"INSERT INTO import_files ({', '.join(names)}) VALUES ({marks}) RETURNING id", values
    )
    return id_


def settled(town: World, id_: int) -> tuple[Any, ...]:
    """Wait for a file: status, found, inserted, updated, unchanged, ignored, rejected, last_error."""

    def look() -> list[tuple[Any, ...]]:
        return town.database.execute(
            "SELECT status, orders_found, orders_inserted, orders_updated, orders_unchanged, orders_ignored,"
            " orders_rejected, last_error FROM import_files WHERE id = %s AND status IN ('Imported', 'Failed')",
            [id_],
        )

    return until(look, deadline_s=30, what=f"file {id_}")[0]


def test_a_row_becomes_orders_that_upload(town: World, service: Service) -> None:
    """The README's INSERT."""
    id_ = add(town, shop.numbered(50))

    assert settled(town, id_) == ("Imported", 50, 50, 0, 0, 0, 0, None)
    town.orders.wait_uploaded(50)
    assert len(town.api.held()) == 50
    assert service.events("Imported orders.xml")[0]["found"] == 50


def test_the_same_content_is_imported_once(town: World, service: Service) -> None:
    first = add(town, shop.numbered(3))
    settled(town, first)

    again = add(town, shop.numbered(3))

    assert settled(town, again)[:3] == ("Imported", 0, 0)
    [(report,)] = town.database.execute("SELECT report FROM import_files WHERE id = %s", [again])
    assert report == {"copy_of": first, "name": "orders.xml"}


def test_the_switch_of_the_import_stops_the_import_alone(town: World, service: Service) -> None:
    """A rollout in two stages, and one statement back."""
    town.configure(import_enabled=False)
    town.until_heard(service)
    id_ = add(town, shop.numbered(3))
    town.orders.insert(2)
    town.orders.wait_uploaded(2)
    assert town.database.execute("SELECT status FROM import_files") == [("Pending",)]

    town.configure(import_enabled=True)
    assert settled(town, id_)[:2] == ("Imported", 3)
