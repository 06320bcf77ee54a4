"""The check of the outside API: one call through our own client, which changes nothing there and nothing here."""

import math
from collections.abc import Sequence
from dataclasses import replace

import anyio

from listener.app import credentials
from listener.cli.doctor.finding import Case, Finding, fail, ok, warn
from listener.clients.shipstation.client import CONNECTOR, ShipStation, account_name
from listener.config.live import read_live_config
from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.errors import ConfigError, Rejected, Unavailable
from listener.core.events import Event
from listener.db.budgets import ApiBudget, read_budgets
from listener.db.configuration import read_configuration
from listener.workflows.queues import QUEUES, SYNC, UPLOAD

#: Seconds for the whole call, the wait for a free one in the rate window included.
_LIMIT_S = 15.0
_NEED_KEYS = (UPLOAD.name, SYNC.name)


class _Quiet:
    """The account's shared budget, which a wrong secret in the doctor's own environment must not pause for the service.

    A probe is told truly: nobody else makes it.
    """

    def __init__(self, budget: ApiBudget) -> None:
        self._budget = budget

    async def take(self) -> Permit | Refusal:
        answer = await self._budget.take()
        if isinstance(answer, Refusal) and answer.reason == "budget":
            return replace(answer, wait_s=math.inf)  # a person waits: rather say so
        return answer

    async def give_back(self, permit: Permit) -> None:
        await self._budget.give_back(permit)

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        await self._budget.report_ok(permit, headers)

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None:
        if permit.probe:
            await self._budget.report_unavailable(permit, reason=reason, message=message, wait_s=wait_s)


async def credentials_work(case: Case) -> list[Finding]:
    """ShipStation takes the key: it is asked for a list that no order is in."""
    chosen = case.env.queues or tuple(QUEUES)
    attached = [queue.name for queue in case.queues if queue.name not in QUEUES]
    if fault := _misnamed(chosen, attached):
        return [fault]
    if not set(_NEED_KEYS) & set(chosen):
        return [ok("queues upload and sync are not in LISTENER_QUEUES: no API is called")]
    try:
        key, secret = credentials(case.env)
    except ConfigError as error:
        seen, _, advice = str(error).partition("; ")
        if case.env.queues or not attached or await _takes_orders(case):
            return [fail(seen, advice)]
        seen = f"{seen}; attached queues alone are worked on here, so only `listener run` would miss them"
        return [warn(seen, "name your program's queues in LISTENER_QUEUES, or set both")]
    return [await _call(case, key, secret)]


async def _call(case: Case, key: str, secret: str) -> Finding:
    env, account = case.env, account_name(key)
    budget = ApiBudget(
        case.patient.pool,
        _nobody,
        connector=CONNECTOR,
        account=account,
        call_limit=env.shipstation_rate_limit,
        window_s=env.shipstation_rate_window_s,
    )
    client = ShipStation(
        env.shipstation_base_url, key=key, secret=secret, timeout_s=_LIMIT_S, budget=_Quiet(budget), publish=_nobody
    )
    try:
        with anyio.fail_after(_LIMIT_S):
            async with client:
                page = await client.empty_page()
    except Unavailable as error:
        return await _refused(case, account, error)
    except Rejected as error:
        return warn(f"account {account}: {error}", "check SHIPSTATION_BASE_URL")
    except TimeoutError:
        return fail(
            f"{env.shipstation_base_url} did not answer in {_LIMIT_S:.0f} s",
            "check the network and SHIPSTATION_BASE_URL",
        )
    if page is None:
        return fail(
            "ShipStation answers 500 to a plain question",
            "see status.shipstation.com; the service tries again by itself",
        )
    return ok(f"ShipStation takes the key of account {account}")


def _misnamed(chosen: Sequence[str], attached: Sequence[str]) -> Finding | None:
    """What is wrong with LISTENER_QUEUES: the service and a program of the user's each take the names of their own."""
    ours = [name for name in chosen if name in QUEUES]
    theirs = [name for name in chosen if name not in QUEUES]
    for name in theirs:
        if name not in attached:
            seen = f"LISTENER_QUEUES names {name!r}, which is no queue; known: {', '.join((*QUEUES, *attached))}"
            return fail(seen, f"correct it, or run `listener attach {name}`")
    if ours and theirs:
        seen = f"LISTENER_QUEUES names {ours[0]}, which is `listener run`'s, and {theirs[0]}, which is your program's"
        return fail(seen, "give each of them a LISTENER_QUEUES of its own")
    return None


async def _takes_orders(case: Case) -> bool:
    """Whether the queues that need keys are in use: switched on, and not as empty as `listener migrate` makes them."""
    config = read_live_config((await read_configuration(case.patient.pool)).values, None).config
    return any(map(config.is_enabled, _NEED_KEYS)) and bool((await case.patient.ask("orders"))[0]["are_there"])


async def _refused(case: Case, account: str, error: Unavailable) -> Finding:
    for budget in await read_budgets(case.patient.pool):
        if budget["account"] == account and budget["is_paused"]:
            seen = (
                f"account {account} is paused for all processes ({budget['pause_reason']}): {budget['pause_message']}"
            )
            return fail(seen, "mend that; the service probes by itself, at the latest after a minute")
    if error.reason == "budget":
        return warn(f"account {account} could not be asked: {error}", "ask again in a minute")
    if error.reason == "throttled":
        return warn(
            f"account {account} could not be asked: {error}",
            "somebody else uses the same key, or SHIPSTATION_RATE_LIMIT is above the account's; ask again in a minute",
        )
    if error.reason == "credentials":
        seen, _, advice = str(error).partition("; ")
        return fail(seen, advice)
    return fail(str(error), "check the network and SHIPSTATION_BASE_URL; the service tries again by itself")


def _nobody(_event: Event) -> None:
    """Nobody counts the doctor's call."""
