"""kill -9 at random moments: nothing lost, nothing twice, the dead one's rows free at once."""

import random
from typing import Any

import pytest
from sandbox.server import Client
from waiting import until

from e2e.service import Orders, Services

COUNT = 1_000
KILLS = 10


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_killed_processes_lose_nothing_and_upload_nothing_twice(
    replicas: int, listeners: Services, orders: Orders, api: Client, database: Any
) -> None:
    api.fault({"latency_s": 0.05})
    # small batches and one wave of orders a kill, so that there is always work to be killed in
    database.execute(
        "INSERT INTO configuration_params VALUES ('upload_batch_size', '10')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    running = [listeners.start().wait_ready() for _ in range(replicas)]
    rng = random.Random(7)
    for kill in range(KILLS):
        before = orders.counts().get("Uploaded", 0)
        orders.insert(COUNT // KILLS, prefix=f"W{kill}")
        goal = before + rng.randrange(1, COUNT // KILLS // 2)
        until(lambda at=goal: orders.counts().get("Uploaded", 0) >= at, what="progress")
        victim = rng.randrange(replicas)
        running[victim].kill()
        running[victim] = listeners.start().wait_ready()
        # ready = rescued: no row is held by a session that is gone
        assert not stranded(database)
    orders.wait_uploaded(COUNT)

    held = api.held()
    assert len(held) == COUNT
    stats = api.stats()
    assert stats["overlaps"] == 0, "an order was in two requests at once"
    for service in running:
        assert service.stop() == 0


def stranded(database: Any) -> list[Any]:
    return database.execute(
        "SELECT id, claimed_by FROM orders_inbox WHERE status = 'Processing' AND claimed_by NOT IN"
        " (SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted)"
    )
