"""A process for syncs alone holds three connections at most: its session, the watch, and one of its pool."""

import json
import urllib.request
from collections import Counter

from sandbox.server import order
from waiting import until

from e2e.service import Service
from e2e.world import World

MOST = 3
SECRET = "a-long-random-token-0123456789"
COUNT = 40


def test_a_sync_process_holds_three_connections_at_most(town: World) -> None:
    """While pages are stored, webhooks come, somebody looks, and another replica stands by."""
    numbers = [str(number) for number in range(COUNT)]
    town.configure(sync_interval=86_400)
    town.api.create(*map(order, numbers))
    environ = {"LISTENER_QUEUES": "sync", "LISTENER_POOL_MAX": "1", "SHIPSTATION_WEBHOOK_SECRET": SECRET}
    both = [town.start(**environ) for _ in range(2)]
    until(lambda: not open_runs(town), what="the first run")
    town.api.fault({"latency_s": 0.02, "method": "GET"})
    town.database.execute(
        "INSERT INTO sync_runs (account, params) VALUES ('…-key', '{\"batch_size\": 2, \"lookback_minutes\": 600}')"
    )
    seen: Counter[int] = Counter()

    def is_over() -> bool:
        seen[len(town.database.connections())] += 1
        for number, service in enumerate(both):
            service.get("/api/v1/sync/monitor/status")
            service.get("/api/v1/queues")
            notify(town, service, f"/orders?orderNumber={number}&importBatch={len(seen)}")
        return stored(town) == COUNT and not open_runs(town)

    until(is_over, what=f"{COUNT} orders", deadline_s=60)

    assert max(seen) <= MOST * len(both), seen
    assert max(seen) >= 4, "sessions and pools are there"
    assert [service.metric("listener_pool_connections_max") for service in both] == [1, 1]
    town.api.control("DELETE", "faults")
    assert [service.stop() for service in both] == [0, 0]


def open_runs(town: World) -> list[tuple[int, ...]]:
    return town.database.execute("SELECT id FROM sync_runs WHERE status IN ('Pending', 'Processing')")


def stored(town: World) -> int:
    return int(town.database.execute("SELECT count(*) FROM shipstation_orders")[0][0])


def notify(town: World, service: Service, path: str) -> None:
    host, port = town.api.address
    body = {"resource_url": f"http://{host}:{port}{path}", "resource_type": "ORDER_NOTIFY"}
    url = f"{service.address}/webhooks/shipstation/{SECRET}"
    with urllib.request.urlopen(urllib.request.Request(url, data=json.dumps(body).encode()), timeout=15) as reply:
        assert reply.status == 200
