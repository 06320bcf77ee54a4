"""One examination: every check in its order, each of them survived."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Annotated

import anyio
import typer

from listener.cli.doctor import rows, schema, server, sessions
from listener.cli.doctor.api import credentials_work
from listener.cli.doctor.definitions import definitions
from listener.cli.doctor.finding import Case, Check, Finding, Verdict
from listener.cli.doctor.roles import owners, roles
from listener.cli.doctor.settings import settings
from listener.config.environment import Environment, load_environment
from listener.core.errors import DatabaseError, ListenerError, Unreachable
from listener.core.queue import Queue
from listener.db.attached import list_attached
from listener.db.doctor import Patient
from listener.db.pool import Pool
from listener.db.trouble import has_advice
from listener.workflows.queues import QUEUES

#: In the order of asking: what the later ones rest on comes first.
CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "reachable": server.reachable,
        "addresses": server.addresses,
        "version": server.version,
        "migrations": schema.migrations,
        "grants": schema.grants,
        "owners": owners,
        "roles": roles,
        "definitions": definitions,
        "sequences": rows.sequences,
        "triggers": schema.triggers,
        "settings": settings,
        "bypasses": schema.bypasses,
        "indexes": schema.indexes,
        "storage": schema.storage,
        "transactions": sessions.transactions,
        "horizon": sessions.horizon,
        "prepared": sessions.prepared,
        "notifications": sessions.notifications,
        "pooler": server.pooler,
        "keepalives": server.keepalives,
        "connections": server.connections,
        "clock": server.clock,
        "configuration": rows.configuration,
        "listeners": sessions.listeners,
        "work": rows.work,
        "credentials": credentials_work,
    }
)
#: They name tables or functions of ours.
NEED_SCHEMA = frozenset(
    {
        "grants",
        "owners",
        "roles",
        "definitions",
        "sequences",
        "triggers",
        "bypasses",
        "indexes",
        "storage",
        "pooler",
        "connections",
        "configuration",
        "work",
        "credentials",
    }
)
#: They do what the service does.
NEED_WRITES = frozenset({"sequences", "pooler", "work", "credentials"})
_MARKS = MappingProxyType({"ok": "ok", "warn": "warn", "fail": "FAIL", "unknown": "????"})

cli = typer.Typer()


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found. statements: asked of the database. took_s: seconds."""

    findings: list[Finding]
    statements: int
    took_s: float

    @property
    def is_well(self) -> bool:
        """Nothing fails, and every check could be made; a warning is no fault yet."""
        return all(finding.verdict in ("ok", "warn") for finding in self.findings)


@cli.command()
def doctor(
    long: Annotated[
        float, typer.Option("--long", min=0, help="Seconds after which a transaction or a waiting row is too old.")
    ] = 300.0,
    replicas: Annotated[int, typer.Option("--replicas", min=1, help="Processes that are meant to run.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Examine the database and what surrounds it, and say what to do; exit 1 when something is wrong."""
    found = anyio.run(examine, load_environment(), long, replicas)
    print(as_text(found) if not as_json else json.dumps(_plain(found)))
    if not found.is_well:
        raise typer.Exit(1)


async def examine(
    env: Environment, long_s: float = 300.0, replicas: int = 1, clock: Callable[[], float] = time.time
) -> Examination:
    """Make every check once. clock: seconds since 1970 on this machine. Raises nothing of the database's."""
    started_s = time.perf_counter()
    findings: list[Finding] = []
    url, schema = env.direct_url.get_secret_value(), env.schema_name
    async with AsyncExitStack() as pools:
        pool = await pools.enter_async_context(Pool(url, schema=schema, is_pooled=False, min_size=0, max_size=2))
        patient = pool_end = Patient(pool)
        if env.is_pooled:
            way = Pool(env.database_url.get_secret_value(), schema=schema, is_pooled=True, min_size=0, max_size=1)
            pool_end = Patient(await pools.enter_async_context(way))
        case = Case(env=env, patient=patient, pool_end=pool_end, long_s=long_s, replicas=replicas, clock=clock)
        stop = ""
        for name, check in CHECKS.items():
            reason = stop or _why_not(name, findings)
            if reason:
                findings.append(Finding("unknown", f"not made: {reason}", check=name))
                continue
            try:
                if name == "grants":
                    case = replace(case, queues=await _queues(patient))
                findings += [replace(finding, check=name) for finding in await check(case)]
            except Unreachable as error:
                findings.append(_unmade(name, error))
                stop = "" if name != "reachable" and await _answers(patient) else f"no connection; see {name}"
            except ListenerError as error:
                findings.append(_unmade(name, error))
                stop = "the database cannot be entered" if name == "reachable" else ""
            except Exception as error:  # noqa: BLE001 - one check that breaks must not take the others along
                seen = f"the check itself broke: {type(error).__name__}: {error}"
                findings.append(Finding("unknown", seen, "please report it", check=name))
        asked = patient.asked + (pool_end.asked if pool_end is not patient else 0)
        return Examination(findings, asked, time.perf_counter() - started_s)


async def _answers(patient: Patient) -> bool:
    """Tell whether only the statement was cut: who holds the lock that it waited for is for a later check to say."""
    try:
        await patient.identity()
    except ListenerError:
        return False
    return True


async def _queues(patient: Patient) -> list[Queue]:
    """Our queues and the attached ones, without those whose schema we may not enter: the check of grants names it."""
    own = list(QUEUES.values())
    try:
        closed = {row["attached_in"] for row in await patient.ask("grants") if row["privilege"] == "USAGE"}
        attached = [each.queue for each in await list_attached(patient.pool)]
    except DatabaseError:  # the check of grants names what is missing
        return own
    return own + [queue for queue in attached if queue.schema not in closed]


def _why_not(name: str, findings: list[Finding]) -> str:
    """Why a check would only repeat what an earlier one has found; empty when it would not."""
    failed = {each.check: each.seen for each in findings if each.verdict == "fail"}
    if name in NEED_SCHEMA and schema.NO_ENTRY in failed.get("migrations", ""):
        return "the schema may not be entered; see migrations"
    if name in NEED_SCHEMA and "migrations" in failed:
        return "the schema is not this release's; see migrations"
    if name in NEED_WRITES and schema.ONLY_READS in failed.get("grants", ""):
        return "it takes a role that may write; see grants"
    return ""


def _unmade(name: str, error: ListenerError) -> Finding:
    seen, colon, advice = str(error).rpartition(": ")
    verdict: Verdict = "fail" if name == "reachable" else "unknown"
    if not colon or not has_advice(error):
        return Finding(verdict, str(error), "", name)
    return Finding(verdict, seen, advice, name)


def as_text(found: Examination) -> str:
    """Return the table that a person reads."""
    width = max(len(name) for name in CHECKS)
    lines = []
    for finding in found.findings:
        lines.append(f"{_MARKS[finding.verdict]:<5} {finding.check:<{width}}  {finding.seen}")
        if finding.advice:
            lines.append(f"{'':<5} {'':<{width}}  → {finding.advice}")
    counts = {word: sum(each.verdict == word for each in found.findings) for word in _MARKS}
    verdict = "well" if found.is_well else "not well"
    told = (
        f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed, {counts['unknown']} could not be made"
    )
    lines += ["", f"{verdict}: {told}; {found.statements} statements in {found.took_s:.2f} s"]
    return "\n".join(lines)


def _plain(found: Examination) -> dict[str, object]:
    return {
        "well": found.is_well,
        "statements": found.statements,
        "took_s": round(found.took_s, 3),
        "findings": [asdict(finding) for finding in found.findings],
    }
