"""Who watches whom, and a watch whose connection fails or whose statement is to end."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from conftest import Database
from queues import claim, counts, engine_connection, insert, lease, open_pool
from waiting import until_async

from listener.core.errors import Unreachable
from listener.core.events import Event, PeerGone, Trouble
from listener.db.queue import QueueTable
from listener.db.watch import WatchConnection, announce, read_peers
from listener.engine.watch import Watch, predecessor
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("keys", "own", "before"),
    [([], 5, None), ([5], 5, None), ([2, 5], 5, 2), ([5, 9], 5, 9), ([9, 5, 2, 4], 5, 4), ([3], 5, 3)],
)
def test_before_us_is_the_next_smaller_key_or_the_largest(keys: list[int], own: int, before: int | None) -> None:
    assert predecessor(keys, own) == before


def test_in_every_ring_each_is_watched_by_exactly_one() -> None:
    for count in range(2, 6):
        for keys in itertools.combinations(range(1, 8), count):
            assert sorted(predecessor(keys, own) or -1 for own in keys) == sorted(keys)


async def test_a_session_that_ends_is_told_and_a_living_one_is_not(database: Database) -> None:
    former = lease(database, 3)
    connection = await WatchConnection.open(database.service_url, schema="public")
    async with anyio.create_task_group() as group:
        ended: list[bool] = []

        async def wait() -> None:
            ended.append(await connection.wait_for_end(3))

        group.start_soon(wait)
        await until_async(lambda: waiting(database) == 1, what="the watch to wait")
        assert ended == []
        former.close()
        await until_async(lambda: ended == [True], what="the end to be told")
    assert await connection.wait_for_end(4), "a session that is not there has ended"
    await connection.close()


async def test_a_cancelled_wait_ends_on_the_server_and_leaves_the_connection_usable(database: Database) -> None:
    former = lease(database, 3)
    connection = await WatchConnection.open(database.service_url, schema="public")
    async with anyio.create_task_group() as group:
        group.start_soon(connection.wait_for_end, 3)
        await until_async(lambda: waiting(database) == 1, what="the watch to wait")
        group.cancel_scope.cancel()
    assert waiting(database) == 0
    former.close()
    assert await connection.wait_for_end(3)
    await connection.close()


async def test_a_wait_is_bounded_and_its_end_is_no_error_in_the_servers_log(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits keeps VACUUM from cleaning up."""
    monkeypatch.setattr("listener.db.watch.WAIT_S", 0.05)
    lease(database, 3)
    connection = await WatchConnection.open(database.service_url, schema="public")
    assert await connection.wait_for_end(3) is False
    await connection.close()


async def test_a_cut_watch_is_reported_and_watches_again(database: Database) -> None:
    events: list[Event] = []
    rescues: list[int] = []
    told: list[int] = []

    async def rescue() -> None:
        rescues.append(1)

    own, other = lease(database, 9), lease(database, 3)
    async with open_pool(database) as pool, anyio.create_task_group() as group:
        watch = Watch(
            lambda: announce(pool),
            lambda: read_peers(pool),
            lambda: WatchConnection.open(database.service_url, schema="public"),
            rescue,
            events.append,
            on_change=lambda: told.append(1),
        )
        group.start_soon(watch.run, 9)
        await until_async(lambda: waiting(database) == 1, what="the watch to wait")
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'order-listener watch'"
        )
        await until_async(lambda: any(isinstance(event, Trouble) for event in events), what="the trouble")
        await until_async(lambda: waiting(database) == 1, what="the watch to wait again")
        other.close()
        await until_async(lambda: PeerGone(session=3) in events, what="the death")
        assert told == [1, 1], "it has come, and it has gone"
        await until_async(lambda: not watches(database), what="no connection while we are alone")
        newcomer = lease(database, 4)
        watch.look_again()
        await until_async(lambda: waiting(database) == 1, what="the watch of the newcomer")
        group.cancel_scope.cancel()
    for conn in (own, newcomer):
        conn.close()


class Ring:
    """Peers of the test's own making: who lives, whom the watch waits for, and what it does about it."""

    def __init__(self, *keys: int) -> None:
        self.keys = set(keys)
        self.log: list[object] = []
        self.failures = 0
        self.ended = anyio.Event()
        self.watch = Watch(self.announce, self.peers, self.open, self.rescue, self.publish, on_change=lambda: None)

    async def announce(self) -> None:
        self.log.append("announced")

    async def peers(self) -> list[int]:
        self.log.append("looked")
        return sorted(self.keys)

    async def rescue(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Unreachable("away")
        self.log.append("rescued")

    def publish(self, event: Event) -> None:
        self.log.append(event)

    async def open(self) -> "Ring":
        return self

    async def wait_for_end(self, session_key: int) -> bool:
        self.log.append(session_key)
        if session_key in self.keys:
            await self.ended.wait()
        return True

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def watching(ring: Ring) -> AsyncIterator[None]:
    """Process 9 waits for the end of process 3; what came before is forgotten."""
    async with anyio.create_task_group() as group:
        group.start_soon(ring.watch.run, 9)
        await until_async(lambda: 3 in ring.log, what="the wait")
        ring.log.clear()
        yield
        group.cancel_scope.cancel()


async def test_a_death_that_falls_into_a_newcomers_announcement_is_rescued() -> None:
    """The wait for the dead one is cancelled by the announcement, and the new list of the living lacks it."""
    ring = Ring(3, 9)
    async with watching(ring):
        ring.keys = {5, 9}
        ring.watch.look_again()
        await until_async(lambda: 5 in ring.log, what="the wait for the newcomer")
    assert ring.log[:4] == ["looked", "rescued", PeerGone(session=3), "announced"]


async def test_a_rescue_that_failed_is_done_again() -> None:
    ring = Ring(3, 9)
    async with watching(ring):
        ring.failures = 2
        ring.keys = {9}
        ring.ended.set()
        await until_async(lambda: "announced" in ring.log, what="the third try")
    assert sum(isinstance(entry, Trouble) for entry in ring.log) == 2
    assert ring.log[-3:] == ["rescued", PeerGone(session=3), "announced"], "others may have other queues to rescue"


async def test_a_claim_of_the_dead_one_that_commits_after_the_rescue_is_given_back(database: Database) -> None:
    """kill -9 ends its sessions at once, but a statement that was under way runs to its end."""
    own, other = lease(database, 9), lease(database, 3)
    insert(database, 1)
    events: list[Event] = []
    async with open_pool(database) as pool, anyio.create_task_group() as group:
        table = QueueTable(pool, UPLOAD)

        async def rescue_all() -> None:
            await table.rescue(stale_s=300.0)

        watch = Watch(
            lambda: announce(pool),
            lambda: read_peers(pool),
            lambda: WatchConnection.open(database.service_url, schema="public"),
            rescue_all,
            events.append,
            on_change=lambda: None,
        )
        group.start_soon(watch.run, 9)
        await until_async(lambda: waiting(database) == 1, what="the watch to wait")
        statement = engine_connection(database)
        statement.execute("BEGIN")
        assert len(claim(statement, 1, session_key=3)) == 1
        other.close()
        await until_async(lambda: PeerGone(session=3) in events, what="the death")
        statement.execute("COMMIT")
        await until_async(lambda: counts(database) == {"Pending": 1}, what="the row to be given back")
        group.cancel_scope.cancel()
    own.close()


def watches(database: Database) -> int:
    [(count,)] = database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'order-listener watch'"
        " AND datname = current_database()"
    )
    return int(count)


def waiting(database: Database) -> int:
    [(count,)] = database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'order-listener watch'"
        " AND datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(count)
