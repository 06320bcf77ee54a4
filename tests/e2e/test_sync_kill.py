"""kill -9 in the middle of syncs: no watermark is ever ahead of what is stored, and the next process goes on."""

import random
import time
from typing import Any

import pytest
from sandbox.server import order
from waiting import until

from e2e.world import World

COUNT = 60


@pytest.mark.timeout(600)
def test_a_killed_sync_never_says_more_than_it_has_stored(town: World, request: pytest.FixtureRequest) -> None:
    """A fifth as many kills as --rounds says."""
    numbers = [str(number) for number in range(COUNT)]
    town.configure(sync_interval=86_400)
    town.database.execute(
        "INSERT INTO orders_inbox (source, order_number, payload, status)"
        " SELECT 'shop', n, '{}', 'Uploaded' FROM unnest(%s::text[]) AS n",
        [numbers],
    )
    town.api.create(*map(order, numbers))
    rng, edited = random.Random(11), dict.fromkeys(numbers, 0.0)
    service = town.start(LISTENER_QUEUES="sync")
    for _ in range(max(request.config.getoption("--rounds") // 5, 1)):
        until(lambda: not open_runs(town), what=f"the end of {open_runs(town)}", deadline_s=30)
        for number in rng.sample(numbers, 20):
            status = rng.choice(("on_hold", "awaiting_shipment", "cancelled", "awaiting_payment"))
            town.api.control("POST", "edit", {"orderNumber": number, "set": {"orderStatus": status}})
            edited[number] = time.time()
        town.api.fault({"latency_s": 0.02, "method": "GET"})
        town.database.execute(  # a new service may have put one there by its schedule
            "INSERT INTO sync_runs (account, params) VALUES ('…-key', '{\"batch_size\": 3}')"
            " ON CONFLICT (connector, account) WHERE status = 'Pending' DO UPDATE SET params = excluded.params"
        )
        goal = rng.randrange(0, COUNT)
        until(lambda at=goal: read_so_far(town) >= at or not open_runs(town), what="progress", deadline_s=30)
        service.kill()
        check(town, edited)
        town.api.control("DELETE", "faults")
        service = town.start(LISTENER_QUEUES="sync")

    until(lambda: not open_runs(town), what=f"the end of {open_runs(town)}", deadline_s=30)
    check(town, edited, is_end=True)
    assert service.stop() == 0


def open_runs(town: World) -> list[Any]:
    return town.database.execute("SELECT id, status, stats FROM sync_runs WHERE status IN ('Pending', 'Processing')")


def read_so_far(town: World) -> int:
    rows = town.database.execute("SELECT (stats ->> 'read')::int FROM sync_runs ORDER BY id DESC LIMIT 1")
    return int(rows[0][0] or 0)


def check(town: World, edited: dict[str, float], *, is_end: bool = False) -> None:
    """What changed before the watermark is stored; at the end, everything is."""
    marks = town.database.execute(
        "SELECT extract(epoch FROM watermark)::float8 FROM polling_state WHERE workflow = 'shipstation orders'"
    )
    mark = (marks[0][0] if marks else None) or 0.0
    truth = {held["orderNumber"]: held["orderStatus"] for held in town.api.control("GET", "orders")}
    stored = dict(town.database.execute("SELECT order_number, fulfillment_status FROM orders_inbox"))
    ahead = {n: (stored[n], truth[n]) for n, at in edited.items() if (at < mark or is_end) and stored[n] != truth[n]}
    assert ahead == {}
