"""The check of what a role, a database or the server presets for our connections.

statement_timeout, search_path and idle_in_transaction_session_timeout are not judged: every connection of ours sets its
own, `listener migrate` too. A preset default_transaction_read_only is told by `reachable`.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from listener.cli.doctor.finding import Case, Finding, ok, warn

#: Name → the values that harm, and why. Times in ms.
_HARMS: Mapping[str, tuple[Callable[[str], bool], str]] = MappingProxyType(
    {
        "lock_timeout": (
            lambda value: 0 < int(value) < 10_000,
            "an outcome that waits for somebody's lock is refused, and written only later",
        ),
        "idle_session_timeout": (
            lambda value: 0 < int(value) < 600_000,
            "idle connections of the pool are cut off, and the next statement on them fails",
        ),
        "transaction_timeout": (
            lambda value: int(value) > 0,
            "an import of a large file and an index build of `listener migrate` are ended in the middle",
        ),
        "row_security": (
            lambda value: value == "off",
            "a statement on a table with a policy is refused, instead of seeing what the policy allows",
        ),
        "synchronous_commit": (
            lambda value: value == "off",
            "an outcome that was written may be lost when the server crashes, and its order is uploaded again",
        ),
    }
)
#: The same, where a pooler keeps us from setting our own.
_HARMS_POOLED: Mapping[str, tuple[Callable[[str], bool], str]] = MappingProxyType(
    {
        "default_transaction_isolation": (
            lambda value: value != "read committed",
            "claims of two processes refuse each other",
        )
    }
)


async def settings(case: Case) -> list[Finding]:
    """Nothing that is preset for our role harms."""
    rows = await case.patient.ask("settings")
    problems = _harmful(rows, _HARMS)
    if case.pool_end is not case.patient:
        rows = await case.pool_end.ask("settings")
        problems += [each for each in _harmful(rows, {**_HARMS, **_HARMS_POOLED}) if each not in problems]
    return problems or [ok("nothing that is preset for our role harms")]


def _harmful(rows: list[dict[str, Any]], harms: Mapping[str, tuple[Callable[[str], bool], str]]) -> list[Finding]:
    return [
        warn(
            f"{row['name']} is {row['shown']} for {row['who']}: {harms[row['name']][1]}",
            f"{row['cure']}; then restart the service",
        )
        for row in rows
        if row["name"] in harms and harms[row["name"]][0](row["value"])
    ]
