"""Checks of whose the schema is, and of what the roles may besides their grants: as deploy/roles.sql has it."""

from listener.cli.doctor.finding import Case, Finding, fail, ok, warn

#: Things of another owner that are named; of more, only how many.
_SHOWN = 3


async def owners(case: Case) -> list[Finding]:
    """One role owns the tables, views and functions, so that the next `listener migrate` may change them."""
    rows = await case.patient.ask("owners")
    if not rows:
        return [ok("tables and functions belong to one role, or to roles that it is in")]
    wanted, problems = rows[0]["wanted"], []
    others = [row for row in rows if row["kind"] != "SCHEMA"]
    if others:
        words = ", ".join(f"{row['kind'].lower()} {row['name']} ({row['owner']})" for row in others[:_SHOWN])
        more = f" … ({len(others) - _SHOWN} more)" if len(others) > _SHOWN else ""
        seen = (
            f"most of the schema belongs to {wanted}, but not {words}{more}: the next `listener migrate` as {wanted} is"
            " refused, and a function runs as its owner"
        )
        cures = "; ".join(row["cure"] for row in others)
        problems.append(fail(seen, f"as an administrator: {cures}; or run deploy/roles.sql, which does all of it"))
    problems += [
        fail(
            f"{wanted}, whose tables these are, may make none in schema {row['name']}: the next `listener migrate` is"
            " refused",
            f"as an administrator: {row['cure']}",
        )
        for row in rows
        if row["kind"] == "SCHEMA"
    ]
    return problems


async def roles(case: Case) -> list[Finding]:
    """No role of the service has more than its grants; at both addresses."""
    ends = [case.patient] if case.pool_end is case.patient else [case.patient, case.pool_end]
    rows = [row for end in ends for row in await end.ask("roles")]
    problems = []
    for row in rows:
        finding = warn(
            f"role {row['role']} {row['has']}, and so has more than it may have", f"as an administrator: {row['cure']}"
        )
        if row["has"] == "is NOLOGIN":
            finding = fail(f"role {row['role']} may not log in", f"as an administrator: {row['cure']}")
        problems += [finding] if finding not in problems else []
    if problems:
        return problems
    ours = {row["role"]: row["is_superuser"] for end in ends for row in await end.ask("server")}
    words = [
        f"{role} is a superuser: no roles to compare; deploy/roles.sql makes one for each purpose"
        if is_superuser
        else f"{role} is in no role that may more than the service needs"
        for role, is_superuser in ours.items()
    ]
    return [ok("; ".join(words))]
