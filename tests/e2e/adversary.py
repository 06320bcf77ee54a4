"""Writers who make it hard for a sleeping listener: each move is a transaction, or a few, as somebody's program does.

`Adversary.attack` plays some at once; what it committed has to be handled without any poll.
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import anyio
import psycopg
from conftest import APPLICATION_NAME, Database
from psycopg import errors
from psycopg.pq import TransactionStatus

Writer: TypeAlias = psycopg.AsyncConnection[tuple[Any, ...]]
Move: TypeAlias = Callable[["Adversary", Writer], Awaitable[None]]

#: `amount` of a row whose handler is held until the round's other rows are done.
HELD = -1
_INSERT = "INSERT INTO invoices (amount) VALUES (%s)"


class Adversary:
    """`writers` connections that play moves, each transaction under `isolation`.

    wanted: how many outcomes "complete" there must be by now.
    """

    def __init__(self, database: Database, isolation: str, rng: random.Random, *, writers: int = 4) -> None:
        self.wanted = 0
        self.refused_prepares = 0
        self._database = database
        self._isolation = isolation
        self._rng = rng
        self._most = writers
        self._writers: list[Writer] = []
        self._serial = 0

    async def __aenter__(self) -> "Adversary":
        for _ in range(self._most):
            writer = await psycopg.AsyncConnection.connect(
                self._database.url, autocommit=True, application_name=APPLICATION_NAME
            )
            await writer.execute(f"SET default_transaction_isolation = '{self._isolation}'")
            self._writers.append(writer)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for writer in self._writers:
            await writer.close()

    async def attack(self, moves: Sequence[Move]) -> None:
        """Play the moves at once, one writer each; returns when all of them have committed."""
        async with anyio.create_task_group() as group:
            for writer, move in zip(self._writers, moves, strict=False):
                group.start_soon(self._play, move, writer)

    async def _play(self, move: Move, writer: Writer) -> None:
        """A transaction that could not be serialized is tried again, as every program has to."""
        is_over = False
        while not is_over:
            with suppress(errors.SerializationFailure):
                await move(self, writer)
                is_over = True
            if writer.info.transaction_status is not TransactionStatus.IDLE:
                await writer.execute("ROLLBACK")

    def choose(self) -> list[Move]:
        """Return moves for one round: at least one fast writer beside others."""
        others = self._rng.choices(MOVES, k=self._rng.randrange(self._most))
        return [fast, *others]

    async def work(self, writer: Writer, most_ms: int = 25) -> None:
        """The writer's own work inside its transaction."""
        await writer.execute("SELECT pg_sleep(%s)", [self._rng.randrange(most_ms) / 1000])

    def amount(self) -> int:
        """Milliseconds that the handler of a row takes."""
        return self._rng.choice([0, 0, 0, 5])


async def fast(by: Adversary, writer: Writer) -> None:
    await writer.execute(_INSERT, [by.amount()])
    by.wanted += 1


async def slow(by: Adversary, writer: Writer) -> None:
    """The row is written, the commit comes late."""
    async with writer.transaction():
        await writer.execute(_INSERT, [by.amount()])
        await by.work(writer)
    by.wanted += 1


async def early(by: Adversary, writer: Writer) -> None:
    """Its transaction, and its snapshot unless it is READ COMMITTED, is older than what the bell does meanwhile."""
    async with writer.transaction():
        await writer.execute("SELECT count(*) FROM invoices WHERE id = 1")
        await by.work(writer)
        await writer.execute(_INSERT, [by.amount()])
        await by.work(writer)
    by.wanted += 1


async def taken_back(by: Adversary, writer: Writer) -> None:
    """A savepoint that is rolled back takes its ring and its part of the lock along; the next row needs its own."""
    async with writer.transaction():
        async with writer.transaction(force_rollback=True):
            await writer.execute(_INSERT, [by.amount()])
            await by.work(writer, 5)
        await by.work(writer, 5)
        await writer.execute(_INSERT, [by.amount()])
        await by.work(writer)
    by.wanted += 1


async def kept(by: Adversary, writer: Writer) -> None:
    """A savepoint that stays, beside one that does not."""
    async with writer.transaction():
        async with writer.transaction():
            await writer.execute(_INSERT, [by.amount()])
        async with writer.transaction(force_rollback=True):
            await writer.execute(_INSERT, [by.amount()])
        await by.work(writer)
    by.wanted += 1


async def many(by: Adversary, writer: Writer) -> None:
    async with writer.transaction():
        await writer.execute("INSERT INTO invoices (amount) SELECT 0 FROM generate_series(1, 20)")
        await by.work(writer)
    by.wanted += 20


async def copied(by: Adversary, writer: Writer) -> None:
    async with writer.transaction(), writer.cursor() as cursor:
        async with cursor.copy("COPY invoices (amount) FROM STDIN") as copy:
            for _ in range(10):
                await copy.write_row([0])
        await by.work(writer)
    by.wanted += 10


async def prepared(by: Adversary, writer: Writer) -> None:
    """Two-phase commit. What has notified cannot be prepared: then the program has to do without."""
    by._serial += 1
    name = f"adversary {by._serial}"
    await writer.execute("BEGIN")
    await writer.execute(_INSERT, [by.amount()])
    try:
        await writer.execute(f"PREPARE TRANSACTION '{name}'")
    except errors.FeatureNotSupported:
        by.refused_prepares += 1
        await fast(by, writer)
        return
    await by.work(writer)
    await writer.execute(f"COMMIT PREPARED '{name}'")
    by.wanted += 1


async def later(by: Adversary, writer: Writer) -> None:
    """Due in some milliseconds: the ring, or the look, must set the alarm."""
    async with writer.transaction():
        await writer.execute(
            "INSERT INTO invoices (amount, scheduled_at) VALUES (%s, clock_timestamp() + make_interval(secs => %s))",
            [by.amount(), by._rng.randrange(60) / 1000],
        )
        await by.work(writer)
    by.wanted += 1


async def retried(by: Adversary, writer: Writer) -> None:
    """A finished row is run again by hand."""
    async with writer.transaction():
        cursor = await writer.execute(
            "UPDATE invoices SET status = 'Pending' WHERE id ="
            " (SELECT id FROM invoices WHERE status = 'Done' AND amount >= 0 ORDER BY random() LIMIT 1)"
            " AND status = 'Done'"
        )
        await by.work(writer)
    by.wanted += cursor.rowcount


async def held(by: Adversary, writer: Writer) -> None:
    """Its handler does not end before the other rows of the round are done."""
    await writer.execute(_INSERT, [HELD])
    by.wanted += 1


async def edited(by: Adversary, writer: Writer) -> None:
    """Somebody has the row locked, for a change that is none of the queue's, when the listeners look for it."""
    cursor = await writer.execute(_INSERT + " RETURNING id", [by.amount()])
    [(key,)] = await cursor.fetchall()
    by.wanted += 1
    with suppress(errors.SerializationFailure):  # the listener was quicker
        async with writer.transaction():
            await writer.execute("UPDATE invoices SET tags = '{seen}' WHERE id = %s", [key])
            await by.work(writer, 60)


async def storm(by: Adversary, writer: Writer) -> None:
    """Commit after commit, faster than the rows are handled: the bell is turned off, and on again afterwards."""
    for _ in range(by._rng.randrange(5, 15)):
        await fast(by, writer)


async def flipped(by: Adversary, writer: Writer) -> None:
    """Somebody switches notifications off and on, or the doorbell, while others write."""
    key = by._rng.choice(["fast_polling_enabled", "doorbell_enabled"])
    for value in ("false", "true"):
        await writer.execute("UPDATE configuration_params SET param_value = %s WHERE param_key = %s", [value, key])
        await by.work(writer)


MOVES: tuple[Move, ...] = (
    *(fast, slow, early, taken_back, kept, many, copied, prepared, later, retried, held, edited),
    *(slow, early, storm, storm, flipped),
)
