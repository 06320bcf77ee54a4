"""Budgets on a real database: how many calls, who probes, what a reply changes."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from conftest import Database
from waiting import until_async

from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.events import ConnectorPaused, ConnectorResumed, Event
from listener.db.budgets import LOOK_AGAIN_S, PAUSE_CAP_S, PROBE_S, RESET_MARGIN_S, ApiBudget, read_budgets
from listener.db.pool import Pool

pytestmark = pytest.mark.anyio

LIMIT = 40


class Account:
    """One account as several processes see it, and as an operator with psql does."""

    def __init__(self, pool: Pool, database: Database) -> None:
        self._pool = pool
        self._database = database
        self.events: list[Event] = []

    def process(
        self, account: str = "main", *, limit: int = LIMIT, window_s: float = 60.0, yields: bool = False
    ) -> ApiBudget:
        return ApiBudget(
            self._pool,
            self.events.append,
            connector="shipstation",
            account=account,
            call_limit=limit,
            window_s=window_s,
            yields=yields,
        )

    def set(self, **values: str) -> None:
        """Set columns of the account's row to SQL expressions."""
        changes = ", ".join(f"{name} = {value}" for name, value in values.items())
        self._database.execute(f"UPDATE api_budgets SET {changes} WHERE account = 'main'")

    def get(self, expression: str, account: str = "main") -> Any:
        return self._database.execute(f"SELECT {expression} FROM api_budgets WHERE account = %s", [account])[0][0]

    def delete(self) -> None:
        self._database.execute("DELETE FROM api_budgets")


@pytest.fixture
async def pool(database: Database) -> AsyncIterator[Pool]:
    async with Pool(database.service_url, schema="public", is_pooled=False, min_size=1, max_size=8) as pool:
        yield pool


@pytest.fixture
def account(pool: Pool, database: Database) -> Iterator[Account]:
    return Account(pool, database)


async def take_at_once(budgets: list[ApiBudget], count: int) -> list[Permit | Refusal]:
    """Let `count` callers ask at the same time, spread over the processes."""
    answers: list[Permit | Refusal] = []

    async def ask(budget: ApiBudget) -> None:
        answers.append(await budget.take())

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(ask, budgets[number % len(budgets)])
    return answers


async def taken(budget: ApiBudget) -> Permit:
    permit = await budget.take()
    assert isinstance(permit, Permit)
    return permit


async def refused(budget: ApiBudget) -> Refusal:
    refusal = await budget.take()
    assert isinstance(refusal, Refusal)
    return refusal


async def pause(budget: ApiBudget, *, reason: str = "outage", wait_s: float | None = None) -> None:
    await budget.report_unavailable(await taken(budget), reason=reason, message="503", wait_s=wait_s)


async def test_concurrent_takers_never_get_more_than_the_limit_of_a_window(account: Account) -> None:
    processes = [account.process() for _ in range(3)]
    windows = []
    for _ in range(3):
        answers = await take_at_once(processes, 3 * LIMIT)

        permits = [answer for answer in answers if isinstance(answer, Permit)]
        assert len(permits) == LIMIT
        assert len({permit.window for permit in permits}) == 1
        assert not any(permit.probe for permit in permits)
        assert {answer.reason for answer in answers if isinstance(answer, Refusal)} == {"budget"}
        windows.append(permits[0].window)
        account.set(resets_at="clock_timestamp()")  # the window runs out
    assert windows == [1, 2, 3]


async def test_takers_who_queue_for_the_row_see_what_the_one_before_took(account: Account, database: Database) -> None:
    """Forced: all of them have read the row before the first one may change it."""
    processes = [account.process(limit=2) for _ in range(3)]
    await taken(processes[0])
    for process in processes:
        process._is_known = True
    answers: list[Permit | Refusal] = []

    async def take_all() -> None:
        answers.extend(await take_at_once(processes, 6))

    def queued() -> int:
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return len(database.execute(waiting))

    holder = database.connect(autocommit=False)
    holder.execute("SELECT FROM api_budgets FOR UPDATE")
    async with anyio.create_task_group() as group:
        group.start_soon(take_all)
        await until_async(lambda: queued() == 6, what="six takers that wait for the row")
        holder.rollback()

    assert sum(isinstance(answer, Permit) for answer in answers) == 1


async def test_a_call_that_was_not_made_is_there_for_the_next(account: Account) -> None:
    budget = account.process(limit=1)
    permit = await taken(budget)
    await refused(budget)

    await budget.give_back(permit)

    assert await taken(budget) == permit


async def test_a_permit_of_a_former_window_is_not_given_back_into_this_one(account: Account) -> None:
    budget = account.process(limit=2)
    old = await taken(budget)
    account.set(resets_at="clock_timestamp()")
    await taken(budget)
    await taken(budget)

    await budget.give_back(old)

    await refused(budget)


async def test_no_limit_is_no_refusal(account: Account) -> None:
    budget = account.process(limit=0)

    answers = await take_at_once([budget], 100)

    assert all(isinstance(answer, Permit) for answer in answers)


async def test_nobody_calls_during_a_pause_and_one_probes_after_it(account: Account) -> None:
    processes = [account.process() for _ in range(3)]
    await pause(processes[0], wait_s=30.0)

    during = await take_at_once(processes, 30)

    assert {answer.reason for answer in during if isinstance(answer, Refusal)} == {"outage"}
    assert len(during) == 30
    assert not any(isinstance(answer, Permit) for answer in during)

    account.set(paused_until="clock_timestamp()")
    after = await take_at_once(processes, 60)

    assert [answer.probe for answer in after if isinstance(answer, Permit)] == [True]


async def test_a_given_back_probe_goes_to_the_next(account: Account) -> None:
    first, second = account.process(), account.process()
    await pause(first)
    account.set(paused_until="clock_timestamp()")
    probe = await taken(first)
    await refused(second)

    await first.give_back(probe)

    assert (await taken(second)).probe
    await refused(first)


async def test_a_probe_that_never_comes_back_is_replaced(account: Account) -> None:
    first, second = account.process(), account.process()
    await pause(first)
    account.set(paused_until="clock_timestamp()")
    assert (await taken(first)).probe
    await refused(second)

    account.set(paused_until=f"paused_until - interval '{PROBE_S} s'")

    assert (await taken(second)).probe


async def test_the_probe_ends_the_pause_for_all(account: Account) -> None:
    first, second = account.process(), account.process()
    await pause(first)
    account.set(paused_until="clock_timestamp()")

    await first.report_ok(await taken(first), RateHeaders())

    answers = await take_at_once([first, second], 10)
    assert all(isinstance(answer, Permit) and not answer.probe for answer in answers)
    assert account.get("(paused_at, pause_reason, pause_message, failures)::text") == "(,,,0)"
    assert [type(event) for event in account.events] == [ConnectorPaused, ConnectorResumed]


async def test_a_call_from_before_the_pause_neither_ends_nor_prolongs_it(account: Account) -> None:
    budget = account.process()
    late = [await taken(budget) for _ in range(3)]
    await pause(budget, wait_s=30.0)
    until = account.get("paused_until")

    await budget.report_ok(late[0], RateHeaders(remaining=30, reset_s=20.0))
    await budget.report_unavailable(late[1], reason="throttled", message="429", wait_s=3000.0)
    await budget.give_back(late[2])

    assert account.get("paused_until") == until
    assert account.get("pause_reason") == "outage"
    assert (await refused(budget)).reason == "outage"
    assert account.get("remaining") <= 31, "its headers still count"
    assert len(account.events) == 1


async def test_pauses_double_up_to_the_cap_and_start_anew_after_a_success(account: Account) -> None:
    budget = account.process()
    await pause(budget)
    for _ in range(9):
        account.set(paused_until="clock_timestamp()")
        await pause(budget)

    pauses = [event.for_s for event in account.events if isinstance(event, ConnectorPaused)]
    ceilings = [min(2.0**n, PAUSE_CAP_S) for n in range(10)]
    assert all(ceiling / 2 - 0.01 <= for_s <= ceiling + 0.01 for for_s, ceiling in zip(pauses, ceilings, strict=True))

    account.set(paused_until="clock_timestamp()")
    await budget.report_ok(await taken(budget), RateHeaders())
    account.events.clear()
    await pause(budget)
    [event] = account.events
    assert isinstance(event, ConnectorPaused)
    assert event.for_s <= 1.01


async def test_the_window_that_the_api_calls_spent_ends_with_the_pause_it_asked_for(account: Account) -> None:
    budget = account.process()

    await pause(budget, reason="throttled", wait_s=5.0)

    [event] = account.events
    assert isinstance(event, ConnectorPaused)
    assert event.for_s == pytest.approx(5.0 + RESET_MARGIN_S, abs=0.01)
    assert account.get("remaining") == 0
    assert (await refused(budget)).reason == "throttled"

    account.set(paused_until="clock_timestamp()")  # a person knows better

    probe = await taken(budget)
    assert probe.probe
    await budget.report_ok(probe, RateHeaders())
    assert account.get("remaining") == LIMIT - 1


async def test_headers_correct_the_window_downwards_only(account: Account) -> None:
    budget = account.process()
    permit = await taken(budget)
    await taken(budget)

    await budget.report_ok(permit, RateHeaders(remaining=39, reset_s=1000.0 / 60))
    assert account.get("remaining") == LIMIT - 2, "the other call is still on its way"

    await budget.report_ok(permit, RateHeaders(remaining=3, reset_s=5.0))
    assert account.get("remaining") == 3, "somebody else uses the key"
    assert 4.0 < account.get("extract(epoch FROM resets_at - clock_timestamp())::float8") <= 5.0 + RESET_MARGIN_S

    await budget.report_ok(permit, RateHeaders(remaining=30, reset_s=5.0))
    assert account.get("remaining") == 3


async def test_a_window_that_began_there_before_it_ended_here_is_adopted(account: Account) -> None:
    budget = account.process()
    permit = await taken(budget)
    account.set(resets_at="clock_timestamp() + interval '1 s'", remaining="2")

    await budget.report_ok(permit, RateHeaders(remaining=38, reset_s=59.0))

    assert account.get("remaining") == 38
    assert account.get("rate_window") == permit.window + 1
    assert account.get("extract(epoch FROM resets_at - clock_timestamp())::float8") > 58.0


@pytest.mark.parametrize("early_s", [0.5, 20.0])
async def test_a_window_that_ends_later_there_is_stretched_here_but_not_filled_up(
    account: Account, early_s: float
) -> None:
    """Otherwise two of our windows would lie in one of theirs."""
    budget = account.process()
    permit = await taken(budget)
    account.set(resets_at=f"clock_timestamp() + interval '{59 - early_s} s'", remaining="30")

    await budget.report_ok(permit, RateHeaders(remaining=39, reset_s=58.0))

    assert account.get("(remaining, rate_window)::text") == "(30,1)"
    left_s = account.get("extract(epoch FROM resets_at - clock_timestamp())::float8")
    assert 58.0 < left_s + 0.5 <= 58.0 + RESET_MARGIN_S + 0.5


async def test_a_stale_reply_of_an_older_window_changes_nothing(account: Account) -> None:
    budget = account.process()
    older = await taken(budget)
    account.set(resets_at="clock_timestamp()")
    old = await taken(budget)
    account.set(resets_at="clock_timestamp()")
    current = await taken(budget)
    before = account.get("(remaining, resets_at, rate_window)::text")

    for permit, reset_s in ((older, 59.0), (older, 0.0), (old, 2.0), (old, 3000.0)):
        await budget.report_ok(permit, RateHeaders(remaining=0, reset_s=reset_s))
    await budget.report_ok(old, RateHeaders(remaining=0))

    assert (older.window, old.window, current.window) == (1, 2, 3)
    assert account.get("(remaining, resets_at, rate_window)::text") == before


async def test_a_call_of_the_former_window_that_the_api_counts_in_this_one_is_taken_from_it(account: Account) -> None:
    """Calls that were under way when the API's window began would be too many in it."""
    budget = account.process()
    permits = [await taken(budget) for _ in range(5)]
    account.set(resets_at="clock_timestamp() + interval '1 s'")

    await budget.report_ok(permits[0], RateHeaders(remaining=39, reset_s=60.0))
    assert account.get("remaining") == 39, "the API's window is adopted"
    for number, permit in enumerate(permits[1:], start=1):
        await budget.report_ok(permit, RateHeaders(remaining=39 - number, reset_s=60.0))

    assert account.get("remaining") == 35
    for _ in range(35):
        await taken(budget)
    await refused(budget)


async def test_a_deleted_row_is_made_again(account: Account) -> None:
    budget = account.process()
    permit = await taken(budget)
    account.delete()
    await budget.report_ok(permit, RateHeaders(remaining=1, reset_s=1.0))
    await budget.report_unavailable(permit, reason="outage", message="503", wait_s=None)
    await budget.give_back(permit)

    refusal = await refused(budget)

    assert refusal.wait_s < 1.0
    assert await taken(budget) == Permit(window=1)
    assert account.get("remaining") == LIMIT - 1


async def test_the_pause_of_one_account_does_not_touch_another(account: Account, pool: Pool) -> None:
    main, other = account.process(), account.process("other")
    await taken(other)
    await pause(main, reason="credentials", wait_s=30.0)

    assert isinstance(await main.take(), Refusal)
    assert await taken(other) == Permit(window=1)
    paused = {row["account"]: (row["is_paused"], row["pause_reason"]) for row in await read_budgets(pool)}
    assert paused == {"main": (True, "credentials"), "other": (False, None)}


async def test_refused_credentials_are_told_once_until_the_words_change_or_the_pause_ends(account: Account) -> None:
    budget = account.process()
    told = []
    for message in ("401 bad key", "401 bad key", "403 other key", "403 other key"):
        await budget.report_unavailable(await taken(budget), reason="credentials", message=message, wait_s=None)
        account.set(paused_until="now()")
        told.append(len([event for event in account.events if isinstance(event, ConnectorPaused)]))
    assert told == [1, 1, 2, 2]
    await budget.report_ok(await taken(budget), RateHeaders())
    await budget.report_unavailable(await taken(budget), reason="credentials", message="403 other key", wait_s=None)
    assert len([event for event in account.events if isinstance(event, ConnectorPaused)]) == 3


async def test_a_new_limit_counts_from_the_next_start_without_a_new_window(account: Account) -> None:
    await taken(account.process(limit=40))

    await taken(account.process(limit=10))

    assert account.get("(call_limit, remaining, rate_window)::text") == "(10,9,1)"


async def test_whoever_is_refused_asks_again_soon(account: Account) -> None:
    """So that a pause that a person ends, or a probe that came back to another process, is noticed."""
    budget = account.process(limit=1)
    await taken(budget)
    assert 0 < (await refused(budget)).wait_s <= LOOK_AGAIN_S

    account.set(resets_at="clock_timestamp()")
    await pause(budget, wait_s=3000.0)
    assert 0 < (await refused(budget)).wait_s <= LOOK_AGAIN_S


async def test_a_message_that_postgres_cannot_store_pauses_all_the_same(account: Account) -> None:
    budget = account.process()
    await budget.report_unavailable(await taken(budget), reason="outage", message="a\x00b", wait_s=None)

    assert account.get("pause_message") == "a\N{SYMBOL FOR NULL}b"


ENDED = {"resets_at": "to_timestamp(0)"}
BY_HAND: dict[str, dict[str, str]] = {
    "a billion calls left": {"remaining": "1000000000"},
    "less than none": {"remaining": "-1000000000", **ENDED},
    "a window without end": {"resets_at": "'infinity'", "remaining": "0"},
    "a window of a hundred years": {"resets_at": "now() + interval '100 years'", "remaining": "0"},
    "a window before all time": {"resets_at": "'-infinity'", "remaining": "0"},
    "windows of 0 s": {"window_s": "0", **ENDED},
    "windows of -60 s": {"window_s": "-60", **ENDED},
    "infinite windows": {"window_s": "'infinity'", **ENDED},
    "windows of NaN": {"window_s": "'NaN'", **ENDED},
    "a pause without end": {"paused_until": "'infinity'"},
    "a pause of a hundred years": {"paused_until": "now() + interval '100 years'"},
    "a pause before all time": {"paused_until": "'-infinity'", "paused_at": "'-infinity'"},
    "any number of failures": {"failures": "2147483647"},
}


@pytest.mark.parametrize("values", BY_HAND.values(), ids=BY_HAND)
async def test_whatever_a_hand_wrote_into_the_row_calls_go_on(
    account: Account, pool: Pool, values: dict[str, str]
) -> None:
    """And whoever reads the row gets figures that JSON holds."""
    process = account.process()
    await taken(process)
    account.set(**values)

    [shown] = await read_budgets(pool)
    permit = await taken(process)

    assert json.dumps({**shown, "paused_at": None}, allow_nan=False)
    assert account.get("remaining") < LIMIT
    await process.report_ok(permit, RateHeaders(limit=LIMIT, remaining=LIMIT - 2, reset_s=30.0))
    await taken(process)


async def test_a_pause_that_a_person_makes_holds_and_is_named(account: Account, pool: Pool) -> None:
    process = account.process()
    await taken(process)
    account.set(paused_until="now() + interval '1 hour'")

    assert (await refused(process)).reason == "by hand"
    [shown] = await read_budgets(pool)
    assert (shown["is_paused"], shown["pause_reason"], shown["paused_at"]) == (True, "by hand", None)
    assert shown["probe_in_s"] > 3000


@pytest.mark.parametrize(("waiting", "share"), [(0, 30), (1, 10)])
async def test_who_yields_leaves_calls_to_the_uploads(
    account: Account, database: Database, waiting: int, share: int
) -> None:
    """A quarter of the window, and three quarters while orders wait."""
    database.execute("INSERT INTO orders_inbox (order_number) SELECT 'A' FROM generate_series(1, %s)", [waiting])
    uploads, sync = account.process(), account.process(yields=True)
    for _ in range(share):
        await taken(sync)

    assert (await refused(sync)).reason == "budget"

    for _ in range(LIMIT - share):
        await taken(uploads)
    await refused(uploads)


async def test_who_yields_has_a_quarter_of_each_window_however_many_orders_wait(
    account: Account, database: Database
) -> None:
    """Uploads spend a window sooner than it asks again: they leave it the rest of its quarter for a moment."""
    database.execute("INSERT INTO orders_inbox (order_number) VALUES ('A')")
    uploads, sync = account.process(), account.process(yields=True)
    for _ in range(LIMIT):
        await taken(uploads)
    await refused(sync)  # it waits
    account.set(resets_at="now() - interval '1 second'")

    for _ in range(LIMIT - LIMIT // 4):
        await taken(uploads)
    await refused(uploads)
    returned = await taken(sync)
    await sync.give_back(returned)
    for _ in range(LIMIT // 4):
        await taken(sync)
    await refused(sync)


async def test_what_who_yields_does_not_use_is_the_uploads(account: Account) -> None:
    uploads, sync = account.process(), account.process(yields=True)
    await taken(sync)
    for _ in range(LIMIT - LIMIT // 4):
        await taken(uploads)
    await refused(uploads)

    account.set(sync_asked_at="now() - interval '6 seconds'")

    for _ in range(LIMIT // 4 - 1):
        await taken(uploads)
    await refused(uploads)


@pytest.mark.parametrize("limit", [2, 3, 4])
async def test_of_a_small_limit_each_has_a_part(account: Account, database: Database, limit: int) -> None:
    database.execute("INSERT INTO orders_inbox (order_number) VALUES ('A')")
    uploads, sync = account.process(limit=limit), account.process(limit=limit, yields=True)
    await taken(uploads)
    await taken(sync)
    account.set(resets_at="now() - interval '1 second'")
    await taken(uploads)


async def test_an_account_without_a_limit_has_nothing_to_yield(account: Account) -> None:
    sync = account.process(limit=0, yields=True)
    permit = await taken(sync)
    await sync.report_ok(permit, RateHeaders(limit=40, remaining=39, reset_s=30.0))

    await taken(sync)
