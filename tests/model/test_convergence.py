"""Whatever happens, in whatever order, with whatever failures: at the end the inbox says what ShipStation says."""

import random
from typing import Any

import pytest
from sandbox.server import Client, Server
from station import station

from listener.sandbox.shipstation import SandboxSettings
from model.convergence import History, forget

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", [0, 1])
async def test_every_history_ends_with_what_shipstation_says(
    database: Any, request: pytest.FixtureRequest, first: int
) -> None:
    """Half as many histories as --rounds says; --rounds 1000 takes about ten minutes on two cores."""
    with Server(SandboxSettings(limit=None, seed=1, log_size=1)) as server:
        api = Client(server.address)
        async with station(database, api) as shop:
            for seed in range(first, request.config.getoption("--rounds") // 2, 2):
                server.sandbox.reset()
                forget(shop)
                history = History(
                    shop,
                    server.sandbox,
                    random.Random(seed),
                    has_late=seed % 3 == 2,
                    has_skew=seed % 5 == 1,
                    most_calls=(10_000, 12, 10_000, 7)[seed % 4],
                    moves=seed % 7 == 3,
                    is_ahead=seed % 11 == 4,
                )
                try:
                    await history.run()
                except AssertionError as error:
                    raise AssertionError(f"history {seed}: {error}\n" + "\n".join(history.said)) from error
        api.close()
        server.sandbox.close()
