"""What a library reads of an attached table."""

import pytest
from conftest import Database
from queues import open_pool

from listener.core.errors import ConfigError
from listener.core.queue import Queue
from listener.db.attached import Attached, list_attached, read_attached

pytestmark = pytest.mark.anyio

INVOICES = """
CREATE TABLE invoices (
    number uuid PRIMARY KEY DEFAULT gen_random_uuid(), amount numeric(10, 2), gone integer, note varchar(5),
    twice numeric GENERATED ALWAYS AS (amount * 2) STORED, status text, priority smallint, created_at timestamptz
);
ALTER TABLE invoices DROP COLUMN gone;
INSERT INTO listener_queues (name, table_schema, table_name, key_column, key_type, attached_at)
VALUES ('invoices', 'public', 'invoices', 'number', 'uuid', now())
"""
TYPES = (("amount", "numeric"), ("note", "character varying"), ("created_at", "timestamp with time zone"))


async def test_it_is_all_that_a_declaration_needs(database: Database) -> None:
    """The columns of the queue are left out; results are cast without a length, so that none is cut off."""
    database.execute(INVOICES)
    async with open_pool(database) as pool:
        read = await read_attached(pool, "invoices")
        assert await list_attached(pool) == [read]

    columns = ("number", "amount", "note", "twice", "created_at")
    assert read == Attached(
        name="invoices", schema="public", table="invoices", key="number", key_type="uuid", ready_word="Pending",
        done_word="Done", content=(), columns=columns, writable=TYPES,
    )  # fmt: skip
    assert read.queue == Queue(
        name="invoices", table="invoices", schema="public", key="number", columns=columns, results=TYPES
    )


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ("", "invoces", "table invoces is not attached; run `listener attach invoces`; did you mean invoices?"),
        ("", "parcels", "table parcels is not attached; run `listener attach parcels`"),
        ("UPDATE listener_queues SET attached_at = NULL", "invoices", "table invoices is not completely attached; run `listener attach invoices` again"),  # noqa: E501
        ("DROP TABLE invoices", "invoices", "table public.invoices is attached, but is no longer there; run `listener detach invoices`"),  # noqa: E501
    ],
)  # fmt: skip
async def test_what_is_not_there_or_not_complete(database: Database, change: str, name: str, text: str) -> None:
    database.execute(INVOICES)
    if change:
        database.execute(change)
    async with open_pool(database) as pool:
        with pytest.raises(ConfigError) as caught:
            await read_attached(pool, name)
        assert (await list_attached(pool) == []) == bool(change)
    assert str(caught.value) == text
