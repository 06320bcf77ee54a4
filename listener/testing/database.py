"""The database of one test: SQL, attached tables, `drain`, and what became of the rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from listener.core.job import Settlement
from listener.db.attach import Wish, attach
from listener.db.scratch import Scratch
from listener.library.listener import Listener
from listener.testing.drain import drain


class Database:
    """A migrated database. url: its address. Raises DatabaseError when a statement is refused."""

    def __init__(self, url: str, *, schema: str) -> None:
        self.url = url
        self._schema = schema
        self._scratch = Scratch(url, schema=schema)

    def execute(self, statement: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement, committed at once (without params also several); returns its rows."""
        return self._scratch.execute(statement, params)

    def attach(
        self, table: str, *, key: str | None = None, ready: str | None = None, done: str | None = None,
        content: Sequence[str] | None = None,
    ) -> str:  # fmt: skip
        """Make a table a queue, as `listener attach` does; returns the queue's name. Raises ConfigError."""
        wish = Wish(table=table, key=key, ready=ready, done=done, content=content)
        return attach(self.url, self._schema, wish).queue

    async def drain(self, app: Listener, *queues: str) -> list[Settlement]:
        """Run the app's handlers on this database until nothing is due, one call after the other, and return what was
        settled, in order: `job`, `kind` (complete, retry, snooze, fail), `delay_s`, `error`, `values`.

        queues: default all of the app's. No waiting: a row that is put off is not run again in the same drain,
        however short its delay. In a test that is not async: `anyio.run(listener_database.drain, app)`.
        Raises ConfigError for what the app would not start with.
        """
        return await drain(app, self.url, self._schema, queues)

    def assert_status(self, table: str, status: str, **where: Any) -> None:
        """Fail unless there are rows with these column values (default: any row) and all have the status."""
        rows = self._scratch.statuses(table, where)
        which = f"{table}{''.join(f', {name}={value!r}' for name, value in where.items())}"
        if not rows:
            raise AssertionError(f"{which}: there is no such row")
        others = [(found, error) for found, error in rows if found != status]
        if others:
            counts = ", ".join(f"{count} {word}" for word, count in Counter(word for word, _ in others).items())
            error = next((f"; last_error: {error}" for _, error in others if error), "")
            raise AssertionError(f"{which}: expected {status}, but {counts}{error}")

    def close(self) -> None:
        """Close the connection."""
        self._scratch.close()
