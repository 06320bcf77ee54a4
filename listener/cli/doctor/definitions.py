"""The check of what the SQL files have made: functions, triggers, columns, keys, against the catalogue of this release.

The books of the migrations say what was run; somebody may have changed it since, by hand or by a restore.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from listener.cli.doctor.finding import Case, Finding, fail, ok, warn
from listener.db.doctor import catalogue

#: What orders depend on; the rest costs time only.
_GRAVE = frozenset({"table", "column", "function", "trigger", "unique"})
Thing = Mapping[str, Any]


async def definitions(case: Case) -> list[Finding]:
    """Everything that the SQL files make is there, and as they make it."""
    wanted = catalogue()
    problems = list(differences(wanted, await case.patient.ask("definitions")))
    return problems or [ok(f"{len(wanted)} functions, triggers, columns and keys are as the SQL files make them")]


def differences(wanted: Sequence[Thing], found: Sequence[Thing]) -> Iterator[Finding]:
    """Compare what there should be with what there is. Pure.

    What the older scripts' tables brought along (`is_ours` is false) keeps its types; it needs the columns and their
    keys, and orders_inbox, into which people insert, its defaults. What is there besides is nobody's business. A
    missing trigger is told by another check.
    """
    there = {(each["kind"], each["name"]): each for each in found}
    for each in wanted:
        kind, name = each["kind"], each["name"]
        table = str(name).partition(".")[0].partition(" ")[0]
        now = there.get((kind, name))
        if kind in ("column", "unique", "index", "constraint", "trigger") and ("table", table) not in there:
            continue
        if now is None:
            if kind != "trigger" and (each["is_ours"] or kind in ("table", "column", "unique")):
                yield _missing(each)
        elif now["definition"] != each["definition"] and (each["is_ours"] or _lacks_a_default(each, now)):
            yield _changed(each, now)


def _lacks_a_default(wanted: Thing, now: Thing) -> bool:
    def has_default(each: Thing) -> bool:
        return "DEFAULT" in each["definition"]

    return str(wanted["name"]).startswith("orders_inbox.") and has_default(wanted) and not has_default(now)


def _missing(each: Thing) -> Finding:
    kind, name = each["kind"], each["name"]
    if kind == "table":
        return fail(
            f"table {name} is missing", f"restore it from a backup; or, to make it anew and empty: {each['cure']}"
        )
    if kind == "column":
        advice = f"{each['cure']}; or, if it was renamed, give it its name back"
        return fail(f"column {name} is missing", advice)
    what = {"unique": "nothing makes rows unique by: ", "index": "no index: ", "constraint": "no constraint: "}
    seen = f"{what[kind]}{name}" if kind in what else f"{kind} {name} is missing"
    return (fail if kind in _GRAVE else warn)(seen, each["cure"])


def _changed(each: Thing, now: Thing) -> Finding:
    kind, name = each["kind"], each["name"]
    if kind == "function":
        return fail(f"function {name} is not this release's: somebody has replaced it", each["mends"])
    seen = f"{kind} {name} is now: {now['definition']}; it should be: {each['definition']}"
    advice = each["mends"]
    if kind == "column" and _type(each) == _type(now):  # a trigger or view that names the column would forbid it
        advice = re.sub(r", ALTER COLUMN \S+ TYPE .*?(?=, ALTER COLUMN |$)", "", advice)
    return (fail if kind == "trigger" else warn)(seen, advice)


def _type(column: Thing) -> str:
    return re.split(r" NOT NULL| GENERATED| DEFAULT", column["definition"])[0]
