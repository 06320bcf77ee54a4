"""Calls left for one API account, in its row of `api_budgets`: rate window and circuit breaker for all replicas."""

import random
import time
from typing import Any

from listener.core.budget import Permit, RateHeaders, Refusal
from listener.core.events import ConnectorPaused, ConnectorResumed, Publish
from listener.db.pool import Pool
from listener.db.queries import query

# A probe that never comes back (its process died) leaves the next one to somebody else after this time.
PROBE_S = 90.0
# Pauses 1, 2, 4 … 60 s, half of it random: a minute is how late a recovered API is noticed at worst.
PAUSE_BASE_S, PAUSE_CAP_S = 1.0, 60.0
# The reset header counts whole seconds and may be rounded down.
RESET_MARGIN_S = 1.0
# Whoever is refused asks again after this time at the latest: a probe may be back, or a person has ended the pause.
LOOK_AGAIN_S = 1.0
# What only a person can mend is told again after this time.
TELL_EVERY_S = 3_600.0


class ApiBudget:
    """The budget of one account. `call_limit` calls per `window_s` seconds; 0 = the API has no limit.

    yields: leave a part of each window to the uploads.
    """

    def __init__(
        self, pool: Pool, publish: Publish, *, connector: str, account: str, call_limit: int, window_s: float,
        pause_base_s: float = PAUSE_BASE_S, yields: bool = False,
    ) -> None:  # fmt: skip
        self._pool = pool
        self._publish = publish
        self._key = {"connector": connector, "account": account}
        self._limit = {"call_limit": call_limit if call_limit > 0 else 2**31 - 1, "window_s": window_s}
        self._pause_base_s = pause_base_s
        self._yields = yields
        self._is_known = False
        self._told: tuple[str, float] | None = None

    async def take(self) -> Permit | Refusal:
        """Reserve one call, or learn how long there will be none."""
        if not self._is_known:
            await self._run("ensure_budget", self._limit)
            self._is_known = True
        rows = await self._run("take_permit", {"probe_s": PROBE_S, "yields": self._yields})
        if not rows:  # the row was deleted by hand: make it again
            self._is_known = False
            return Refusal(wait_s=0.1, reason="budget")
        row = rows[0]
        if row["granted"]:
            return Permit(window=row["rate_window"], probe=row["is_probe"])
        return Refusal(wait_s=min(row["wait_s"], LOOK_AGAIN_S), reason=row["reason"])

    async def give_back(self, permit: Permit) -> None:
        """The reserved call was not made."""
        params = {"rate_window": permit.window, "is_probe": permit.probe, "yields": self._yields}
        await self._run("give_back_permit", params)

    async def report_ok(self, permit: Permit, headers: RateHeaders) -> None:
        """The API answered: correct the window by its headers; a probe ends the pause."""
        rows = await self._run(
            "report_ok",
            {
                "rate_window": permit.window,
                "is_probe": permit.probe,
                "remaining": headers.remaining,
                "reset_s": headers.reset_s,
                "margin_s": RESET_MARGIN_S,
            },
        )
        if rows and rows[0]["is_resumed"]:
            self._told = None
            self._publish(ConnectorResumed(**self._key))

    async def report_unavailable(self, permit: Permit, *, reason: str, message: str, wait_s: float | None) -> None:
        """Pause the account for all replicas, for `wait_s` seconds where the API said so, else with back-off."""
        message = message.replace("\x00", "\N{SYMBOL FOR NULL}")  # which Postgres cannot store
        rows = await self._run(
            "report_unavailable",
            {
                "is_probe": permit.probe,
                "reason": reason,
                "message": message,
                "wait_s": 0.0 if wait_s is None else wait_s + RESET_MARGIN_S,
                "is_told": wait_s is not None,
                "base_s": self._pause_base_s,
                "cap_s": PAUSE_CAP_S,
                "jitter": random.random(),
            },
        )
        if rows and self._is_news(reason, message):
            self._publish(ConnectorPaused(**self._key, reason=reason, message=message, for_s=rows[0]["for_s"]))

    def _is_news(self, reason: str, message: str) -> bool:
        """Tell of refused credentials once: each probe meets them in the same words."""
        now_s = time.monotonic()
        if reason == "credentials" and self._told and self._told[0] == message and now_s - self._told[1] < TELL_EVERY_S:
            return False
        self._told = (message, now_s)
        return True

    async def _run(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        account = f"{self._key['connector']} budget"
        return await self._pool.run(query("budgets", name), {**self._key, **params}, name=account)


async def read_budgets(pool: Pool) -> list[dict[str, Any]]:
    """Read every account's budget and pause, for metrics, `/readyz` and `listener status`."""
    return await pool.run(query("budgets", "budgets"), name="budgets")
