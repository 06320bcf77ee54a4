"""The baseline: a bare psycopg loop on the library's own table. No retry, no fence, no lease, no timeout, no metrics:
the floor under everything that an engine adds.

    python -m bench.engines.raw URL MODE STAMPS QUEUE

Two connections claim 500 rows at a time by ctid, the second one only while the first has its hands full; one completes
in batches, one listens. It keeps the doorbell on, so that every INSERT notifies, as a plain trigger would; in the mode
`poll` it looks every 10 ms instead. Rows that a former worker left are taken back at the start, so it is for one worker
only.
"""

import asyncio
import sys
from typing import Any

import psycopg

from bench.engines import table
from bench.engines.base import Engine, Stamps

MOST = 500
CLAIM = f"""
UPDATE orders SET status = 'Processing'
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM orders WHERE status = 'Pending' AND scheduled_at <= now()
    ORDER BY status, priority, scheduled_at, id LIMIT {MOST} FOR UPDATE SKIP LOCKED))
RETURNING id, customer, email, amount, currency, payload, created_at
"""
COMPLETE = "UPDATE orders SET status = 'Done', finished_at = now() WHERE id = ANY (%s)"
RESCUE = "UPDATE orders SET status = 'Pending' WHERE status = 'Processing'"
# What the library's trigger asks: is somebody asleep.
BELL = "SELECT pg_advisory_lock(1869374562, 'orders'::regclass::oid::integer)"
CLAIMERS = 2

ENGINE = Engine(
    name="raw",
    module="bench.engines.raw",
    install=table.install,
    insert=table.INSERT,
    fill=table.FILL,
    unfinished=table.UNFINISHED,
    begun=table.BEGUN,
)


class Worker:
    """Claims, runs, completes, for ever."""

    def __init__(self, url: str, mode: str, stamps: Stamps) -> None:
        self._url, self._mode, self._stamps = url, mode, stamps
        self._wakes = [asyncio.Event() for _ in range(CLAIMERS)]
        self._done: list[int] = []
        self._has_done = asyncio.Event()
        self._slots = asyncio.Semaphore(100)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until killed."""
        conn = await self._connect()
        await conn.execute(RESCUE)
        async with asyncio.TaskGroup() as group:
            for wake in self._wakes:
                group.create_task(self._claim(wake))
            group.create_task(self._complete())
            group.create_task(self._listen(conn))

    async def _connect(self) -> psycopg.AsyncConnection:
        # the claim's plan may not depend on what autovacuum last saw
        return await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, prepare_threshold=0, options="-c enable_seqscan=off"
        )

    async def _listen(self, conn: psycopg.AsyncConnection) -> None:
        wake = self._wakes[0]
        while self._mode == "poll":
            wake.set()
            await asyncio.sleep(0.01)
        await conn.execute("LISTEN listener_wake")
        await conn.execute(BELL)
        wake.set()
        async for _ in conn.notifies():
            wake.set()

    async def _claim(self, wake: asyncio.Event) -> None:
        conn = await self._connect()
        while True:
            await wake.wait()
            wake.clear()
            while rows := await (await conn.execute(CLAIM)).fetchall():
                if len(rows) == MOST:
                    self._wakes[1].set()
                await self._handle(rows)

    async def _handle(self, rows: list[Any]) -> None:
        if self._mode in ("noop", "poll"):
            self._complete_later([row[0] for row in rows])
            return
        for row in rows:
            await self._slots.acquire()
            task = asyncio.ensure_future(self._one(row))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _one(self, row: Any) -> None:
        self._stamps.note(row[5])
        if self._mode == "sleep":
            await asyncio.sleep(0.005)
        elif self._mode == "hang":
            await asyncio.Event().wait()
        self._slots.release()
        self._complete_later([row[0]])

    def _complete_later(self, ids: list[int]) -> None:
        self._done += ids
        self._has_done.set()

    async def _complete(self) -> None:
        conn = await self._connect()
        while True:
            await self._has_done.wait()
            self._has_done.clear()
            ids, self._done = self._done, []
            await conn.execute(COMPLETE, [ids])


async def main(url: str, mode: str, path: str, queue: str) -> None:
    assert queue == "orders"
    await Worker(url, mode, Stamps(path)).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
