"""Checks of the schema: migrations, grants, triggers, indexes, how tables are stored."""

from collections.abc import Mapping
from typing import Any

from listener.cli.doctor.finding import Case, Finding, fail, ok, several, warn
from listener.core.errors import DatabaseError, Unreachable
from listener.db.doctor import Patient

#: Said once, in place of each privilege that such a role lacks.
ONLY_READS = "may change neither orders nor syncs: it is no role for the service, nor for its doctor"
#: In place of a refusal by each check that names a table.
NO_ENTRY = "may not use schema"
#: Privileges that are named; of more, only how many.
_SHOWN = 3
#: Dead rows beyond which a table is looked at, and their share of the living ones.
_DEAD_ROWS, _DEAD_SHARE = 50_000, 0.5


async def migrations(case: Case) -> list[Finding]:
    """The schema may be entered, and is this release's."""
    problems = _closed(await case.patient.surroundings(), case.env.schema_name)
    if problems:
        return problems
    fault = await case.patient.schema_fault()
    if fault:
        seen, colon, advice = fault.rpartition(": ")
        return [fail(seen, advice) if colon else fail(fault, "run `listener migrate`")]
    return [ok(f"schema {case.env.schema_name} is this release's")]


async def grants(case: Case) -> list[Finding]:
    """The role has what the service needs, at both addresses, and row security hides nothing from it."""
    problems = await _grants(case.patient, case.env.schema_name)
    if case.pool_end is not case.patient:
        problems += [each for each in await _grants(case.pool_end, case.env.schema_name) if each not in problems]
    role = (await case.patient.ask("server"))[0]["role"]
    return problems or [ok(f"{role} has every privilege that the service needs")]


def _closed(around: Mapping[str, Any], schema: str) -> list[Finding]:
    if around["may_use"]:
        return []
    return [fail(f"{around['role']} {NO_ENTRY} {schema}", f"as the owner: {around['cure_use']}")]


async def _grants(patient: Patient, schema: str) -> list[Finding]:
    around = await patient.surroundings()
    problems, role = _closed(around, schema), around["role"]
    if problems:
        return problems
    if not around["may_write"]:
        return [
            fail(f"{role} {ONLY_READS}", "use the service's own DATABASE_URL, or run deploy/roles.sql for its role")
        ]
    try:
        lacking = await patient.ask("grants")
    except DatabaseError as error:
        if isinstance(error, Unreachable):
            raise
        seen = f"{role} may not even read what it should be granted ({error})"
        return [fail(seen, "as an administrator: run deploy/roles.sql, or come as a role that it made")]
    if lacking:
        words = ", ".join(f"{each['privilege']} on {each['object']}" for each in lacking[:_SHOWN])
        cures = "; ".join(each["cure"] for each in lacking)
        more = f" … ({len(lacking) - _SHOWN} more)" if len(lacking) > _SHOWN else ""
        advice = f"as the owner: {cures}; or run deploy/roles.sql, which grants all of it"
        problems.append(fail(f"{role} lacks {words}{more}", advice))
    if not around["may_have_temporary"]:
        seen = f"{role} may make no temporary table, which every import needs"
        problems.append(fail(seen, f"as the owner: {around['cure_temporary']}"))
    if around["everybody_creates"]:
        seen = f"everybody may create objects in schema {schema}, beside functions that run as their owner"
        problems.append(warn(seen, around["cure_creates"]))
    problems += [
        fail(f"row security hides rows of {row['object']} from {role}: what it does not see is never done", row["cure"])
        for row in await patient.ask("policies")
    ]
    return problems


async def triggers(case: Case) -> list[Finding]:
    """Every trigger is there and switched on, on partitions too."""
    rows = await case.patient.triggers()
    problems = []
    for row in rows:
        name, relation, enabled = row["name"], row["relation"], row["enabled"]
        if enabled is None and row["is_root"]:
            problems.append(fail(f"trigger {name} on {relation} is missing", row["cure"]))
        elif enabled is None or row["is_silent"]:
            kind = "table" if row["is_root"] else "partition"
            seen = f"{kind} {relation} rings nothing for rows that are inserted straight into it"
            problems.append(warn(seen, row["cure"]))
        elif enabled not in ("O", "A"):
            how = "is off" if enabled == "D" else "fires on replicas only"
            seen = f"trigger {name} on {relation} {how}: rows wait for the safety poll, and edits are not noticed"
            problems.append(fail(seen, row["cure"]))
    return problems or [ok(f"{several(len(rows), 'trigger')} there and switched on")]


async def bypasses(case: Case) -> list[Finding]:
    """Nobody writes past the triggers."""
    problems = []
    for row in await case.patient.ask("bypasses"):
        if row["kind"] == "subscription":
            seen = f"{row['who']}: replicated rows fire no ordinary trigger, and wait for the safety poll"
            problems.append(warn(seen, row["cure"]))
        else:
            seen = f"session_replication_role is replica for {row['who']}: what it writes fires no trigger"
            problems.append(fail(seen, f"{row['cure']}; then connect anew"))
    return problems or [ok("no role and no subscription writes past the triggers")]


async def indexes(case: Case) -> list[Finding]:
    """No index is half built, and claims and rescues have theirs."""
    problems = [
        fail(f"index {row['index']} on {row['relation']} is invalid: its build failed", row["cure"])
        for row in await case.patient.ask("invalid_indexes")
    ]
    for queue in case.queues:
        found = await case.patient.queue_indexes(queue)
        problems += [
            fail(f"{queue.table} has no valid index for {whom}: each reads the whole table", found[f"cure_{name}"])
            for name, whom in (("due", "claims"), ("processing", "rescues"))
            if not found[f"has_{name}"]
        ]
    return problems or [ok("all valid; claims and rescues have theirs")]


async def storage(case: Case) -> list[Finding]:
    """Dead row versions are removed in time: each order leaves three."""
    rows = await case.patient.ask("storage")
    problems = []
    if rows and not rows[0]["autovacuum"]:
        seen = "autovacuum is off on this server: claims become slower day by day"
        problems.append(fail(seen, rows[0]["cure_server"]))
    for row in rows:
        relation = row["relation"]
        if not row["is_vacuumed"]:
            problems.append(fail(f"autovacuum is off for {relation}", row["cure_table"]))
        if row["dead"] > max(_DEAD_ROWS, row["live"] * _DEAD_SHARE):
            seen = f"{relation} has {row['dead']} dead row versions beside {row['live']} rows"
            problems.append(
                warn(seen, f"see transactions and horizon for what holds VACUUM back, then {row['cure_dead']}")
            )
    for row in await case.patient.ask("storage_options"):
        harm = "new row versions find no room on their page"
        if row["option"] != "fillfactor":
            harm = "dead row versions stay longer than was measured to be good"
        problems.append(warn(f"{row['option']} of {row['relation']} is {row['value']:f}: {harm}", row["cure"]))
    return problems or [ok(f"autovacuum works on {several(len(rows), 'table')}, as measured, and so does fillfactor")]
