"""An account: what is reserved is used once, and the only probe of a paused connector is never lost."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from conftest import Database
from waiting import until_async

from listener.clients import account as account_module
from listener.clients.account import Account
from listener.clients.shipstation.reply import Reply
from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.errors import Broken, DatabaseError, Rejected, Unavailable
from listener.core.events import ConnectorPaused, ConnectorResumed, Event, Trouble
from listener.db.budgets import ApiBudget, read_budgets
from listener.db.pool import Pool

pytestmark = pytest.mark.anyio

LIMIT = 10
OK = Reply("stored", RateHeaders())


class Process:
    """One process's account over the shared row, and a rival that asks as another process would."""

    def __init__(self, pool: Pool, database: Database) -> None:
        self._pool = pool
        self._database = database
        self.events: list[Event] = []
        self.account = Account(self.budget(), self.events.append)

    def budget(self, kind: type[ApiBudget] = ApiBudget, *, window_s: float = 60.0) -> ApiBudget:
        return kind(
            self._pool,
            self.events.append,
            connector="shipstation",
            account="main",
            call_limit=LIMIT,
            window_s=window_s,
        )

    def get(self, column: str) -> Any:
        return self._database.execute(f"SELECT {column} FROM api_budgets")[0][0]

    @property
    def remaining(self) -> int:
        return int(self.get("remaining"))

    @property
    def is_paused(self) -> bool:
        return self.get("paused_until") is not None

    def end_pause(self) -> None:
        """What an operator does: the probe may go now."""
        self._database.execute("UPDATE api_budgets SET paused_until = clock_timestamp()")

    async def pause(self) -> None:
        with pytest.raises(Unavailable):
            await self.account.call(failing(Unavailable("503", reason="outage", wait_s=600.0)))
        self.end_pause()

    async def reserve_probe(self) -> None:
        await self.pause()
        assert await self.account.admit() is None
        assert await self.rival() is None, "there is one probe"

    async def rival(self) -> Permit | None:
        """What another process gets now."""
        answer = await self.budget().take()
        return answer if isinstance(answer, Permit) else None

    def cut(self) -> None:
        """Take the database away."""
        server, name = self._database.server, self._database.name
        server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            " AND application_name <> 'listener tests'",
            [name],
        )

    async def mend(self) -> None:
        """Give the database back, and wait until the pool has noticed."""
        self._database.server.execute(f"ALTER DATABASE {self._database.name} ALLOW_CONNECTIONS true")

        async def answers() -> bool:
            try:
                await self._pool.refresh()
                await read_budgets(self._pool)
            except DatabaseError:
                return False
            return True

        await until_async(answers, deadline_s=30, what="the database")

    def troubles(self) -> list[Trouble]:
        return [event for event in self.events if isinstance(event, Trouble)]


@pytest.fixture
async def process(database: Database) -> AsyncIterator[Process]:
    options = {"is_pooled": False, "min_size": 1, "max_size": 4, "statement_timeout_s": 1.0}
    async with Pool(database.service_url, schema="public", **options) as pool:
        yield Process(pool, database)


async def answering() -> Reply:
    return OK


def failing(error: Exception) -> Any:
    async def send() -> Reply:
        raise error

    return send


async def test_a_call_uses_what_was_reserved(process: Process) -> None:
    assert await process.account.admit() is None
    assert process.remaining == LIMIT - 1

    assert await process.account.call(answering) is OK

    assert process.remaining == LIMIT - 1


async def test_a_reservation_that_is_not_needed_is_given_back(process: Process) -> None:
    await process.account.admit()
    await process.account.admit()

    await process.account.withdraw()
    assert process.remaining == LIMIT - 1
    await process.account.close()
    assert process.remaining == LIMIT

    await process.account.withdraw()
    assert process.remaining == LIMIT, "there is nothing to give back"


async def test_a_reservation_that_lay_too_long_is_exchanged(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    await process.account.admit()
    monkeypatch.setattr(account_module, "FRESH_S", -1.0)

    for _ in range(3):
        assert await process.account.admit() is None

    assert process.remaining == LIMIT - 1


async def test_a_call_cannot_use_what_is_being_given_back(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher exchanges an old reservation just when a handler starts its call."""
    giving, may_go_on = anyio.Event(), anyio.Event()

    class Slow(ApiBudget):
        async def give_back(self, permit: Permit) -> None:
            giving.set()
            await may_go_on.wait()
            await super().give_back(permit)

    account = Account(process.budget(Slow), process.events.append)
    await account.admit()
    await account.admit()
    monkeypatch.setattr(account_module, "FRESH_S", -1.0)

    async with anyio.create_task_group() as group:
        group.start_soon(account.admit)
        await giving.wait()
        assert await account.call(answering) is OK
        assert await account.call(answering) is OK
        may_go_on.set()

    assert process.remaining == LIMIT - 3, "two calls were made, and one is reserved"


async def test_a_call_without_a_reservation_waits_for_the_next_window(process: Process) -> None:
    account = Account(process.budget(window_s=0.3), process.events.append)

    for _ in range(LIMIT + 1):
        assert await account.call(answering) is OK

    assert process.get("rate_window") >= 2


async def test_a_call_that_would_wait_beyond_its_callers_time_is_refused_at_once(process: Process) -> None:
    """No call left is no fault of the orders, which a caller that was cut off would be charged with."""
    for _ in range(LIMIT):
        await process.account.call(answering)

    with anyio.move_on_after(1.0) as deadline, pytest.raises(Unavailable) as caught:
        await process.account.call(answering)

    assert not deadline.cancelled_caught
    assert caught.value.reason == "budget"
    assert not process.is_paused


async def test_an_outage_pauses_and_the_next_success_of_the_probe_resumes(process: Process) -> None:
    await process.pause()
    assert process.is_paused

    assert await process.account.admit() is None
    assert await process.account.call(answering) is OK

    assert not process.is_paused
    assert [type(event) for event in process.events] == [ConnectorPaused, ConnectorResumed]


async def test_a_call_during_a_pause_is_refused_with_the_reason_of_the_pause(process: Process) -> None:
    with pytest.raises(Unavailable):
        await process.account.call(failing(Unavailable("401", reason="credentials", wait_s=600.0)))

    with pytest.raises(Unavailable) as caught:
        await process.account.call(answering)
    refusal = await process.account.admit()

    assert caught.value.reason == "credentials"
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "credentials"


async def test_a_refused_content_shows_that_the_api_is_back(process: Process) -> None:
    await process.reserve_probe()

    with pytest.raises(Rejected):
        await process.account.call(failing(Rejected("400", status=400)))

    assert not process.is_paused


async def test_a_broken_probe_is_still_the_probe(process: Process) -> None:
    """HTTP 500: one more call tells, and nobody else makes one meanwhile."""
    await process.reserve_probe()
    with pytest.raises(Broken):
        await process.account.call(failing(Broken("500")))
    assert process.is_paused
    assert await process.rival() is None

    assert await process.account.call(answering) is OK

    assert not process.is_paused


async def test_blaming_the_api_uses_the_probe_up(process: Process) -> None:
    await process.reserve_probe()
    with pytest.raises(Broken):
        await process.account.call(failing(Broken("500")))

    down = await process.account.report_down(Broken("500"))

    assert (down.reason, str(down)) == ("outage", "500")
    assert process.get("failures") == 2
    await process.account.close()
    assert await process.rival() is None, "the next pause has begun"


async def test_blaming_the_api_takes_no_reservation_from_another_batch(process: Process) -> None:
    await process.account.admit()

    await process.account.report_down(Broken("500"))

    assert process.is_paused
    assert await process.account.call(answering) is OK, "it was reserved before the pause"


async def test_another_host_is_paid_for_and_says_nothing_of_the_accounts_own(process: Process) -> None:
    with pytest.raises(Unavailable, match="503"):
        await process.account.call_elsewhere(failing(Unavailable("503", reason="outage")))
    assert await process.account.call_elsewhere(answering) is OK
    assert (process.remaining, process.is_paused) == (LIMIT - 2, False)

    await process.reserve_probe()
    with pytest.raises(Unavailable, match="paused"):
        await process.account.call_elsewhere(answering)
    assert process.is_paused
    assert await process.account.call(answering) is OK, "the probe is still there"
    assert not process.is_paused


async def test_a_cancelled_probe_is_kept_until_it_is_given_back(process: Process) -> None:
    await process.reserve_probe()

    with anyio.CancelScope() as scope:

        async def send() -> Reply:
            scope.cancel()
            await anyio.sleep_forever()
            return OK

        await process.account.call(send)

    assert scope.cancelled_caught
    assert process.is_paused
    await process.account.close()
    probe = await process.rival()
    assert probe is not None
    assert probe.probe


async def test_a_probe_that_is_cancelled_after_its_reply_has_ended_the_pause(process: Process) -> None:
    await process.reserve_probe()

    with anyio.CancelScope() as scope:

        async def send() -> Reply:
            scope.cancel()
            return OK

        await process.account.call(send)

    assert not process.is_paused


async def test_a_probe_that_is_cancelled_after_its_failure_has_begun_the_next_pause(process: Process) -> None:
    await process.reserve_probe()

    with anyio.CancelScope() as scope:

        async def send() -> Reply:
            scope.cancel()
            raise Unavailable("503", reason="outage", wait_s=None)

        with pytest.raises(Unavailable):
            await process.account.call(send)

    assert process.get("failures") == 2
    assert await process.rival() is None


async def test_a_cancelled_withdrawal_loses_no_probe(process: Process) -> None:
    await process.reserve_probe()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await process.account.withdraw()
    assert await process.rival() is None

    with anyio.CancelScope() as scope:  # the process stops: this must reach the database all the same
        scope.cancel()
        await process.account.close()

    assert await process.rival() is not None


async def test_a_cancelled_exchange_loses_no_probe(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    await process.reserve_probe()
    monkeypatch.setattr(account_module, "FRESH_S", -1.0)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await process.account.admit()

    assert await process.account.admit() is None, "the old probe was given back, and taken anew"
    assert await process.rival() is None


async def test_a_reply_is_not_lost_over_a_database_that_is_away(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.reserve_probe()
    process.cut()

    assert await process.account.call(answering) is OK

    assert [trouble.where for trouble in process.troubles()] == ["api budget"]
    await process.mend()
    assert process.is_paused, "nobody could write that it is over"
    monkeypatch.setattr(account_module, "FRESH_S", -1.0)
    assert await process.account.admit() is None, "the probe is there at once, not after the time of a dead one"
    assert await process.account.call(answering) is OK
    assert not process.is_paused


async def test_an_outage_while_the_database_is_away_keeps_the_probe(process: Process) -> None:
    await process.reserve_probe()
    process.cut()

    with pytest.raises(Unavailable):
        await process.account.call(failing(Unavailable("503", reason="outage")))

    assert len(process.troubles()) == 1
    await process.mend()
    await process.account.close()
    assert await process.rival() is not None


async def test_what_cannot_be_withdrawn_now_is_withdrawn_later(process: Process) -> None:
    await process.reserve_probe()
    process.cut()
    await process.account.withdraw()
    await process.account.close()
    with pytest.raises(DatabaseError):
        await process.account.admit()

    await process.mend()
    await process.account.withdraw()

    assert await process.rival() is not None
