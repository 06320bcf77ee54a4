"""Who watches whom, and a watch whose connection fails or whose statement is to end."""

import itertools

import anyio
import pytest
from conftest import Database
from queues import lease, open_pool
from waiting import until_async

from listener.core.events import Event, PeerGone, Trouble
from listener.db.watch import WatchConnection, announce, read_peers
from listener.engine.watch import Watch, predecessor

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
    connection = await WatchConnection.open(database.url, schema="public")
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
    connection = await WatchConnection.open(database.url, schema="public")
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
    connection = await WatchConnection.open(database.url, schema="public")
    assert await connection.wait_for_end(3) is False
    await connection.close()


async def test_a_cut_watch_is_reported_and_watches_again(database: Database) -> None:
    events: list[Event] = []
    rescued = anyio.Event()

    async def on_gone() -> None:
        rescued.set()

    own, other = lease(database, 9), lease(database, 3)
    async with open_pool(database) as pool, anyio.create_task_group() as group:
        watch = Watch(
            lambda: announce(pool),
            lambda: read_peers(pool),
            lambda: WatchConnection.open(database.url, schema="public"),
            on_gone,
            events.append,
        )
        group.start_soon(watch.run, 9)
        await until_async(lambda: waiting(database) == 1, what="the watch to wait")
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'order-listener watch'"
        )
        await until_async(lambda: any(isinstance(event, Trouble) for event in events), what="the trouble")
        await until_async(lambda: waiting(database) == 1, what="the watch to wait again")
        other.close()
        with anyio.fail_after(10):
            await rescued.wait()
        assert PeerGone(session=3) in events
        await until_async(lambda: not watches(database), what="no connection while we are alone")
        newcomer = lease(database, 4)
        watch.look_again()
        await until_async(lambda: waiting(database) == 1, what="the watch of the newcomer")
        group.cancel_scope.cancel()
    for conn in (own, newcomer):
        conn.close()


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
