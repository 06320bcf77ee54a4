"""`listener rollout check`: whether a stage of the roll-out may end, criterion by criterion.

Two plans: two-stage (upload; then import and sync every 120 s) and three-week (upload; import; sync every 120 s). Most
figures come from the database; calls to the API are counted by the running processes, whose /metrics are asked.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

import anyio
import typer

from listener.cli.database import opened
from listener.cli.doctor.examination import examine
from listener.clients.http import Http
from listener.config.environment import Environment, load_environment
from listener.config.live import LiveConfig, read_live_config
from listener.core.errors import ConfigError, Unavailable
from listener.db.configuration import read_configuration
from listener.db.pool import Pool
from listener.db.rollout import Figures
from listener.db.session import read_live_sessions

cli = typer.Typer(
    name="rollout",
    help="Go from the cron jobs to this service in stages.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: The older plans' figures.
LEAST_SKIP_SHARE, MOST_CALLS_AN_HOUR, MOST_CONNECTIONS = 0.8, 200, 10
MOST_END_TO_END_S, MOST_ERROR_SHARE = 120.0, 0.01
#: Of fewer orders nothing is known: a stage in which nobody ordered has shown nothing.
LEAST_ORDERS = 20
#: As long without a check, two of the slowest polls and more, and nobody has worked.
_GAP_H = 0.25
_UPLOADS, _IMPORTS = "shipstation-upload", "xml-import"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage as its plan has it. hours: to watch. settings: what it runs with. imports, syncs: they are judged too."""

    hours: float
    settings: dict[str, object]
    imports: bool = False
    syncs: bool = False


_UPLOAD_ON = {"upload_enabled": True, "fast_polling_enabled": True, "enable_fast_upload_polling": True}
_ALONE = {"import_enabled": False, "sync_enabled": False}
_IMPORT_ON = {**_UPLOAD_ON, "import_enabled": True, "enable_fast_xml_polling": True}
_ALL_ON = {**_IMPORT_ON, "sync_enabled": True}
STAGES: dict[str, dict[int, Stage]] = {
    "two-stage": {
        1: Stage(48, {**_UPLOAD_ON, **_ALONE, "fast_polling_interval": 15}),
        2: Stage(72, {**_ALL_ON, "sync_interval": 120}, imports=True, syncs=True),
    },
    "three-week": {
        1: Stage(48, {**_UPLOAD_ON, "enable_fast_xml_polling": False, "sync_interval": 300}),
        2: Stage(48, {**_IMPORT_ON, "sync_interval": 300}, imports=True),
        3: Stage(48, {**_ALL_ON, "sync_interval": 120}, imports=True, syncs=True),
    },
}


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion. verdict unknown: it could not be judged, which is no pass."""

    name: str
    verdict: Literal["pass", "fail", "unknown"]
    seen: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Calls:
    """What the processes' metrics tell. per_hour: calls to the API since their starts; throttled: answered with 429."""

    per_hour: float
    throttled: int
    hours: float


@cli.callback()
def main() -> None:
    """Go from the cron jobs to this service in stages."""


@cli.command()
def check(
    plan: Annotated[str, typer.Option("--plan", help="two-stage or three-week.")] = "two-stage",
    stage: Annotated[int, typer.Option("--stage", min=1, help="Of the plan.")] = 1,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="To judge; default: the plan's.")] = None,
    orders: Annotated[int, typer.Option("--orders", min=1, help="Fewer than these are not enough.")] = LEAST_ORDERS,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", metavar="URL", help="/metrics of each process; default LISTENER_HTTP."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Print pass or fail for each criterion of a stage; exit 1 when one does not pass."""
    if plan not in STAGES or stage not in STAGES[plan]:
        known = "; ".join(f"--plan {name} --stage {', '.join(map(str, stages))}" for name, stages in STAGES.items())
        raise ConfigError(f"--plan {plan} has no --stage {stage}; known: {known}")
    for url in metrics or ():
        if not _is_address(url):
            raise ConfigError(f"not an address of metrics: --metrics {url}: write http://host:port/metrics")
    env = load_environment()
    found = anyio.run(judge, env, STAGES[plan][stage], hours, metrics or [f"http://{env.http}/metrics"], orders)
    is_passed = all(each.verdict == "pass" for each in found)
    if as_json:
        told = {"plan": plan, "stage": stage, "passed": is_passed, "criteria": [asdict(each) for each in found]}
        print(json.dumps(told))
    else:
        for each in found:
            mark = {"pass": "pass", "fail": "FAIL", "unknown": "????"}[each.verdict]
            print(f"{mark:<5} {each.name:<13} {each.seen} (wanted: {each.wanted})")
        print(f"\n{plan}, stage {stage}: {'go on' if is_passed else 'wait, or roll back'}")
    if not is_passed:
        raise typer.Exit(1)


async def judge(
    env: Environment, stage: Stage, hours: float | None, urls: Sequence[str], orders: int = LEAST_ORDERS
) -> list[Criterion]:
    """Judge every criterion of a stage over its hours. Raises Unreachable, DatabaseError, Unmigrated."""
    hours = stage.hours if hours is None else hours
    async with opened(env) as pool:
        figures = Figures(pool, hours)
        found = [await _settings(pool, stage), await _watched(figures, stage, hours), await _skips(figures, _UPLOADS)]
        found += [
            await _enough(figures, stage, orders),
            *_calls(await _read_metrics(urls, processes=len(await read_live_sessions(pool)))),
            await _errors(figures, stage),
            await _connections(figures),
        ]
        if stage.imports:
            found.append(await _skips(figures, _IMPORTS))
        if stage.syncs:
            found += [await _end_to_end(figures), await _syncs(figures, hours)]
    return [*found, await _doctor(env)]


async def _settings(pool: Pool, stage: Stage) -> Criterion:
    config: LiveConfig = read_live_config((await read_configuration(pool)).values, None).config
    wrong = [
        f"{key} is {getattr(config, key)}" for key, value in stage.settings.items() if getattr(config, key) != value
    ]
    wanted = ", ".join(f"{key} {value}" for key, value in stage.settings.items()).lower()
    return Criterion("settings", "fail" if wrong else "pass", ", ".join(wrong).lower() or "as planned", wanted)


async def _watched(figures: Figures, stage: Stage, hours: float) -> Criterion:
    """The service has worked with these settings for that long, and still does."""
    wanted = f"{hours:g} h with these settings, without a gap of {60 * _GAP_H:.0f} min"
    checks = (await figures.checks(gap_h=_GAP_H)).get(_UPLOADS)
    if checks is None:
        return Criterion("watched", "unknown", "polling_metrics has no checks of uploads", wanted)
    unchanged_h = await figures.unchanged_h([*stage.settings])
    covered_h = min(checks["covered_h"], unchanged_h if unchanged_h is not None else checks["covered_h"])
    is_stale = checks["seen_h"] > _GAP_H
    seen = f"{covered_h:.1f} h" + (f"; the last check was {checks['seen_h']:.1f} h ago" if is_stale else "")
    return Criterion("watched", "pass" if covered_h >= hours and not is_stale else "fail", seen, wanted)


async def _skips(figures: Figures, workflow: str) -> Criterion:
    name, wanted = f"skip {workflow.partition('-')[2]}", f"over {LEAST_SKIP_SHARE:.0%} of the checks"
    checks = (await figures.checks(gap_h=_GAP_H)).get(workflow)
    if checks is None or not checks["checks"]:
        return Criterion(name, "unknown", f"no checks of {workflow}", wanted)
    share = checks["skipped"] / checks["checks"]
    seen = f"{share:.1%} of {checks['checks']} checks found nothing to do"
    return Criterion(name, "pass" if share > LEAST_SKIP_SHARE else "fail", seen, wanted)


def _calls(calls: Calls | str) -> list[Criterion]:
    few, none = f"under {MOST_CALLS_AN_HOUR} an hour", "none"
    if isinstance(calls, str):
        return [Criterion("API calls", "unknown", calls, few), Criterion("rate limit", "unknown", calls, none)]
    seen = f"{calls.per_hour:.0f} an hour, over {calls.hours:.1f} h since the start"
    return [
        Criterion("API calls", "pass" if calls.per_hour < MOST_CALLS_AN_HOUR else "fail", seen, few),
        Criterion("rate limit", "fail" if calls.throttled else "pass", f"{calls.throttled} answers 429", none),
    ]


async def _enough(figures: Figures, stage: Stage, orders: int) -> Criterion:
    """Something has happened that the other criteria can be judged by."""
    row = await figures.uploads()
    ended, wanted = row["done"] + row["failed"], f"{orders} orders or more"
    seen, is_enough = f"{ended} orders", ended >= orders
    if stage.imports:
        row = await figures.files()
        seen, wanted = f"{seen}, {row['done'] + row['failed']} files", f"{wanted}, and a file"
        is_enough = is_enough and row["done"] + row["failed"] > 0
    return Criterion(
        "work", "pass" if is_enough else "fail", seen if is_enough else f"not enough to judge: {seen}", wanted
    )


async def _errors(figures: Figures, stage: Stage) -> Criterion:
    """Rows that ended as Failed, of all that ended."""
    ended = {"orders": await figures.uploads()}
    if stage.imports:
        ended["files"] = await figures.files()
    if stage.syncs:
        ended["syncs"] = await figures.syncs()
    shares = {name: row["failed"] / max(row["failed"] + row["done"], 1) for name, row in ended.items()}
    seen = ", ".join(f"{row['failed']} of {row['failed'] + row['done']} {name}" for name, row in ended.items())
    verdict: Literal["pass", "fail"] = "pass" if all(share < MOST_ERROR_SHARE for share in shares.values()) else "fail"
    return Criterion("errors", verdict, f"Failed: {seen}", f"under {MOST_ERROR_SHARE:.0%}")


async def _connections(figures: Figures) -> Criterion:
    count = await figures.connections()
    verdict: Literal["pass", "fail"] = "pass" if count < MOST_CONNECTIONS else "fail"
    return Criterion("connections", verdict, f"{count} now", f"under {MOST_CONNECTIONS}")


async def _end_to_end(figures: Figures) -> Criterion:
    wanted, row = f"95 % of the orders in under {MOST_END_TO_END_S:.0f} s", await figures.uploads()
    if not row["done"]:
        return Criterion("end to end", "unknown", "no order was uploaded", wanted)
    seen = f"p95 {row['p95_s']:.1f} s, longest {row['longest_s']:.1f} s, of {row['done']} orders"
    return Criterion("end to end", "pass" if row["p95_s"] < MOST_END_TO_END_S else "fail", seen, wanted)


async def _syncs(figures: Figures, hours: float) -> Criterion:
    """Every 120 s is 30 an hour; a fifth may be missing, for restarts and pauses."""
    done, wanted = (await figures.syncs())["done"], "24 or more an hour"
    verdict: Literal["pass", "fail"] = "pass" if done / hours >= 24 else "fail"
    return Criterion("syncs", verdict, f"{done / hours:.1f} an hour", wanted)


async def _doctor(env: Environment) -> Criterion:
    found = await examine(env)
    bad = sorted({each.check for each in found.findings if each.verdict in ("fail", "unknown")})
    return Criterion("doctor", "fail" if bad else "pass", ", ".join(bad) or "finds nothing wrong", "nothing fails")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


async def _read_metrics(urls: Sequence[str], *, processes: int) -> Calls | str:
    """Add up the processes; a sentence when one of them does not answer, or was not asked."""
    urls = list(dict.fromkeys(urls))
    if len(urls) < processes:
        return f"{processes} processes run, and {len(urls)} would be asked; give the address of each with --metrics"
    per_hour, throttled, hours = 0.0, 0, 0.0
    for url in urls:
        parts = urlsplit(url)
        base = f"{parts.scheme}://{parts.netloc}"
        http = Http(base, lambda _event: None, connector="", account="", auth=None, timeout_s=5.0)
        try:
            async with http:
                raw = await http.request("GET", url[len(base) :] or "/")
        except Unavailable as error:
            return f"{url} does not answer ({error}); give the processes' addresses with --metrics"
        try:
            total, refused, started_s = read_exposition(raw.body.decode(errors="replace"))
        except ValueError:
            started_s = None
        if raw.status != 200 or started_s is None:
            return f"{url} answered {raw.status} without the process's metrics"
        age_h = max((time.time() - started_s) / 3600, 1 / 60)
        per_hour, throttled, hours = per_hour + total / max(age_h, 1.0), throttled + refused, max(hours, age_h)
    return Calls(per_hour, throttled, hours)


def read_exposition(text: str) -> tuple[float, int, float | None]:
    """Return calls to APIs, those answered with 429, and the process's start in seconds. Raises ValueError."""
    total, refused, started_s = 0.0, 0, None
    for line in text.splitlines():
        if line.startswith("listener_api_requests_total{"):
            value = _number(line.rpartition("}")[2])
            total += value
            refused += int(value) if 'status="429"' in line else 0
        elif line.startswith("process_start_time_seconds "):
            started_s = _number(line.partition(" ")[2])
    return total, refused, started_s


def _number(text: str) -> float:
    if math.isfinite(value := float((text.split() or [""])[0])):  # a time may follow
        return value
    raise ValueError(text)
