"""Checks of other people's sessions: what holds VACUUM back, what fills the queue of notifications, who listens."""

from collections.abc import Mapping
from typing import Any

from listener.cli.doctor.finding import Case, Finding, fail, ok, several, warn
from listener.db.session import read_live_sessions

#: Transactions by which a replication slot or a standby may hold VACUUM back before that is worth a word, and a cure.
_XIDS_WARN, _XIDS_FAIL = 100_000, 10_000_000
_WAL_FAIL_BYTES = 1 << 30
#: Share of the queue of notifications. At 1 every commit that notifies fails, also the writers'.
_QUEUE_WARN, _QUEUE_FAIL = 0.1, 0.5


async def listeners(case: Case) -> list[Finding]:
    """At least one process works."""
    live = await read_live_sessions(case.patient.pool)
    if not live:
        cure = "start `listener run`, or your own program"
        return [warn("no listener is running: nothing takes what is inserted", cure)]
    return [ok(f"{several(len(live), 'live session')}: {', '.join(str(each['session_key']) for each in live[:5])}")]


async def transactions(case: Case) -> list[Finding]:
    """No transaction of this database has been open for long."""
    rows = await case.patient.ask("transactions")
    problems = [
        fail(
            f"pid {row['pid']} ({_who(row)}) has a transaction open for {row['open_s']:.0f} s, {row['state']}:"
            f" VACUUM removes nothing newer, its rows stay locked; last: {' '.join(row['statement'].split())}",
            _end(
                row,
                f"end it in its program, or {row['cure']}; and set idle_in_transaction_session_timeout for its role",
            ),
        )
        for row in rows
        if row["open_s"] > case.long_s
    ]
    others = (await case.patient.ask("hidden_sessions"))[0]
    if not others["may_see"]:
        seen = f"{several(others['hidden'], 'session')} of other roles cannot be looked into, nor can standbys"
        problems.append(warn(seen, f"as an administrator: {others['cure']}; or run the doctor as a role that has it"))
    return problems or [ok(f"none of {len(rows)} open ones is older than {case.long_s:.0f} s")]


async def horizon(case: Case) -> list[Finding]:
    """No replication slot and no standby holds VACUUM back."""
    problems = []
    rows = await case.patient.ask("horizon")
    for row in rows:
        xids, name, wal_bytes = row["xids"] or 0, row["name"], row["wal_bytes"] or 0
        if row["kind"] == "standby":
            if xids > _XIDS_WARN:
                seen = f"standby {name} (hot_standby_feedback) holds VACUUM back by {xids} transactions"
                advice = "end the long query on the standby, or set hot_standby_feedback = off there"
                problems.append((fail if xids > _XIDS_FAIL else warn)(seen, advice))
        elif not row["active"]:
            seen = (
                f"replication slot {name} is not in use, keeps {wal_bytes >> 20} MiB of WAL"
                f" and holds VACUUM back by {xids} transactions"
            )
            is_grave = xids > _XIDS_FAIL or wal_bytes > _WAL_FAIL_BYTES
            problems.append((fail if is_grave else warn)(seen, f"start its consumer, or {row['cure']}"))
        elif xids > _XIDS_FAIL:
            seen = f"the consumer of replication slot {name} is {xids} transactions behind and holds VACUUM back"
            problems.append(warn(seen, "look why it does not keep up"))
    told = f"{len(rows)} slots and standbys, none in the way" if rows else "no slot and no standby"
    return problems or [ok(told)]


async def prepared(case: Case) -> list[Finding]:
    """No prepared transaction was forgotten."""
    rows = await case.patient.ask("prepared")
    problems = [
        fail(
            f"transaction {row['gid']!r} of {row['role']} was prepared {row['open_s']:.0f} s ago:"
            " it holds its locks and VACUUM back, also after a restart",
            row["cure"],
        )
        for row in rows
        if row["open_s"] > case.long_s
    ]
    return problems or [ok(f"{several(len(rows), 'prepared transaction')}, none old" if rows else "none")]


async def notifications(case: Case) -> list[Finding]:
    """The queue of notifications is nearly empty, and no listener keeps it from being emptied."""
    used = (await case.patient.ask("notifications"))[0]["used"]
    problems = []
    if used > _QUEUE_WARN:
        seen = f"the queue of notifications is {used:.0%} full; when it is full, every commit that notifies fails"
        advice = (
            "a session that LISTENs sits in an open transaction, in any database of the server: "
            "end the oldest `idle in transaction` session of pg_stat_activity"
        )
        problems.append((fail if used > _QUEUE_FAIL else warn)(seen, advice))
    for row in await case.patient.ask("transactions"):
        is_listener = row["application"].startswith("order-listener session") or row["listens"]
        if is_listener and (row["state"] or "").startswith("idle in transaction"):
            seen = (
                f"pid {row['pid']} ({_who(row)}) LISTENs inside an open transaction, for {row['open_s']:.0f} s:"
                " it hears nothing, and the queue cannot be emptied"
            )
            problems.append(fail(seen, _end(row, f"have it commit after LISTEN (autocommit), or {row['cure']}")))
    return problems or [ok(f"the queue is {used:.1%} full")]


def _end(row: Mapping[str, Any], of_others: str) -> str:
    """What to do about an open transaction: of ours the process is what is to be ended, not its session."""
    if row["blocked_by"]:
        pids = ", ".join(map(str, row["blocked_by"]))
        return f"it waits for what pid {pids} has locked: look at that one first"
    if row["is_ours"]:
        return "it is the service's own: wait for its end; restart a process that hangs, and its rows are taken at once"
    return of_others


def _who(row: Mapping[str, Any]) -> str:
    return f"{row['role'] or 'unknown role'}, {row['application'] or 'no name'}"
