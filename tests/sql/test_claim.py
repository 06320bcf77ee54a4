"""The claim takes what is due, in order, never more than asked for, each row once, and reads no more than it takes."""

import itertools
import re
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from conftest import Database, Server, fresh_database
from psycopg import sql
from psycopg.rows import dict_row
from queues import (
    SESSION,
    claim,
    counts,
    due,
    engine_connection,
    insert,
    lock_class_oid,
    open_pool,
    read,
    read_all,
    statement,
)

from listener.core.queue import Queue
from listener.db.queries import template
from listener.db.queue import QueueTable, _fields
from listener.workflows.queues import UPLOAD

#: What a planner may do differently; every combination is tried.
JOINS = ("enable_nestloop", "enable_hashjoin", "enable_mergejoin", "enable_memoize")
SWITCHES = (
    *JOINS,
    "enable_seqscan",
    "enable_indexscan",
    "enable_bitmapscan",
    "enable_sort",
    "enable_material",
)
MANY = 100_000


@pytest.fixture
def conn(database: Database) -> psycopg.Connection[dict[str, Any]]:
    return engine_connection(database)


@pytest.mark.parametrize("statistics", ["never", "when empty", "when full"])
def test_never_more_than_the_limit_and_in_order_under_every_plan(database: Database, statistics: str) -> None:
    """Whatever joins and scans the planner may use, from whatever statistics, planned for this call or for any."""
    database.execute("ALTER TABLE orders_inbox SET (autovacuum_enabled = off)")
    if statistics == "when empty":
        database.execute("ANALYZE orders_inbox")
    for priority in (3, 1, 2):
        insert(database, 150, due="now() - random() * interval '1 hour'", priority=priority)
        insert(database, 50, due="now() + interval '1 hour'", priority=priority)
    insert(database, 300, status="Uploaded")
    if statistics == "when full":
        database.execute("ANALYZE orders_inbox")
    wanted = due(database)
    conn = database.connect(row_factory=dict_row)
    for plan_mode, limit, switches in (
        ("force_custom_plan", 10, SWITCHES),
        ("force_custom_plan", 200, JOINS),
        ("force_generic_plan", 10, JOINS),
    ):
        for values in itertools.product(("on", "off"), repeat=len(switches)):
            with conn.transaction(force_rollback=True):
                set_all(conn, {**dict(zip(switches, values, strict=True)), "plan_cache_mode": plan_mode, "jit": "off"})
                claimed = claim(conn, limit, prepare=True)
                assert [row["job_key"] for row in claimed] == wanted[:limit], (plan_mode, values)
                (taken,) = conn.execute("SELECT count(*) FROM orders_inbox WHERE status = 'Processing'").fetchall()
                assert taken["count"] == limit, (plan_mode, values)


def set_all(conn: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    columns = [sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()]
    conn.execute(sql.SQL("SELECT ") + sql.SQL(", ").join(columns))


def test_lower_priority_first_then_the_one_due_longest_then_the_first_inserted(
    database: Database, conn: psycopg.Connection[Any]
) -> None:
    late = insert(database, priority=200, due="now() - interval '2 days'")
    third = insert(database, 2, priority=100, due="'2021-01-01'")
    second = insert(database, priority=100, due="'2020-01-01'")
    first = insert(database, priority=-5)

    assert [row["job_key"] for _ in range(5) for row in claim(conn, 1)] == [*first, *second, *third, *late]


def test_claim_marks_the_row_as_ours(database: Database, conn: psycopg.Connection[Any]) -> None:
    """One claim_id for what one statement took, another for the next; attempts counted; the clock is the database's."""
    ids = insert(database, 3, attempts=4)
    (before,) = database.execute("SELECT clock_timestamp()")[0]

    one, two, three = [*claim(conn, 2), *claim(conn, 5, session_key=8)]

    (after,) = database.execute("SELECT clock_timestamp()")[0]
    assert one["claim_id"] == two["claim_id"] != three["claim_id"]
    assert [row["attempts"] for row in (one, two, three)] == [5, 5, 5]
    rows = read_all(database, ids)
    assert [(r["status"], r["attempts"], r["claimed_by"]) for r in rows] == [
        ("Processing", 5, SESSION),
        ("Processing", 5, SESSION),
        ("Processing", 5, 8),
    ]
    assert [row["claim_id"] for row in rows] == [one["claim_id"], two["claim_id"], three["claim_id"]]
    assert all(before <= row["claimed_at"] <= after for row in rows)


def test_a_row_whose_attempts_cannot_grow_is_claimed_with_its_neighbours(
    database: Database, conn: psycopg.Connection[Any]
) -> None:
    """Written by a hand; one number too large would refuse the whole claim, for ever."""
    ids = [*insert(database, attempts=2**31 - 1), *insert(database)]

    rows = claim(conn, 10)

    assert [(row["job_key"], row["attempts"]) for row in rows] == [(ids[0], 2**31 - 1), (ids[1], 1)]


def test_rows_that_are_no_work_are_never_touched(database: Database, conn: psycopg.Connection[Any]) -> None:
    """Any other word, any other spelling, and what is not due."""
    for status in ("Uploaded", "Failed", "Processing", "pending", "PENDING", "Pending ", "On hold", ""):
        insert(database, status=status, due="'2020-01-01'")
    insert(database, due="now() + interval '1 hour'")
    before = read_all(database)

    assert claim(conn, 100) == []
    assert read_all(database) == before


def test_each_row_goes_to_exactly_one_of_many_claimers(database: Database) -> None:
    """Also while somebody edits, reschedules and reprioritises the waiting rows."""
    ids = insert(database, 2_000, payload="{}")
    taken: list[int] = []
    sizes: list[int] = []
    faults: list[BaseException] = []
    stop = threading.Event()

    def work(key: int) -> None:
        try:
            conn = engine_connection(database)
            empty = 0
            while empty < 3:
                rows = claim(conn, 7, session_key=key)
                sizes.append(len(rows))
                taken.extend(row["job_key"] for row in rows)
                empty = 0 if rows else empty + 1
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            faults.append(error)

    def write() -> None:
        try:
            conn = database.connect()
            for number in itertools.count():
                if stop.is_set():
                    return
                conn.execute(
                    "UPDATE orders_inbox SET payload = jsonb_build_object('n', %s::int), priority = priority + %s"
                    " WHERE status = 'Pending' AND id %% 13 = %s",
                    [number, number % 3 - 1, number % 13],
                )
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            faults.append(error)

    writer = threading.Thread(target=write)
    claimers = [threading.Thread(target=work, args=[key]) for key in range(1, 7)]
    for thread in (writer, *claimers):
        thread.start()
    for thread in claimers:
        thread.join()
    stop.set()
    writer.join()
    conn = engine_connection(database)
    taken.extend(row["job_key"] for row in claim(conn, 2_000))  # what the writer held at the end

    assert faults == []
    assert sorted(taken) == sorted(ids)
    assert max(sizes) <= 7
    assert {row["attempts"] for row in read_all(database)} == {1}


def test_a_held_row_is_passed_over(database: Database, conn: psycopg.Connection[Any]) -> None:
    """It neither delays the claim nor shortens it."""
    ids = insert(database, 5)
    with database.connect() as other, other.transaction():
        other.execute("SELECT FROM orders_inbox WHERE id = ANY (%s) FOR UPDATE", [ids[:2]])
        conn.execute("SET statement_timeout = '5s'")

        assert [row["job_key"] for row in claim(conn, 2)] == ids[2:4]


def next_due_s(conn: psycopg.Connection[Any], limit: int = 10) -> float | None:
    rows = conn.execute(statement("claim"), {"limit": limit, "session_key": SESSION}).fetchall()
    return rows[0]["next_due_s"]


def test_next_due_is_the_earliest_of_all_priorities(database: Database, conn: psycopg.Connection[Any]) -> None:
    """Due rows and rows of other statuses do not count, whatever their priority."""
    assert next_due_s(conn) is None
    insert(database, priority=1)
    insert(database, priority=50, due="now() - interval '1 day'")
    insert(database, status="Failed", due="now() + interval '1 second'")
    assert next_due_s(conn) is None
    for priority, due_s in ((5, 500), (7, 100), (7, 900), (100, 300), (32767, 200), (-32768, 400)):
        insert(database, priority=priority, due=f"now() + interval '{due_s} seconds'")
        insert(database, priority=priority)

    for limit in (1, 100):
        found = next_due_s(conn, limit)
        assert found is not None
        assert 60 < found <= 100


def test_rows_that_never_come_due_stop_nobody(database: Database, conn: psycopg.Connection[Any]) -> None:
    """A person may park a row with 'infinity', or run one first with '-infinity'."""
    insert(database, due="'infinity'")
    first = insert(database, due="'-infinity'")
    database.execute("UPDATE orders_inbox SET updated_at = NULL")

    assert next_due_s(conn) is None
    assert database.execute("SELECT status FROM orders_inbox WHERE id = %s", first) == [("Processing",)]
    insert(database, due="'-infinity'")
    insert(database, due="now() + interval '50 seconds'")
    depth = conn.execute(statement("depth")).fetchone()
    assert depth is not None
    assert (depth["pending"], depth["processing"], depth["oldest_pending_s"]) == (3, 1, 0.0)
    found = next_due_s(conn)
    assert found is not None
    assert 10 < found <= 50


def test_a_claim_is_not_flushed_but_a_settle_is(database: Database, conn: psycopg.Connection[Any]) -> None:
    """The setting ends with the claim's own transaction."""
    insert(database)
    with conn.transaction():
        claim(conn, 1)
        assert conn.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "off"}
    assert conn.execute("SHOW synchronous_commit").fetchone() == {"synchronous_commit": "on"}


@pytest.mark.anyio
@pytest.mark.parametrize("is_pooled", [False, True])
async def test_jobs_carry_the_row(database: Database, is_pooled: bool) -> None:
    """Through the gateway, on a direct address and behind a transaction pooler."""
    (key,) = insert(database, due="now() - interval '1 minute'", payload='{"a": 1}', attempts=2)
    database.execute("UPDATE orders_inbox SET updated_at = now() - interval '30 seconds'")
    async with open_pool(database, is_pooled=is_pooled) as pool:
        table = QueueTable(pool, UPLOAD)
        (job,) = (await table.claim(limit=3, session_key=SESSION)).jobs
        nothing = await table.claim(limit=3, session_key=SESSION)

    row = read(database, key)
    assert (job.queue, job.id, job.claim_id, job.attempt, job.revision) == ("upload", key, row["claim_id"], 3, 0)
    assert (job.row["order_number"], job.row["payload"]) == (row["order_number"], {"a": 1})
    assert 25 < job.due_for_s < 60
    assert (nothing.jobs, nothing.next_due_s) == ([], None)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "payload", ["('{\"n\": ' || repeat('1', 5000) || '}')::jsonb", "(repeat('[', 1500) || repeat(']', 1500))::jsonb"]
)
async def test_a_payload_that_python_cannot_read_costs_only_its_own_row(database: Database, payload: str) -> None:
    """A number of 5,000 digits, or 1,500 levels: Postgres stores both. It is handed over, to be refused by name.

    How many levels Python reads depends on its version.
    """
    ids = insert(database, 3, payload="{}")
    database.execute(f"UPDATE orders_inbox SET payload = {payload} WHERE id = %s", ids[:1])
    async with open_pool(database) as pool:
        jobs = (await QueueTable(pool, UPLOAD).claim(limit=5, session_key=SESSION)).jobs

    assert [job.id for job in jobs] == ids
    assert isinstance(jobs[0].row["payload"], str | list)
    assert [job.row["payload"] for job in jobs[1:]] == [{}, {}]


@pytest.mark.anyio
@pytest.mark.parametrize("columns", [(), ("key", "priority", "scheduled_at", "claim_id", 'odd "name"')])
async def test_a_table_of_any_shape_is_claimed_and_settled(empty_database: Database, columns: tuple[str, ...]) -> None:
    """Without content columns, and with ones that are named like ours."""
    empty_database.install()
    own = {"claim_id": "bigint", "priority": "smallint", "scheduled_at": "timestamptz"}
    more = [sql.SQL("{} text DEFAULT 'x', ").format(sql.Identifier(name)) for name in columns if name not in own]
    empty_database.execute(
        sql.SQL(
            """CREATE TABLE "Odd jobs" ({}"The Key" text PRIMARY KEY, status text NOT NULL DEFAULT 'Pending',
               priority smallint NOT NULL DEFAULT 100, scheduled_at timestamptz NOT NULL DEFAULT now(),
               attempts integer NOT NULL DEFAULT 0, claim_id bigint, claimed_by integer, claimed_at timestamptz,
               revision integer NOT NULL DEFAULT 0, last_error text, finished_at timestamptz, updated_at timestamptz);
               INSERT INTO "Odd jobs" ("The Key") VALUES ('b'), ('a')"""
        ).format(sql.SQL("").join(more))
        + sql.SQL('; GRANT ALL ON "Odd jobs" TO PUBLIC')
    )
    queue = Queue(name="odd", table="Odd jobs", columns=columns, key="The Key")
    async with open_pool(empty_database) as pool:
        table = QueueTable(pool, queue, key_type="text")
        jobs = (await table.claim(limit=5, session_key=SESSION)).jobs
        assert await table.release_strays(session_key=SESSION, held=[]) == 2

    assert [job.id for job in jobs] == ["a", "b"]
    assert [tuple(job.row) for job in jobs] == [columns, columns]
    assert {job.row["key"] for job in jobs if columns} <= {"x"}


@pytest.mark.anyio
async def test_a_claim_goes_on_where_another_one_ended(database: Database) -> None:
    """In each priority. Rows of one moment are told apart by their key; what stands before is left, and found by a look
    at all rows; a priority that is not known is gone through from its first row."""
    moment = "timestamptz '2026-01-02 03:04:05.678901+00'"
    same = insert(database, 4, due=moment)
    old, urgent = insert(database, due="'-infinity'"), insert(database, 2, priority=1)
    later = insert(database, due=f"{moment} + interval '1 microsecond'")
    async with open_pool(database) as pool:
        table = QueueTable(pool, UPLOAD)
        first = await table.claim(limit=3, session_key=SESSION)
        assert [job.id for job in first.jobs] == [*urgent, *old]
        assert [(place.priority, place.key) for place in first.last] == [(1, urgent[-1]), (100, *old)]
        again = await table.claim(limit=2, session_key=SESSION, onward=first.last)
        assert [job.id for job in again.jobs] == same[:2]
        known = [first.last[0], *again.last]
        before = [*insert(database, due=moment, priority=1), *insert(database, due="'-infinity'")]
        between, first_of_all = insert(database, 2, priority=99), insert(database, 2, priority=-5)
        last_of_all = insert(database, 2, due="'-infinity'", priority=101)
        rest = await table.claim(limit=99, session_key=SESSION, onward=known)
        assert [job.id for job in rest.jobs] == [*first_of_all, *between, *same[2:], *later, *last_of_all]
        nothing = await table.claim(limit=9, session_key=SESSION, onward=[first.last[0], *rest.last])
        assert (nothing.jobs, nothing.last, nothing.passed_over) == ([], (), False)
        whole = await table.claim(limit=9, session_key=SESSION)
        assert [job.id for job in whole.jobs] == before


@pytest.mark.anyio
async def test_a_claim_that_goes_on_tells_when_the_next_row_comes_due(database: Database) -> None:
    """Of known and unknown priorities."""
    insert(database)
    async with open_pool(database) as pool:
        table = QueueTable(pool, UPLOAD)
        last = (await table.claim(limit=3, session_key=SESSION)).last
        for minutes, priority in ((3, 100), (2, 50), (1, 500)):
            insert(database, due=f"now() + interval '{minutes} minutes'", priority=priority)
            next_due_s = (await table.claim(limit=3, session_key=SESSION, onward=last)).next_due_s
            assert next_due_s is not None
            assert 60 * (minutes - 1) < next_due_s <= 60 * minutes


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [10, 200])
async def test_a_claim_that_goes_on_reads_nothing_of_what_was_claimed(database: Database, limit: int) -> None:
    """While an old snapshot keeps VACUUM away, the head of the index is full of rows that are not there any more.
    A claim that is not full asks what it has passed over, and reads nothing of it either. One that looks at all rows
    reads it once."""
    insert(database, 20_000)
    holder = database.connect()
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    async with open_pool(database) as pool:
        last = (await QueueTable(pool, UPLOAD).claim(limit=19_900, session_key=SESSION)).last
    [place] = last
    conn = engine_connection(database)
    params = {"limit": limit, "session_key": SESSION}
    known = {"priorities": [place.priority], "scheduled_at_s": [place.scheduled_at_s], "keys": [place.key]}
    fields = _fields(UPLOAD, "bigint")
    going_on = template("queue", "claim", fields | {"priorities": template("queue", "known_priorities", fields)})
    pages = {}
    for name, text, values in (("whole", statement("claim"), params), ("going on", going_on, params | known)):
        conn.execute("BEGIN")
        plan = conn.execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + text, values).fetchall()
        pages[name] = plan[0]["QUERY PLAN"][0]["Plan"]["Shared Hit Blocks"]
        conn.execute("ROLLBACK")
    assert 450 < pages["whole"] - pages["going on"] < 2 * 450, pages  # each visit of the 19,900 is 530 pages


@pytest.mark.anyio
async def test_a_claim_that_goes_on_reads_nothing_of_another_priority(database: Database) -> None:
    """Nor to find when its own next row is due."""
    for priority in (100, 200, 300):
        insert(database, 8_000, priority=priority)
    holder = database.connect()
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    async with open_pool(database) as pool:
        last = (await QueueTable(pool, UPLOAD).claim(limit=24_000, session_key=SESSION)).last
    insert(database, 2)
    fields = _fields(UPLOAD, "bigint")
    going_on = template("queue", "claim", fields | {"priorities": template("queue", "known_priorities", fields)})
    params = {
        "limit": 10,
        "session_key": SESSION,
        "priorities": [place.priority for place in last],
        "scheduled_at_s": [place.scheduled_at_s for place in last],
        "keys": [place.key for place in last],
    }
    assert params["priorities"] == [100, 200, 300]
    plan = engine_connection(database).execute(sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ") + going_on, params)
    [row] = plan.fetchall()
    assert row["QUERY PLAN"][0]["Plan"]["Shared Hit Blocks"] < 200, "each visit of the 8,000 is 210 pages"


# What the statements read. One table of a million finished rows for all of these; each statement is rolled back.


@pytest.fixture(scope="module")
def history(server: Server, template: str) -> Iterator[Database]:
    with fresh_database(server, template) as database:
        # statistics of the empty table: the worst that a planner can be told
        database.execute("ALTER TABLE orders_inbox SET (autovacuum_enabled = off)")
        database.execute("ANALYZE orders_inbox")
        database.execute("INSERT INTO orders_inbox (status) SELECT 'Uploaded' FROM generate_series(1, 1000000)")
        yield database


@pytest.fixture(params=["statistics of the empty table", "analysed"])
def stale_or_not(request: pytest.FixtureRequest, history: Database) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A connection inside a transaction that is rolled back, with old or with new statistics."""
    conn = engine_connection(history)
    with conn.transaction(force_rollback=True):
        if request.param == "analysed":
            conn.execute("ANALYZE orders_inbox")
        yield conn
    history.execute("VACUUM (INDEX_CLEANUP ON) orders_inbox")  # what was rolled back would be read by the next test


def add(conn: psycopg.Connection[Any], count: int, due: str, *, priority: int = 100) -> None:
    conn.execute(
        sql.SQL("INSERT INTO orders_inbox (scheduled_at, priority) SELECT {}, {} FROM generate_series(1, {})").format(
            sql.SQL(due), priority, count
        )
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


class Plan:
    """What EXPLAIN (ANALYZE, BUFFERS) says of the plan for all values that the engine's connections make."""

    def __init__(self, conn: psycopg.Connection[Any], name: str, params: dict[str, Any] | None = None) -> None:
        text, given = statement(name).as_string(None), params or {}
        names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
        for number, placeholder in enumerate(names, 1):
            text = text.replace(f"%({placeholder})s", f"${number}")
        conn.execute(f"PREPARE planned AS {text.replace('%%', '%')}".encode())
        values = sql.SQL("({})").format(sql.SQL(", ").join(sql.Literal(given[each]) for each in names))
        explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE planned") + (
            values if names else sql.SQL("")
        )
        with conn.transaction(force_rollback=True):
            (row,) = conn.execute(explain).fetchall()
        conn.execute("DEALLOCATE planned")
        self.root = row["QUERY PLAN"][0]["Plan"]
        self.all = list(nodes(self.root))

    @property
    def scans(self) -> set[str]:
        return {
            node["Node Type"]
            for node in self.all
            if node.get("Relation Name") == "orders_inbox" and "Scan" in node["Node Type"]
        }

    def pages(self, part: str | None = None) -> int:
        """Pages looked at, by the whole or by the named part."""
        node = self.root if part is None else next(n for n in self.all if n.get("Subplan Name") == f"CTE {part}")
        return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])

    @property
    def rows(self) -> int:
        """Rows that all nodes together passed on or threw away, the measure of work that no machine changes."""
        kinds = (
            "Actual Rows",
            "Rows Removed by Filter",
            "Rows Removed by Join Filter",
            "Rows Removed by Index Recheck",
        )
        return int(sum(node.get(kind, 0) * node["Actual Loops"] for node in self.all for kind in kinds))


INDEX_SCANS = {"Index Scan", "Index Only Scan"}


def test_the_engines_statements_are_planned_once(database: Database) -> None:
    """Planning a claim takes as long as claiming a row."""
    conn = engine_connection(database)
    for _ in range(10):
        insert(database, 2)
        (job, _other) = claim(conn, 2, prepare=True)
        usual = {each: [] for each in ("kinds", "revisions", "delays", "errors", "values")}
        settle = usual | {"keys": [job["job_key"]], "claims": [job["claim_id"]]}
        conn.execute(statement("settle"), settle, prepare=True)
    plans = conn.execute("SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE NOT from_sql").fetchall()
    assert sum(plan["generic_plans"] for plan in plans) >= 20
    assert [plan["custom_plans"] for plan in plans if plan["custom_plans"] > 1] == []


def test_claim_reads_only_what_it_takes(stale_or_not: psycopg.Connection[Any]) -> None:
    """A million finished rows cost it nothing."""
    add(stale_or_not, 100, "now() - interval '1 second'")

    plan = Plan(stale_or_not, "claim", {"limit": 50, "session_key": SESSION})

    assert plan.scans == INDEX_SCANS
    assert plan.pages("due") <= 60 + 10
    assert plan.pages("priorities") <= 10
    assert plan.rows < 16 * 50


def test_a_claim_of_few_reads_few_of_many(stale_or_not: psycopg.Connection[Any]) -> None:
    """A plan for all values does not know the LIMIT, and would read the table for a hash join."""
    add(stale_or_not, 20_000, "now() - interval '1 second'")
    stale_or_not.execute("ANALYZE orders_inbox")

    plan = Plan(stale_or_not, "claim", {"limit": 10, "session_key": SESSION})

    assert plan.scans == INDEX_SCANS
    assert plan.pages() < 300
    assert plan.rows < 20 * 10


def test_claim_does_not_read_what_is_due_later(stale_or_not: psycopg.Connection[Any]) -> None:
    """100,000 rows due later, in two priorities, around 100 that are due: on every supported server."""
    add(stale_or_not, MANY // 2, "now() + interval '1 hour'", priority=50)
    add(stale_or_not, MANY // 2, "now() + interval '2 hours'", priority=100)
    params = {"limit": 200, "session_key": SESSION}

    idle = Plan(stale_or_not, "claim", params)
    add(stale_or_not, 100, "now() - interval '1 second'", priority=70)
    busy = Plan(stale_or_not, "claim", params)
    waiting = Plan(stale_or_not, "waiting", {"most": 10_000})

    assert idle.scans == busy.scans == INDEX_SCANS
    assert idle.pages() < 60
    assert busy.pages("due") <= 150
    assert busy.rows < 19 * 100  # claimed, and asked whether any was passed over
    assert waiting.pages() < 60


def test_rescue_reads_only_the_rows_in_work(stale_or_not: psycopg.Connection[Any]) -> None:
    """Also when thousands are stranded at once: pg_locks is read once, and no part grows with their square."""
    live = Plan(stale_or_not, "rescue", {"lock_class": lock_class_oid("public"), "stale_s": 300.0})
    add(stale_or_not, 1_500, "now()")
    claim(stale_or_not, 1_500)
    stranded = Plan(stale_or_not, "rescue", {"lock_class": lock_class_oid("public"), "stale_s": 0.0})

    assert live.scans | stranded.scans <= INDEX_SCANS
    assert live.pages() < 20
    assert stranded.rows < 20 * 1_500
    assert {node["Actual Loops"] for node in stranded.all if node["Node Type"] == "Function Scan"} == {1}


def test_depth_and_count_read_partial_indexes(stale_or_not: psycopg.Connection[Any]) -> None:
    add(stale_or_not, 100, "now() - interval '1 second'")

    depth, waiting = Plan(stale_or_not, "depth"), Plan(stale_or_not, "waiting", {"most": 10_000})

    assert depth.scans <= INDEX_SCANS
    assert waiting.scans <= INDEX_SCANS
    assert depth.pages() < 300  # each pending row's page is looked at twice: fresh rows are on no visibility map
    assert waiting.pages() < 150


def test_settle_and_strays_find_their_rows_by_index(stale_or_not: psycopg.Connection[Any]) -> None:
    add(stale_or_not, 100, "now() - interval '1 second'")
    jobs = claim(stale_or_not, 100)
    params = {
        "keys": [job["job_key"] for job in jobs],
        "claims": [job["claim_id"] for job in jobs],
        "kinds": ["complete"] * 100,
        "revisions": [0] * 100,
        "delays": [0.0] * 100,
        "errors": [None] * 100,
        "values": ["{}"] * 100,
    }

    settle = Plan(stale_or_not, "settle", params)
    strays = Plan(stale_or_not, "release_strays", {"session_key": SESSION, "held": []})

    assert settle.scans == strays.scans == {"Index Scan"}
    assert settle.rows < 10 * 100


def test_claim_without_the_engines_settings_is_right_all_the_same(history: Database) -> None:
    """A default plan may be slower after an analyse of the empty table, never wrong; analysed, it uses the index."""
    conn = history.connect(row_factory=dict_row)
    with conn.transaction(force_rollback=True):
        add(conn, 100, "now() - interval '1 second'")
        assert len(claim(conn, 40)) == 40
        conn.execute("ANALYZE orders_inbox")
        plan = Plan(conn, "claim", {"limit": 20, "session_key": SESSION})
        assert len(claim(conn, 100)) == 60
    assert plan.scans == INDEX_SCANS
    assert counts(history) == {"Uploaded": 1_000_000}
