"""A sync that cannot read all it was asked to: what is at fault pays, and nothing else."""

from dataclasses import replace
from typing import Any

import anyio
import pytest
from sandbox.server import Client, serving
from station import Station, api, shop

from listener.clients.shipstation.lists import Named, is_theirs, read_named
from listener.core.events import Trouble
from listener.core.outcome import Done, Snooze

__all__ = ["api", "shop"]

pytestmark = pytest.mark.anyio

SISTER = "https://ssapi7.shipstation.com"


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://ssapi٣.shipstation.com/orders?x=1",
        "https://ssapi.shipstation.com.evil.example/orders",
        "https://me@ssapi.shipstation.com/orders",
        "https://ssapi.shipstation.com:444/orders",
        "http://ssapi.shipstation.com/orders",
        "http://[::1/orders",
        "https://ssapi.shipstation.com/orders?x=\ud800",
        "https://ssapi.shipstation.com/orders?x=\x00",
    ],
)
async def test_an_address_that_cannot_be_fetched_is_nobodys(url: str) -> None:
    assert not is_theirs(url, "https://ssapi.shipstation.com")


async def test_an_address_at_a_sister_host_is_told_from_one_at_the_accounts_own() -> None:
    own = "https://ssapi.shipstation.com"
    assert read_named(f"{own}/orders?importBatch=7", own) == Named("/orders", {"importBatch": "7"}, None)
    assert read_named(f"{SISTER}/shipments?a=1", own) == Named("/shipments", {"a": "1"}, SISTER)


class Moved:
    """The client, with another server of ours in the place of a sister host."""

    def __init__(self, shop: Station, sister: Client) -> None:
        self._inner = shop.shipstation
        self._sister = f"http://{sister.address[0]}:{sister.address[1]}"

    async def list_page(self, *args: Any, base_url: str | None = None) -> Any:
        return await self._inner.list_page(*args, base_url=base_url and self._sister)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 401}, {"status": 404}, {"status": 429}, {"html200": True}]
)
async def test_a_sister_host_that_cannot_be_asked_pauses_nobody(
    shop: Station, api: Client, fault: dict[str, Any]
) -> None:
    """A webhook names it: the lists tell the same."""
    shop.upload("1")
    with serving(seed=2) as sister:
        sister.fault(fault)
        shop.client = Moved(shop, sister)  # type: ignore[assignment]
        stats = await shop.sync(reason="webhook", urls=[f"{SISTER}/orders?a={number}" for number in range(3)])

        assert (stats["complete"], stats["urls_failed"], shop.read()) == (True, 1, {"1"})
        assert sister.control("GET", "requests?last=10")["requests"][1:] == []
    assert set(shop.budget.told) == {"ok"}


async def test_a_sister_host_that_answers_is_read(shop: Station, api: Client) -> None:
    shop.upload("1")
    shop.client = Moved(shop, api)  # type: ignore[assignment]
    stats = await shop.sync(reason="webhook", urls=[f"{SISTER}/orders?orderNumber=1"])
    assert (stats["complete"], stats["calls"], shop.read()) == (True, 1, {"1"})


# --- one list --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 404, 503])
@pytest.mark.parametrize("path", ["/orders", "/shipments", "/fulfillments"])
async def test_a_list_that_cannot_be_read_pauses_nobody_and_the_others_are_read(
    shop: Station, api: Client, path: str, status: int
) -> None:
    """Else its run would pause and resume the account, uploads included, for as long as the list fails."""
    api.control("PUT", "clock", {"offset_s": -300})
    await shop.sync()
    before = shop.marks()
    api.control("PUT", "clock", {"offset_s": -200})
    api.fault({"status": status, "path": path})
    shop.budget.told.clear()

    stats = await shop.sync(lookback_minutes=60)

    assert stats["complete"] is False
    assert list(stats["lists_failed"]) == [path.strip("/")]
    assert set(shop.budget.told) == {"ok"}
    assert [event.where for event in shop.events if isinstance(event, Trouble)] == [f"sync {path.strip('/')}"]
    behind = {name for name, at in shop.marks().items() if at == before[name]}
    assert behind == {"shipments", "voids"} if path == "/shipments" else behind == {path.strip("/")}
    assert stats["calls"] <= 5
    assert (await shop.sync(reason="schedule"))["calls"] <= 5, "for ever: 150 an hour at 120 s"

    api.control("DELETE", "faults")
    assert (await shop.sync())["complete"]
    assert not {name for name, at in shop.marks().items() if at == before[name]}


async def test_a_run_that_meets_an_outage_goes_on_after_as_long_as_it_has_taken(shop: Station, api: Client) -> None:
    """A minute at most: calls of another kind may end the pause at once, and then it would be met again at once."""
    api.fault({"status": 503})
    waits = []
    for age_s in (0, 20, 600):
        job = await shop.claim()
        shop.database.execute("UPDATE sync_runs SET started_at = now() - make_interval(secs => %s)", [age_s])
        (outcome,) = await shop.handler()([job])
        assert isinstance(outcome, Snooze)
        await shop.settle(job, outcome)
        waits.append(outcome.delay_s)
        assert shop.budget.told == ["outage"], "once a try"
        shop.budget.told.clear()

    young, older, old = waits
    assert 1 <= young < 20 <= older < 60 == old


# --- time and calls --------------------------------------------------------------------------------------------------


async def cut(shop: Station, reason: str = "manual", **params: Any) -> None:
    """One claim of the run that waits; after its first call so little time is left that it must go on in another."""
    inner = shop.shipstation

    class Slow:
        async def list_page(self, *args: Any, **more: Any) -> Any:
            page = await inner.list_page(*args, **more)
            deadline.deadline = anyio.current_time() + 10.0
            return page

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    shop.client = Slow()  # type: ignore[assignment]
    with anyio.CancelScope(deadline=anyio.current_time() + 1_000) as deadline:
        outcome = await shop.run(reason, **params)
    shop.client = inner
    assert outcome == Snooze(0.0, "more than one operation_timeout of pages; goes on")


def asked(api: Client) -> list[str]:
    requests = api.control("GET", "requests?last=1000")["requests"]
    return [f"{each['path']}?{each['query']}" for each in requests if each["method"] == "GET"]


@pytest.mark.parametrize("waits", [False, True])
async def test_addresses_that_take_too_long_are_begun_once(shop: Station, api: Client, *, waits: bool) -> None:
    """Else each claim would read the first of them anew, and the lists would never have their turn."""
    await shop.sync()
    shop.upload("1", "2", "3")
    host = f"http://{api.address[0]}:{api.address[1]}"
    job_params = {"urls": [f"{host}/orders?orderNumber={number}" for number in (1, 2, 3)]}
    if waits:
        job = await shop.claim("webhook", **job_params)
        shop.database.execute("INSERT INTO sync_runs (account, reason) VALUES ('default', 'webhook')")
        shop.database.execute("UPDATE sync_runs SET stats = %s WHERE id = %s", ['{"is_cut": true}', job.id])
        await shop.settle(job, Snooze(0.0))
    else:
        await cut(shop, "webhook", **job_params)
        assert sum("orderNumber" in each for each in asked(api)) == 1

    outcome = await shop.run("webhook")

    assert isinstance(outcome, Done)
    assert outcome.values["stats"]["complete"]
    assert not outcome.values["stats"].keys() & {"is_cut", "lists_done"}
    assert sum("orderNumber" in each for each in asked(api)) == (0 if waits else 1)
    assert shop.read() == {"1", "2", "3"}


async def test_a_run_that_runs_out_of_time_reads_no_list_twice(shop: Station, api: Client) -> None:
    await shop.sync()
    before = len(asked(api))
    for _ in range(2):
        await cut(shop, lookback_minutes=60)
    outcome = await shop.run()

    assert isinstance(outcome, Done)
    assert outcome.values["stats"]["complete"]
    paths = [each.partition("?")[0] for each in asked(api)[before:]]
    assert paths == ["/orders", "/shipments", "/shipments", "/fulfillments"]


async def test_the_calls_of_one_run_are_counted_over_all_its_claims(shop: Station, api: Client) -> None:
    await shop.sync()
    shop.most_calls = 2
    await cut(shop, lookback_minutes=60)
    outcome = await shop.run()

    assert isinstance(outcome, Done)
    assert (outcome.values["stats"]["calls"], outcome.values["stats"]["complete"]) == (2, False)


async def test_a_record_in_quarantine_that_takes_too_long_is_rarer_and_rarer(shop: Station, api: Client) -> None:
    shop.upload("1")
    api.fault({"null_fields": ["orderStatus"], "count": 2, "path": "/orders"})
    await shop.sync()
    shop.database.execute("UPDATE sync_quarantine SET retry_at = now()")
    inner = shop.shipstation

    class Late:
        """The list of the one record has more pages than there is time for."""

        async def list_page(self, path: str, name: str, query: Any, **more: Any) -> Any:
            page = await inner.list_page(path, name, query, **more)
            if "createDateEnd" in query:
                deadline.deadline = anyio.current_time() + 10.0
                return replace(page, total=10_000)
            return page

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    shop.client = Late()  # type: ignore[assignment]
    with anyio.CancelScope(deadline=anyio.current_time() + 1_000) as deadline:
        assert isinstance(await shop.run(), Snooze)
    assert shop.database.execute("SELECT attempts, retry_at > now() FROM sync_quarantine") == [(2, True)]


# --- rubbish ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stats",
    [
        '"x"',
        "3",
        "null",
        "[]",
        '{"calls": "abc"}',
        '{"calls": null}',
        '{"calls": 1e30}',
        '{"changed": null}',
        '{"read": "x", "rows": -3}',
        '{"lists_done": 7, "lists_failed": "x", "looked_back_minutes": "x"}',
        '{"reason": 5, "event": 6}',
    ],
)
async def test_rubbish_in_a_runs_stats_holds_nothing_up(shop: Station, api: Client, stats: str) -> None:
    shop.upload("1")
    urls = f'{{"urls": ["http://[::1", "http://{api.address[0]}:{api.address[1]}/orders?orderNumber=1"]}}'
    shop.database.execute("INSERT INTO sync_runs (stats, params) VALUES (%s, %s)", [stats, urls])

    figures = await shop.sync()

    assert (figures["complete"], figures["urls_refused"], shop.read()) == (True, 1, {"1"})
    assert not figures.keys() & {"reason", "event"}, "which the log has already"
    shop.database.execute("UPDATE sync_runs SET stats = %s", [stats])
    shop.database.execute(
        "INSERT INTO sync_runs (status, started_at, stats) VALUES ('Succeeded', now(), %s)", ['{"calls": 5, "rows": 2}']
    )
    seen = await shop.runs.monitor()
    assert (seen["calls"], seen["calls_last_hour"], seen["rows"]) == (5, 5, 2)
