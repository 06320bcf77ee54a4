"""A queue: a table whose rows are work. Pure declaration; `db/queue.py` composes its SQL."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """Names of one queue table.

    name: short name in logs, metrics and on the command line ("upload").
    table: the table; schema: where it is, None = the schema of the installation.
    ready_word, done_word: status of a row that is work, and of a completed one.
    noun: what a row is, in plural, for people ("orders").
    label: the content column that a person knows a row by ("order_number"), for the log.
    columns: content columns that a job carries, in this order.
    results: columns that `Done.values` may write.
    key: the single-column primary key.
    concurrency_key: at most one row for each value of these NOT NULL columns is `Processing`, guarded by a unique index
    partial on that status. Another one keeps the ready rows to one each: a claim takes no two of one key.
    """

    name: str
    table: str
    schema: str | None = None
    ready_word: str = "Pending"
    done_word: str = "Done"
    noun: str = "rows"
    label: str | None = None
    columns: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    key: str = "id"
    concurrency_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the live configuration allows a queue right now.

    batch_size: rows in one handler call. concurrency: handler calls at once. timeout_s: seconds one call may take.
    timeout_by: what says so, for a person.
    """

    enabled: bool = True
    batch_size: int = 1
    concurrency: int = 1
    max_attempts: int = 10
    timeout_s: float = 300.0
    timeout_by: str = "operation_timeout"
