"""No lost wakeup: whatever writers do, every committed row is handled although each poll is an hour away.

`--rounds 1000` measures; run with -s to see the figures.
"""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from conftest import Database
from library.invoices import Invoices, listener_on
from waiting import until_async

from e2e.adversary import HELD, Adversary, Move, held
from listener import Job, Listener
from listener.core.events import Event, Settled, Unannounced, Woke

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(3_600)]

LEVELS = ["read committed", "repeatable read", "serializable"]
DEADLINE_S = 15.0
BELL = (
    "SELECT l.pid FROM pg_locks AS l WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
    " AND classid = 1869374562::oid AND objid = 'invoices'::regclass"
)


class Listeners:
    """Listeners on one table, in this process, each with its own session and two slots."""

    def __init__(self) -> None:
        self.apps: list[Listener] = []
        self.complete = 0
        self.reasons: Counter[str] = Counter()
        self.unannounced = 0
        self.let_go = anyio.Event()

    async def handle(self, job: Job) -> None:
        amount = job.row["amount"]
        if amount == HELD:
            await self.let_go.wait()
        elif amount:
            with anyio.move_on_after(float(amount) / 1000):
                await self.let_go.wait()

    def on_event(self, event: Event) -> None:
        if isinstance(event, Settled):
            self.complete += event.outcomes.get("complete", 0)
        elif isinstance(event, Woke):
            self.reasons[event.reason] += 1
        elif isinstance(event, Unannounced):
            self.unannounced += event.count

    def hold(self) -> None:
        """Hold what is to be held from now on."""
        self.let_go = anyio.Event()

    def release(self) -> None:
        """Let the held rows end."""
        self.let_go.set()


@asynccontextmanager
async def listeners(database: Database, count: int) -> AsyncIterator[Listeners]:
    """Run `count` listeners that never poll."""
    database.execute(
        "INSERT INTO configuration_params VALUES ('fast_polling_interval', '3600'), ('log_level', 'error')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    group = Listeners()
    async with AsyncExitStack() as stack:
        for _ in range(count):
            app = listener_on(database)
            app.queue("invoices", concurrency=2)(group.handle)
            await stack.enter_async_context(app)
            process = app._process
            assert process is not None
            process.bus.subscribe(group.on_event)
            group.apps.append(app)
            await until_async(lambda p=process: p.supervisor.state == "connected", what="the session")
        stack.callback(group.release)
        await until_async(lambda: database.execute(BELL), what="the bell")
        yield group


async def settle_down(group: Listeners, by: Adversary, database: Database, moves: Sequence[Move]) -> None:
    """Wait until what was committed is done: first all but the held rows, then those too."""

    def open_rows() -> list[tuple[int, str]]:
        return database.execute(
            "SELECT id, status FROM invoices WHERE status <> 'Done' AND NOT (status = 'Processing' AND amount = -1)"
        )

    names = ", ".join(move.__name__ for move in moves)
    await until_async(lambda: not open_rows(), deadline_s=DEADLINE_S, what=f"the rows of {names}")
    group.release()
    await until_async(
        lambda: group.complete >= by.wanted, deadline_s=DEADLINE_S, what=f"{by.wanted} outcomes after {names}"
    )


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("isolation", LEVELS)
async def test_every_row_is_handled_once_without_a_poll(
    isolation: str, count: int, database: Database, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--rounds")
    rng = random.Random(f"{isolation} {count}")
    Invoices(database)
    started = time.monotonic()
    losses = 0
    async with listeners(database, count) as group, Adversary(database, isolation, rng) as by:
        for _ in range(rounds):
            if rng.randrange(2):
                await until_async(lambda: database.execute(BELL), what="the bell")
            moves = by.choose()
            group.hold()
            if moves.count(held) > 2 * count - 1:
                moves = [move for move in moves if move is not held]
            losses += rng.randrange(25) == 0 and terminate_holder(database)
            await by.attack(moves)
            await settle_down(group, by, database, moves)
        assert group.complete == by.wanted, "each row once, by outcome"
        assert database.execute("SELECT DISTINCT status FROM invoices") == [("Done",)]
        assert (group.unannounced, group.reasons["poll"]) == (0, 0)
    print(  # noqa: T201 - the figures
        f"\n{isolation}, {count} listeners: {rounds} rounds, {by.wanted} rows, lost 0,"
        f" {losses} sessions ended, {by.refused_prepares} prepares refused,"
        f" {time.monotonic() - started:.1f} s; wakes {dict(group.reasons)}"
    )


def terminate_holder(database: Database) -> int:
    """End the session that has the bell on, if one has."""
    return len(database.execute(f"SELECT pg_terminate_backend(pid) FROM ({BELL}) AS bell"))
