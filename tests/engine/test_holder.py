"""The holder of the live configuration: what was read last is in force, in the order of reading."""

import anyio
import pytest
from conftest import Database
from queues import open_pool

from listener.core.events import Event
from listener.db.configuration import Rows, read_configuration
from listener.engine.configuration import Configuration

pytestmark = pytest.mark.anyio

UPDATE = "UPDATE configuration_params SET param_value = %s WHERE param_key = 'fast_polling_interval'"


async def test_an_older_answer_does_not_replace_a_newer_one(database: Database) -> None:
    """The first reading's answer comes late; the second one waits for it."""
    database.execute(UPDATE, ["20"])
    has_read, arrives = anyio.Event(), anyio.Event()
    async with open_pool(database, max_size=3) as pool, anyio.create_task_group() as group:

        async def read() -> Rows:
            rows = await read_configuration(pool)
            if not has_read.is_set():
                has_read.set()
                await arrives.wait()
            return rows

        holder = Configuration(read, ignore)
        group.start_soon(holder.reload)
        await has_read.wait()
        database.execute(UPDATE, ["30"])
        group.start_soon(holder.reload)
        for _ in range(20):  # time enough for a reading that waits for nobody
            await read_configuration(pool)
        arrives.set()
    assert holder.live.fast_polling_interval == 30


def ignore(_event: Event) -> None:
    pass
