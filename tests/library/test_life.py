"""A listener inside somebody's program: it starts, stops, and says what is wrong, without being in the way."""

import logging
import urllib.request
from typing import Any

import anyio
import pytest
import structlog
from anyio import to_thread
from conftest import Database
from library.invoices import Invoices, listener_on
from login import Login
from waiting import until_async

from listener import ConfigError, DatabaseError, Job, Listener
from listener.db.embedded import Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
def invoices(database: Database) -> Invoices:
    return Invoices(database)


class Held:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.go = anyio.Event()

    async def __call__(self, job: Job) -> None:
        self.begun.set()
        await self.go.wait()


async def test_leaving_the_block_lets_running_calls_end_and_claims_no_more(
    database: Database, invoices: Invoices
) -> None:
    app, held = listener_on(database), Held()
    app.queue("invoices", concurrency=1)(held)
    invoices.insert(1, 2)
    async with anyio.create_task_group() as group:

        async def work() -> None:
            async with app:
                await held.begun.wait()

        group.start_soon(work)
        await held.begun.wait()
        await anyio.wait_all_tasks_blocked()
        held.go.set()
    assert invoices.statuses() == [("Done", 1), ("Pending", 0)]


async def test_calls_that_outlast_the_shutdown_give_their_rows_back_uncounted(
    database: Database, invoices: Invoices
) -> None:
    app, held = listener_on(database, shutdown_timeout=0), Held()
    app.queue("invoices")(held)
    invoices.insert(1)
    async with app:
        await held.begun.wait()
    assert invoices.statuses() == [("Pending", 0)]


async def test_a_block_that_is_cancelled_gives_its_rows_back_at_once(database: Database, invoices: Invoices) -> None:
    """Although running calls would get 25 s."""
    app, held = listener_on(database), Held()
    app.queue("invoices")(held)
    invoices.insert(1)
    with anyio.fail_after(15):
        with anyio.CancelScope() as scope:
            async with app:
                await held.begun.wait()
                scope.cancel()
                await anyio.sleep_forever()
    assert invoices.statuses() == [("Pending", 0)]


async def test_stop_ends_the_work_and_not_the_block(database: Database, invoices: Invoices) -> None:
    app, held = listener_on(database), Held()
    app.queue("invoices", concurrency=1)(held)
    invoices.insert(1, 2)
    async with app:
        await held.begun.wait()
        await to_thread.run_sync(app.stop)  # from another thread too
        held.go.set()
        await invoices.until("Done", "Pending")
    app.stop()  # not running: nothing


async def test_it_runs_once_at_a_time_and_again_afterwards(database: Database, invoices: Invoices) -> None:
    app, held = listener_on(database), Held()
    app.queue("invoices")(held)
    async with app:
        with pytest.raises(ConfigError, match="runs already"):
            async with app:
                pass
        with pytest.raises(ConfigError, match="register before it starts"):
            app.queue("emails")(held)
    held.go.set()
    invoices.insert(1)
    async with app:
        await invoices.until("Done")


async def test_the_blocks_own_error_comes_out_as_it_is(database: Database, invoices: Invoices) -> None:
    app = listener_on(database)
    app.queue("invoices")(Held())
    with pytest.raises(KeyError, match="own"):
        async with app:
            raise KeyError("own")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("parcels", "table parcels is not attached; run `listener attach parcels`"),
        ("invoces", "table invoces is not attached; did you mean invoices?"),
    ],
)
async def test_a_table_that_is_not_attached_ends_the_block(
    database: Database, invoices: Invoices, name: str, text: str
) -> None:
    app = listener_on(database)
    app.queue(name)(Held())
    with pytest.raises(ConfigError) as caught:
        async with app:
            await anyio.sleep_forever()
    assert str(caught.value) == text


async def test_every_column_that_does_not_fit_is_told_at_once(database: Database, invoices: Invoices) -> None:
    from library.models import Parcel

    app = listener_on(database)

    @app.queue("invoices", results=("sent_at", "sent_to", "id"))
    async def send(job: Job[Parcel]) -> None:
        pass

    with pytest.raises(ConfigError) as caught:
        async with app:
            await anyio.sleep_forever()
    place = "@queue('invoices') test_every_column_that_does_not_fit_is_told_at_once.<locals>.send: "
    writable = "these can: amount, customer, sent_at, tags, created_at"
    assert str(caught.value).splitlines() == [
        f"{place}Parcel asks for 'weight', which is no column of invoices that handlers see;"
        " they see id, amount, customer, sent_at, tags, created_at",
        f"{place}results='sent_to' is no column of invoices that can be written; {writable}",
        f"{place}results='id' is no column of invoices that can be written; {writable}",
    ]


async def test_a_database_that_refuses_the_login_ends_the_block(database: Database) -> None:
    app = Listener(database_url=f"{database.service_url}_none")
    app.queue("invoices")(Held())
    with pytest.raises(DatabaseError, match="does not exist"):
        async with app:
            await anyio.sleep_forever()


async def test_a_database_that_is_away_is_waited_for_and_told(
    own_cluster: Cluster, own_service_url: str, service_login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    import psycopg

    with psycopg.connect(own_cluster.url(), autocommit=True) as conn:
        conn.execute("CREATE TABLE invoices (id int PRIMARY KEY)")
        conn.execute("SELECT attach_queue('invoices')")
        conn.execute("INSERT INTO invoices VALUES (1)")
    service_login.grant(own_cluster.url())
    app, held = Listener(database_url=own_service_url), Held()
    app.queue("invoices")(held)
    await to_thread.run_sync(own_cluster.stop)
    async with app:
        await until_async(
            lambda: any(r.message.startswith("No database session") for r in caplog.records), what="the complaint"
        )
        await to_thread.run_sync(own_cluster.start)
        with anyio.fail_after(30):
            await held.begun.wait()
        held.go.set()


async def test_a_lost_session_is_replaced_and_its_rows_are_taken_again(database: Database, invoices: Invoices) -> None:
    """The queue is still one queue."""
    app, held = listener_on(database), Held()
    app.queue("invoices")(held)
    invoices.insert(1)
    async with app:
        await held.begun.wait()
        held.go.set()
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'order-listener session%' AND datname = current_database()"
        )
        invoices.insert(2)
        await invoices.until("Done", "Done")
        assert app._process is not None
        assert len(app._process.tables) == 1


async def test_it_leaves_the_programs_logging_alone(
    database: Database, invoices: Invoices, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (structlog.get_config(), list(logging.root.handlers), logging.getLogger("psycopg.pool").level)
    database.execute("UPDATE configuration_params SET param_value = 'debug' WHERE param_key = 'log_level'")
    caplog.set_level("INFO", "listener")
    app, held = listener_on(database), Held()
    app.queue("invoices")(held)
    async with app:
        await until_async(lambda: "Session opened" in caplog.text, what="a line")
    assert before == (structlog.get_config(), list(logging.root.handlers), logging.getLogger("psycopg.pool").level)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("http", "is_served"), [("127.0.0.1:0", True), (None, False)])
async def test_it_serves_http_when_asked(
    database: Database, invoices: Invoices, caplog: pytest.LogCaptureFixture, http: Any, is_served: bool
) -> None:
    caplog.set_level("INFO", "listener")
    app, held = listener_on(database, http=http), Held()
    app.queue("invoices")(held)
    async with app:
        await until_async(lambda: "Session opened" in caplog.text, what="the session")
        assert bool(app.address) == is_served
        if is_served:
            reply = await to_thread.run_sync(urllib.request.urlopen, f"{app.address}/readyz")
            with reply:
                assert '"invoices":{"status":"ok"}' in reply.read().decode()


async def test_only_the_chosen_queues_are_worked_on(
    database: Database, invoices: Invoices, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, held = listener_on(database), Held()
    app.queue("invoices")(held)
    app.queue("not_attached")(held)
    monkeypatch.setenv("LISTENER_QUEUES", "invoices")
    async with app:
        await anyio.wait_all_tasks_blocked()
    monkeypatch.setenv("LISTENER_QUEUES", "parcels")
    with pytest.raises(
        ConfigError, match="'parcels', which is no queue of this program; known: invoices, not_attached"
    ):
        await app.__aenter__()


async def test_without_a_queue_there_is_nothing_to_run(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        listener_on(database).run()
    assert capsys.readouterr().err == (
        'listener: the listener has no queue: register a handler with @app.queue("table")\n'
    )


async def test_an_unknown_setting_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTENER_SHEMA", "x")
    with pytest.raises(ConfigError, match="did you mean LISTENER_SCHEMA"):
        await listener_on(database).__aenter__()


async def test_another_schema(database: Database) -> None:
    """Its tables, its queue's name, its triggers."""
    database.install("shop")
    database.execute("CREATE TABLE shop.parcels (id uuid PRIMARY KEY DEFAULT gen_random_uuid())")
    database.execute("SET search_path = shop; SELECT attach_queue('shop.parcels'); RESET search_path")
    database.grant("shop")
    app, held = listener_on(database, schema="shop"), Held()
    held.go.set()
    app.queue("parcels")(held)
    async with app:
        for count in (1, 2):
            database.execute("INSERT INTO shop.parcels DEFAULT VALUES")
            await until_async(
                lambda count=count: (
                    database.execute("SELECT count(*) FROM shop.parcels WHERE status = 'Done'") == [(count,)]
                ),
                what=f"{count} done",
            )
