"""The survey: who has nothing to do is told so by one statement for all queues, and nothing that the polls of old found
or mended goes unseen."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from conftest import Database
from engine.workbench import Bench, Work, bench, quiet
from hypothesis import given
from hypothesis import strategies as st
from queues import SESSION, insert, lease, open_pool, read
from waiting import until_async

from listener.core.errors import DatabaseError
from listener.core.events import BellArmed, Checked, Event, Rescued, Trouble, Unannounced, Woke
from listener.core.queue import Limits, Queue
from listener.core.trail import Place
from listener.db.configuration import read_configuration
from listener.db.pool import Pool
from listener.db.queue import Claim, QueueTable
from listener.db.survey import Question, Surveyed, SurveyStatement
from listener.engine import survey as survey_module
from listener.engine.configuration import Configuration
from listener.engine.survey import Survey
from listener.workflows.queues import UPLOAD

pytestmark = pytest.mark.anyio

DEAD = 999_999


class Counting(QueueTable):
    """Counts what the survey is to spare."""

    claims = rescues = strays = 0

    async def claim(self, *, limit: int, session_key: int, onward: Sequence[Place] = ()) -> Claim:
        self.claims += 1
        return await super().claim(limit=limit, session_key=session_key, onward=onward)

    async def rescue(self, *, stale_s: float) -> int:
        self.rescues += 1
        return await super().rescue(stale_s=stale_s)

    async def release_strays(self, *, session_key: int, held: object) -> int:
        self.strays += 1
        return await super().release_strays(session_key=session_key, held=held)  # type: ignore[arg-type]


def opened() -> Work:
    work = Work()
    work.open.set()
    return work


def polls(one: Bench) -> int:
    return one.of(Woke).count(Woke(queue="upload", reason="poll"))


def hold(database: Database, key: int, session: int, *, for_s: int = 6) -> None:
    database.execute(
        "UPDATE orders_inbox SET status = 'Processing', claim_id = -1, claimed_by = %s,"
        " claimed_at = now() - make_interval(secs => %s) WHERE id = %s",
        [session, for_s, key],
    )


def unannounced(database: Database, due: str = "now() - interval '1 minute'") -> int:
    """A row that rings nobody, whether the bell is on or not."""
    database.execute("ALTER TABLE orders_inbox DISABLE TRIGGER USER")
    [key] = insert(database, due=due)
    database.execute("UPDATE orders_inbox SET updated_at = '-infinity'")
    database.execute("ALTER TABLE orders_inbox ENABLE TRIGGER USER")
    return key


@asynccontextmanager
async def asleep(database: Database, work: Work, *, poll_s: float) -> AsyncIterator[Bench]:
    """A bench that runs, has its bell on and has polled."""
    async with bench(database, work, limits=Limits(concurrency=5)) as one:
        one.poll_s, one.hears = poll_s, True
        async with one.running():
            await until_async(lambda: one.of(BellArmed) and polls(one), what="quiet")
            yield one


async def test_while_there_is_nothing_to_do_a_poll_is_the_survey_alone(database: Database) -> None:
    async with open_pool(database, max_size=4) as pool:
        table = Counting(pool, UPLOAD)
        one = Bench(pool, opened(), table=table)
        one.poll_s, one.hears = 0.02, True
        async with one.running():
            await until_async(lambda: one.of(BellArmed) and polls(one), what="quiet")
            claims, before = table.claims, polls(one)
            await until_async(lambda: polls(one) >= before + 20, what="20 polls")
            assert (table.claims, table.strays, table.rescues) == (claims, 0, 0)
    checked = [event for event in one.of(Checked) if not event.claimed]
    assert len(checked) >= 20, "each poll counts as a check that was skipped"
    assert all(event.waiting == 0 and event.duration_s > 0 for event in checked)


async def test_a_row_that_no_notice_announced_is_found_by_the_next_poll(database: Database) -> None:
    work = opened()
    async with asleep(database, work, poll_s=0.1) as one:
        key = unannounced(database)
        await quiet(work, 1)
        assert work.seen == [key]
        await until_async(lambda: one.of(Unannounced), what="the word of it")


async def test_a_row_that_comes_due_is_started_when_it_does_although_nobody_announced_it(database: Database) -> None:
    """The poll that sees it sets the alarm: the next one is far away."""
    work = opened()
    async with asleep(database, work, poll_s=0.02) as one:
        unannounced(database, "now() + interval '2 s'")
        before = polls(one)
        await until_async(lambda: polls(one) >= before + 2, what="a poll that sees it")
        one.poll_s = 3_600.0
        before = polls(one)
        await quiet(work, 1)
        assert polls(one) <= before + 1, "one that was asleep already; it is the alarm that wakes"
    assert one.of(Woke)[-1].reason in {"due", "slot", "armed"}
    assert not one.of(Unannounced)


async def test_strays_are_only_looked_for_where_there_are_any(database: Database) -> None:
    (stray,) = insert(database)
    hold(database, stray, SESSION)
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        table = Counting(pool, UPLOAD)
        one = Bench(pool, work, table=table)
        one.poll_s = 0.02
        async with one.running():
            await quiet(work, 1)
            before = polls(one)
            await until_async(lambda: polls(one) >= before + 10, what="10 polls")
    assert table.strays == 1
    assert any("gave back 1 rows" in event.error for event in one.of(Trouble))


@pytest.mark.parametrize(("for_s", "is_stray"), [(0, False), (6, True)])
async def test_a_row_is_no_stray_while_the_reply_of_its_claim_may_be_on_its_way(
    database: Database, for_s: int, is_stray: bool
) -> None:
    """In a busy queue there always are some, and each look for strays is one that no claim may be beside."""
    hold(database, *insert(database), SESSION, for_s=for_s)
    async with bench(database, Work()) as one:
        one.survey.begin(SESSION)
        todo, _ = await one.survey.ask("upload", every_s=15.0)
    assert todo.has_strays == is_stray


async def test_a_bell_that_went_out_unheard_is_turned_on_again(database: Database) -> None:
    """Two sleep by one bell; its holder gives it up and the call that should tell the other is lost."""
    async with open_pool(database, max_size=4) as pool:
        one, two = Bench(pool, opened()), Bench(pool, opened())
        two.poll_s = 0.05
        one.hears = two.hears = True
        async with one.running():
            await until_async(lambda: one.of(BellArmed), what="the bell")
            async with two.running():
                await until_async(lambda: two.of(BellArmed) and polls(two) > 3, what="the other one to sleep, too")
                assert not any(event.is_ours for event in two.of(BellArmed))
                assert len(two.of(BellArmed)) == 1, "it tried for a bell that is on"
                one.hears = False
                one.wake.ring("config")
                await until_async(lambda: two.of(BellArmed)[-1].is_ours, what="the bell, elsewhere")


@pytest.mark.parametrize("trouble", ["gone", "locked"])
async def test_a_table_that_cannot_be_read_keeps_no_other_queue_from_its_poll(database: Database, trouble: str) -> None:
    database.execute('CREATE TABLE "Other" (LIKE orders_inbox INCLUDING ALL)')
    work = opened()
    async with open_pool(database, max_size=4) as pool:
        one = Bench(pool, work)
        one.survey.add(Bench(pool, Work(), queue=Queue(name="other", table="Other")).dispatcher, lambda: 300.0)
        one.poll_s = 0.05
        async with one.running():
            await until_async(lambda: polls(one) > 1, what="a poll")
            with database.connect(autocommit=False) as conn:
                conn.execute('ALTER TABLE "Other" RENAME TO gone' if trouble == "gone" else 'LOCK TABLE "Other"')
                if trouble == "gone":
                    conn.commit()
                unannounced(database)
                await quiet(work, 1)


async def test_polls_of_one_moment_are_one_statement(database: Database) -> None:
    asked: list[Sequence[Question]] = []
    async with open_pool(database) as pool:
        statement = SurveyStatement(pool)

        async def read_(session_key: int, questions: Sequence[Question], **how: Any) -> Surveyed:
            asked.append(questions)
            return await statement.read(session_key, questions, **how)

        survey = Survey(read_)
        for name in ("upload", "other", "third"):
            survey.add(Bench(pool, Work(), queue=Queue(name=name, table="orders_inbox")).dispatcher, lambda: 300.0)
        survey.begin(SESSION)
        async with anyio.create_task_group() as group:
            for name in ("upload", "other", "third"):
                group.start_soon(lambda name=name: survey.ask(name, every_s=15.0))  # type: ignore[misc]
            group.start_soon(survey.poll, configuration(pool, []))
        assert [len(questions) for questions in asked] == [3]
        await survey.ask("upload", every_s=0.0)
        assert len(asked) == 2, "an answer is not for the next poll"


@asynccontextmanager
async def refused(database: Database) -> AsyncIterator[tuple[Survey, list[tuple[bool, float]]]]:
    """A survey whose questions all fail, and how they were asked: whole or not, and what the last whole one took."""
    asked: list[tuple[bool, float]] = []

    async def fail(_session_key: int, _questions: Sequence[Question], *, is_whole: bool, usual_s: float) -> Surveyed:
        asked.append((is_whole, usual_s))
        await anyio.lowlevel.checkpoint()
        raise DatabaseError("away")

    async with open_pool(database) as pool:
        survey = Survey(fail)
        survey.add(Bench(pool, Work()).dispatcher, lambda: 300.0)
        survey.begin(SESSION)
        yield survey, asked


async def test_trouble_is_met_once_by_all_who_ask_in_its_moment(database: Database) -> None:
    async with refused(database) as (survey, asked):
        for _ in range(3):
            with pytest.raises(DatabaseError):
                await survey.ask("upload", every_s=15.0)
    assert len(asked) == 1


async def test_after_a_long_survey_the_polls_look_for_themselves_for_a_while(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the dead wait, and who has rows in work is not asked; what came in unannounced is found as ever."""
    monkeypatch.setattr(survey_module, "_LONG_S", 0.0)
    monkeypatch.setattr(survey_module, "_SHARE", 1e9)
    [theirs] = insert(database)
    hold(database, theirs, DEAD)
    work = opened()
    async with bench(database, work) as one:
        one.survey.begin(SESSION)
        whole, _ = await one.survey.ask("upload", every_s=0.0)
        brief, _ = await one.survey.ask("upload", every_s=0.0)
        assert [(todo.next_due_s, todo.has_stranded) for todo in (whole, brief)] == [(None, True), (0, False)]
        one.poll_s = 0.05
        async with one.running():
            await until_async(lambda: polls(one) > 2, what="polls")
            key = unannounced(database)
            await quiet(work, 1)
    assert work.seen == [key]


@pytest.mark.parametrize(("longest_s", "is_whole_again"), [(3600.0, False), (0.0, True)])
async def test_a_survey_that_is_cut_is_not_asked_whole_again_at_once_but_in_time(
    database: Database, monkeypatch: pytest.MonkeyPatch, longest_s: float, is_whole_again: bool
) -> None:
    """One that found too much to visit within its time would find it again, with each poll."""
    for name, value in {"_LONG_S": 0.0, "_SHARE": 1e9, "_LONGEST_S": longest_s}.items():
        monkeypatch.setattr(survey_module, name, value)
    async with refused(database) as (survey, asked):
        for _ in range(2):
            with pytest.raises(DatabaseError):
                await survey.ask("upload", every_s=0.0)
    [(is_first_whole, at_first), (is_next_whole, then)] = asked
    assert (is_first_whole, is_next_whole) == (True, is_whole_again)
    assert at_first == 0.0 < then, "nor is it given the time of any survey"


def configuration(pool: Pool, events: list[Event]) -> Configuration:
    return Configuration(lambda: read_configuration(pool), events.append)


async def test_the_process_polls_rescue_where_there_is_something_and_bring_the_configuration_along(
    database: Database,
) -> None:
    [key] = insert(database)
    async with open_pool(database) as pool:
        table = Counting(pool, UPLOAD)
        one = Bench(pool, Work(), table=table)
        one.survey.begin(SESSION)
        live = configuration(pool, one.events)
        await live.reload()
        await one.rescuer.rescue(await one.survey.poll(live))
        assert table.rescues == 0
        hold(database, key, DEAD)
        database.execute("UPDATE configuration_params SET param_value = '7' WHERE param_key = 'upload_concurrency'")
        one.survey.begin(SESSION)
        await one.rescuer.rescue(await one.survey.poll(live))
        assert live.live.upload_concurrency == 7
    assert table.rescues == 1
    assert one.of(Rescued) == [Rescued(queue="upload", count=1)]
    assert read(database, key)["status"] == "Pending"


@pytest.mark.parametrize(("timeout_s", "status"), [(10, "Pending"), (300, "Processing")])
async def test_a_claim_is_stale_by_the_timeout_of_its_queue(database: Database, timeout_s: int, status: str) -> None:
    """Rows of a living session; the survey and the rescue go by the same condition."""
    [key] = insert(database)
    with lease(database):
        async with bench(database, Work(), limits=Limits(timeout_s=timeout_s)) as one:
            await one.claim(1)
            database.execute("UPDATE orders_inbox SET claimed_at = now() - interval '100 s'")
            one.survey.begin(SESSION)
            todo, _ = await one.survey.ask("upload", every_s=15.0)
            assert todo.has_stranded == (status == "Pending")
            assert await one.rescuer.rescue() == (status == "Pending")
    assert read(database, key)["status"] == status
    assert one.events == ([Rescued(queue="upload", count=1)] if status == "Pending" else [])


@pytest.mark.parametrize(
    ("rows", "due_s"),
    [
        ([], None),
        ([(100, "'infinity'")], None),
        ([(100, "now() + interval '1 hour'"), (50, "now() + interval '2 hours'")], 3600),
        ([(100, "now() - interval '1 s'"), (50, "now() + interval '2 hours'")], 0),
        ([(100, "'-infinity'")], 0),
    ],
)
async def test_it_knows_when_the_next_row_is_due(
    database: Database, rows: list[tuple[int, str]], due_s: float | None
) -> None:
    for priority, due in rows:
        [key] = insert(database, due=due)
        database.execute("UPDATE orders_inbox SET priority = %s WHERE id = %s", [priority, key])
    async with bench(database, Work()) as one:
        one.survey.begin(SESSION)
        todo, _ = await one.survey.ask("upload", every_s=15.0)
    assert todo.next_due_s == (due_s if not due_s else pytest.approx(due_s, abs=60))


@given(after_s=st.floats(0, 1e6), every_s=st.sampled_from([1.0, 15.0, 60.0, 300.0, 3600.0]))
async def test_polls_fall_together_and_never_further_apart_than_their_interval(after_s: float, every_s: float) -> None:
    survey = Survey(never)
    survey.begin(SESSION)
    after = anyio.current_time() + after_s
    poll_at = survey.next_poll(after, every_s)
    assert after < poll_at <= after + every_s + 0.01
    assert survey.next_poll(poll_at - 0.001, every_s) == pytest.approx(poll_at + every_s), "a timer that is early"
    assert survey.next_poll((after + poll_at) / 2 - 0.01, every_s) == pytest.approx(poll_at) or poll_at - after < 0.05


async def never(_session_key: int, _questions: Sequence[Question], **_how: Any) -> Surveyed:
    raise AssertionError
