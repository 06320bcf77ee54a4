"""Source `http`: everything that the shop says is there once, whatever goes wrong while it is read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from conftest import Database
from queues import open_pool
from sandbox.server import AppServer
from station import NoBudget
from workflows.imports.desk import Counter, Desk, desk

from listener.clients.shop import ShopExport
from listener.config.live import LiveConfig
from listener.core.errors import DatabaseError, Unavailable
from listener.core.events import ApiCalled, Event, Trouble
from listener.db.sources import SourceState, Turn
from listener.sandbox.exchange import Call
from listener.sandbox.shop import Shop, ShopSettings, build
from listener.workflows.imports.shop_source import WORKFLOW, ShopSource
from listener.workflows.imports.turns import Turns

pytestmark = pytest.mark.anyio

KEY = "sesame-4711"


class Street(Counter):
    """A shop, the source that reads it, and the desk where its pages are imported."""

    def __init__(self, server: AppServer, shop: Shop, d: Desk, source: ShopSource, state: SourceState) -> None:
        super().__init__(d, source, state)
        self.server, self.shop = server, shop

    def mark(self) -> Any:
        [(mark,)] = self.desk.database.execute("SELECT watermark FROM polling_state WHERE workflow = %s", [WORKFLOW])
        return mark

    def files(self) -> dict[str, int]:
        return dict(self.desk.database.execute("SELECT status, count(*) FROM import_files GROUP BY status"))

    def calls(self) -> list[dict[str, Any]]:
        return self.shop.traffic.last(1_000)


@asynccontextmanager
async def street(
    database: Database, *, password: str = "shop-password", query: str = "", **settings: Any
) -> AsyncIterator[Street]:
    app = build(ShopSettings(page_size=10, **settings))
    shop: Shop = app.state.sandbox
    events: list[Event] = []
    with AppServer(app) as server:
        client = ShopExport(
            f"{server.url}/export{query}",
            user="shop-user",
            password=password,
            timeout_s=5.0,
            budget=NoBudget(),
            publish=events.append,
        )
        async with open_pool(database) as pool, client, desk(database) as d:
            state = SourceState(pool, source="http", workflow=WORKFLOW, account="shop")
            source = ShopSource(
                client, state, events.append, overlap_s=900, first_days=0.5, most_bytes=10_000_000, most_s=10.0
            )
            built = Street(server, shop, d, source, state)
            built.events = events
            yield built
            shop.close()


def sold(shop: Shop, count: int, *, first: int = 1, ago_s: float = 7_200.0, step_s: float = 60.0) -> set[str]:
    """Orders S-1, S-2, …, each changed a minute before the one before."""
    numbers = {f"S-{n}" for n in range(first, first + count)}
    for n in range(first, first + count):
        shop.sell(f"S-{n}", ago_s=ago_s + n * step_s)
    return numbers


async def test_all_pages_become_orders_and_the_next_look_reads_what_is_new(database: Database) -> None:
    async with street(database) as s:
        numbers = sold(s.shop, 35)
        await s.look()
        assert await s.numbers() == numbers
        first_mark = s.mark()
        s.shop.traffic.clear()
        s.shop.sell("S-3", ago_s=10, CustomerNotes="changed")
        s.shop.sell("new", ago_s=10)
        await s.look()
        assert await s.numbers() == numbers | {"new"}
        assert s.desk.orders()["S-3"]["payload"]["customer_notes"] == "changed"
        assert s.mark() > first_mark
        assert len(s.calls()) == 1, "a window of one page is one call"
        asked = (first_mark - timedelta(seconds=900)).strftime("start_date=%m%%2F%d%%2F%Y+%H%%3A%M")
        assert asked in s.calls()[0]["query"], "it goes on behind the mark"


async def test_a_look_that_finds_nothing_new_leaves_no_row(database: Database) -> None:
    async with street(database) as s:
        sold(s.shop, 3, ago_s=30)
        await s.look()
        assert len(await s.numbers()) == 3
        before = s.files()
        await s.look()
        assert s.files() == before
        s.shop.orders.clear()
        await s.look()
        assert s.files() == before, "nor do empty pages"


async def test_what_was_shown_late_is_found(database: Database) -> None:
    """Committed after a look, with a time before it: the overlap reads it again."""
    async with street(database) as s:
        await s.look()
        s.shop.sell("late", ago_s=600)
        await s.look()
        assert await s.numbers() == {"late"}


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("page", ["1", "2", "3"])
async def test_orders_that_are_edited_while_pages_are_read_hide_no_other(
    database: Database, page: str, newest_first: bool
) -> None:
    """The edited one leaves its page, and the first of each page behind it moves to one that was read already."""
    async with street(database, newest_first=newest_first) as s:
        numbers = sold(s.shop, 40)
        edited = iter(range(1, 40, 7))

        def edit(call: Call) -> None:
            if call.query.get("page") == page and (n := next(edited, None)) is not None:
                for number in (f"S-{n}", f"S-{41 - n}"):
                    s.shop.sell(number, CustomerNotes="edited")

        s.shop.answered = edit
        await s.look()
        assert await s.numbers() == numbers
        assert any(isinstance(event, Trouble) and "changed while it was read" in event.error for event in s.events)


async def test_a_burst_within_one_minute_is_read_whole(database: Database) -> None:
    """More than a page holds, and the shop changes all the time: a minute is the shortest window that there is."""
    async with street(database) as s:
        numbers = sold(s.shop, 25, step_s=0)
        serial = iter(range(10_000))
        s.shop.answered = lambda _call: s.shop.sell("S-1", ago_s=7_200, CustomerNotes=str(next(serial)))
        await s.look()
        assert await s.numbers() == numbers


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_json": True, "count": 3},
        {"reset_before": True, "count": 1},
        {"reset_after": "mid", "count": 1},
        {"reset_after": True, "count": 1},
        {"status": 500, "count": 1},
        {"status": 503, "retry_after": 1, "count": 1},
        {"status": 429, "count": 1},
        {"html200": True, "count": 2},
    ],
    ids=lambda fault: next(iter(fault)) + str(fault.get("status", "")),
)
async def test_what_goes_wrong_on_the_way_loses_nothing(database: Database, fault: dict[str, Any]) -> None:
    async with street(database) as s:
        numbers = sold(s.shop, 35)
        s.shop.plan.replace(fault)
        for _ in range(3):
            with suppress(Unavailable):
                await s.look()
        assert not s.shop.plan.is_on
        assert await s.numbers() == numbers
        assert s.files().keys() == {"Imported"}


async def test_wrong_credentials_are_told_and_mended(database: Database) -> None:
    async with street(database, password="wrong") as s:
        sold(s.shop, 3)
        with pytest.raises(Unavailable, match="check IMPORT_SHOP_USER") as refused:
            await s.look()
        assert refused.value.reason == "credentials"
        assert s.mark() is None
        s.shop.change_password("wrong")
        await s.look()
        assert len(await s.numbers()) == 3


async def test_the_address_s_own_query_is_sent_and_shown_nowhere(database: Database) -> None:
    async with street(database, auth_key=KEY, query=f"?shop=7&auth_key={KEY}") as s:
        sold(s.shop, 1)
        await s.look()
        s.shop.plan.replace({"reset_before": True, "count": 1})
        with pytest.raises(Unavailable) as failed:
            await s.look()
        assert "shop=7" in s.calls()[0]["query"]
        assert any(isinstance(event, ApiCalled) for event in s.events)
        kept = s.desk.database.execute("SELECT uri, name FROM import_files")
        assert KEY not in f"{s.events} {failed.value} {kept}"
        assert kept[0][0] == f"{s.server.url}/export"


async def test_an_order_that_breaks_its_page_costs_its_minute_only(database: Database) -> None:
    """A control character makes every page with it no XML: it fails alone, visibly, and the rest goes on."""
    async with street(database) as s:
        numbers = sold(s.shop, 20)
        s.shop.sell("S-7", ago_s=7_200 + 7 * 60, CustomerNotes="\x01")
        await s.look()
        found = await s.numbers()
        assert found == numbers - {"S-7"}
        assert s.mark() is not None
        errors = s.desk.database.execute("SELECT last_error FROM import_files WHERE status = 'Failed'")
        assert len(errors) == 2, "a window takes both of its minutes"
        assert all("not well-formed XML" in error for (error,) in errors)
        s.shop.sell("S-7", CustomerNotes="well")
        await s.look()
        assert "S-7" in await s.numbers()


async def test_another_page_than_an_export_is_no_export(database: Database) -> None:
    async with street(database) as s:
        s.shop.plan.replace({"html200": True})
        # every window down to the minute says so; the plan ends what would take a while
        s.shop.answered = lambda _call: s.shop.plan.clear() if len(s.calls()) > 12 else None
        await s.look()
        assert any(isinstance(e, Trouble) and "the root element is 'html', not Orders" in e.error for e in s.events)


@pytest.mark.parametrize("table", ["import_files", "polling_state"])
async def test_rows_and_watermark_are_one_transaction(database: Database, table: str) -> None:
    """Whichever of the two cannot be written: neither is."""
    async with street(database) as s:
        numbers = sold(s.shop, 3)
        turn = await s.state.take_turn(0.0)
        what = "INSERT" if table == "import_files" else "UPDATE OF watermark"
        database.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;"
            f" CREATE TRIGGER refuse BEFORE {what} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
        )
        assert turn is not None
        with pytest.raises(DatabaseError, match="not now"):
            await s.source.look(turn)
        assert s.files() == {}
        assert s.mark() is None
        database.execute(f"DROP TRIGGER refuse ON {table}")
        await s.look()
        assert await s.numbers() == numbers


class Still:
    """A live configuration that never changes."""

    def __init__(self, **values: Any) -> None:
        self.live = LiveConfig(**values)


class Failing:
    """A source that always fails."""

    def __init__(self, message: str) -> None:
        self.message = message

    async def look(self, _turn: Turn) -> None:
        raise Unavailable(self.message, reason="credentials")


def turns(s: Street, **values: Any) -> Turns:
    configuration: Any = Still(**values)
    return Turns(s.source.look, s.state, configuration, s.events.append, where="shop", interval_s=30.0)


async def test_one_process_of_many_looks(database: Database) -> None:
    async with street(database) as s:
        waits = [await turns(s).run_once() for _ in range(3)]
        assert len(s.calls()) == 1
        assert all(25 < wait_s <= 30 for wait_s in waits)


async def test_a_look_that_failed_is_soon_made_again_by_anyone(database: Database) -> None:
    async with street(database) as s:
        s.shop.plan.replace({"status": 500, "count": 1})
        assert await turns(s).run_once() <= 1.0
        assert [event.where for event in s.events if isinstance(event, Trouble)] == ["shop"]


async def test_what_goes_on_failing_in_the_same_words_is_told_once(database: Database) -> None:
    async with street(database) as s:
        asked = turns(s)
        for message, told in (("first", 1), ("first", 1), ("second", 2), ("second", 2)):
            s.source = Failing(message)
            asked._look = s.source.look
            await asked.run_once()
            await s.state.hurry_turn(30.0, 0.0)
            assert len([event for event in s.events if isinstance(event, Trouble)]) == told


async def test_switched_off_it_asks_nothing_and_rolled_back_seldom(database: Database) -> None:
    async with street(database) as s:
        await turns(s, import_enabled=False).run_once()
        assert s.calls() == []
        await turns(s).run_once()
        asked = len(s.calls())
        database.execute(
            "UPDATE polling_state SET updated_at = now() - interval '1 minute' WHERE workflow = %s", [WORKFLOW]
        )
        slow = turns(s, enable_fast_xml_polling=False)
        await slow.run_once()
        assert len(s.calls()) == asked, "every 300 s, not every 30"
        await turns(s).run_once()
        assert len(s.calls()) > asked
