"""A table of somebody's own, attached: what the library's tests work on."""

from typing import Any

from conftest import Database
from waiting import until_async

from listener import Listener

CREATE = """
CREATE TABLE {table} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, amount numeric, customer jsonb, sent_at timestamptz, tags text[]
)
"""


class Invoices:
    """The attached table `table` of a database."""

    def __init__(self, database: Database, table: str = "invoices") -> None:
        self.table = table
        self._database = database
        database.execute(CREATE.format(table=table))
        database.execute("SELECT attach_queue(%s::regclass)", [table])
        database.grant()

    def insert(self, *amounts: Any, customer: str | None = None) -> list[int]:
        """Insert one row each, in one statement; their ids."""
        text = f"INSERT INTO {self.table} (amount, customer) SELECT a, %s::jsonb FROM unnest(%s::numeric[]) AS a"
        return [row[0] for row in self._database.execute(f"{text} RETURNING id", [customer, list(amounts)])]

    def statuses(self) -> list[tuple[str, int]]:
        """Status and attempts of each row, in order."""
        return self._database.execute(f"SELECT status, attempts FROM {self.table} ORDER BY id")

    async def until_counted(self, *counted: tuple[str, int]) -> None:
        """Wait until the rows have these statuses and attempts, in order."""
        await until_async(lambda: self.statuses() == list(counted), what=f"{counted}; now {self.statuses()}")

    def errors(self) -> list[str | None]:
        return [row[0] for row in self._database.execute(f"SELECT last_error FROM {self.table} ORDER BY id")]

    async def until(self, *statuses: str) -> None:
        """Wait until the rows have these statuses, in order."""
        await until_async(
            lambda: [status for status, _ in self.statuses()] == list(statuses),
            what=f"{statuses}; now {self.statuses()} {self.errors()}",
        )


def listener_on(database: Database, **options: Any) -> Listener:
    """Return a listener on the test's database, whatever the environment says."""
    return Listener(database_url=database.service_url, **options)
