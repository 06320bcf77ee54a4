"""Rows of a living session are given back by their own queue's timeout."""

import pytest
from conftest import Database
from queues import SESSION, insert, lease, open_pool, read

from listener.core.events import Event, Rescued
from listener.db.queue import QueueTable
from listener.engine.rescuer import Rescuer
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("timeout_s", "status"), [(10, "Pending"), (300, "Processing")])
async def test_a_claim_is_stale_by_the_timeout_of_its_queue(database: Database, timeout_s: float, status: str) -> None:
    events: list[Event] = []
    [key] = insert(database)
    with lease(database):
        async with open_pool(database) as pool:
            table = QueueTable(pool, UPLOAD)
            await table.claim(limit=1, session_key=SESSION)
            database.execute("UPDATE orders_inbox SET claimed_at = now() - interval '100 s'")
            rescuer = Rescuer(events.append)
            rescuer.add(table, lambda: timeout_s)
            assert await rescuer.run_once() == (status == "Pending")
    assert read(database, key)["status"] == status
    assert events == ([Rescued(queue="upload", count=1)] if status == "Pending" else [])
