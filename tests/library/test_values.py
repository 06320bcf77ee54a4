"""Whatever a column of somebody's table may hold: no row holds up the others, and a result arrives as it was given."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from conftest import Database
from library.invoices import Invoices, listener_on

from listener import Done, Job

pytestmark = pytest.mark.anyio

#: type, as SQL writes it, as the handler sees it
ODD: list[tuple[str, str, Any]] = [
    ("date", "infinity", date.max),
    ("date", "-infinity", date.min),
    ("date", "20000-02-29", "20000-02-29"),
    ("date", "0044-03-15 BC", "0044-03-15 BC"),
    ("timestamp", "infinity", datetime.max),  # noqa: DTZ901
    ("timestamp", "-infinity", datetime.min),  # noqa: DTZ901
    ("timestamptz", "infinity", datetime.max.replace(tzinfo=UTC)),
    ("timestamptz", "-infinity", datetime.min.replace(tzinfo=UTC)),
    ("timestamptz", "20000-02-29 00:00+00", "20000-02-29 00:00:00+00"),
    ("time", "24:00", "24:00:00"),
    ("timetz", "24:00+00", "24:00:00+00"),
    ("interval", "178000000 years", None),
    ("numeric", "NaN", "NaN"),
    ("timestamptz[]", "{infinity}", [datetime.max.replace(tzinfo=UTC)]),
    ("daterange", "[2026-01-01,infinity)", None),
    ("jsonb", "9" * 5_000, None),
    ("json", "[" * 3_000 + "]" * 3_000, None),
]


@pytest.mark.parametrize(("kind", "text", "seen"), ODD, ids=[f"{kind} {text[:20]}" for kind, text, _ in ODD])
async def test_no_value_holds_up_the_queue(database: Database, kind: str, text: str, seen: Any) -> None:
    """psycopg raises for most of these, which would lose the whole claim, for ever."""
    invoices = Invoices(database)
    database.execute(f"ALTER TABLE invoices ADD COLUMN odd {kind}")
    app, got = listener_on(database), list[Any]()

    @app.queue("invoices")
    async def send(job: Job) -> None:
        got.append(job.row["odd"])

    invoices.insert(1, 2)
    database.execute("UPDATE invoices SET odd = %s::text::" + kind + " WHERE amount = 1", [text])
    async with app:
        await invoices.until("Done", "Done")
    [odd] = [value for value in got if value is not None]
    assert seen is None or odd == seen or str(odd) == seen


RESULTS: list[tuple[str, Any, Any]] = [
    ("int[]", [1, None, 3], [1, None, 3]),
    ("text[]", ['a "quoted", word', "{}", "NULL", ""], ['a "quoted", word', "{}", "NULL", ""]),
    ("int[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
    ("numeric[]", [Decimal("0.10")], [Decimal("0.10")]),
    ("jsonb", {"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
    ("json", ["x"], ["x"]),
    ("jsonb", "a word", "a word"),
    ("timestamptz", datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
    ("date", "infinity", "infinity"),
    ("text", None, None),
]


@pytest.mark.parametrize(("kind", "value", "stored"), RESULTS, ids=[f"{kind} {value!r}" for kind, value, _ in RESULTS])
async def test_a_result_arrives_as_it_was_given(database: Database, kind: str, value: Any, stored: Any) -> None:
    invoices = Invoices(database)
    database.execute(f"ALTER TABLE invoices ADD COLUMN result {kind}")
    app = listener_on(database)

    @app.queue("invoices", results=("result",))
    async def send(job: Job) -> Done:
        return Done({"result": value})

    invoices.insert(1)
    async with app:
        await invoices.until("Done")
    column = "result::text" if kind == "date" else "result"
    assert database.execute(f"SELECT {column} FROM invoices") == [(stored,)]
