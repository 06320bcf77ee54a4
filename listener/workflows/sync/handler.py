"""Brings back what happened at ShipStation: orders, shipments, voids, fulfillments, page by page.

What is read is stored at once, in a transaction with how far the reading has got; so a run that is cut off anywhere has
lost nothing, and the next one goes on from there.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from listener.core.errors import ClaimLost, Rejected, Unavailable
from listener.core.events import CycleEnded, Publish, Trouble
from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Release, Snooze
from listener.db.sync_runs import Begun, SyncRuns
from listener.db.sync_state import SyncState
from listener.workflows.sync import plan
from listener.workflows.sync.calls import DOUBTFUL, Client, OutOfCalls, OutOfTime
from listener.workflows.sync.cycle import NOTES, Cycle, read_figures
from listener.workflows.sync.plan import FEEDS, Feed, Mark
from listener.workflows.sync.reader import Reader

# A run that met an outage goes on after as long as it has taken so far, within these: calls of another kind may end
# the pause of the account at once, and again and again.
LEAST_WAIT_S, MOST_WAIT_S = 1.0, 60.0


class WithdrawsPermit(Protocol):
    """The gate, for a run that needs no call after all."""

    async def withdraw(self) -> None:
        """Give the reserved call back."""


class Sync:
    """The handler of queue `sync`. most_calls: what the live configuration allows one cycle."""

    def __init__(
        self,
        client: Client,
        gate: WithdrawsPermit,
        runs: SyncRuns,
        state: SyncState,
        publish: Publish,
        *,
        account: str,
        base_url: str,
        most_calls: Callable[[], int],
    ) -> None:
        self._client = client
        self._gate = gate
        self._runs = runs
        self._state = state
        self._publish = publish
        self._account = account
        self._base_url = base_url
        self._most_calls = most_calls

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Return one outcome per job. Raises Unreachable."""
        return [await self._run(job) for job in jobs]

    async def _run(self, job: Job) -> Outcome:
        params = plan.read_params(job.row["params"])
        problem = params if isinstance(params, str) else self._not_ours(job)
        if problem or isinstance(params, str):
            await self._gate.withdraw()
            return Fail(problem)
        started_s = time.monotonic()
        try:
            begun = await self._runs.begin(job.id, job.claim_id)
        except ClaimLost as error:
            return Release(str(error))
        earlier = read_figures(job.row["stats"])
        most = min(self._most_calls(), params.max_pages or self._most_calls()) - earlier.get("calls", 0)
        reader = Reader(self._client, now=begun.now, most_calls=most, size=params.batch_size)
        cycle = Cycle(job, params, begun, earlier, reader, self._state, self._base_url)
        try:
            await cycle.run(await self._marks())
        except OutOfTime:
            if not params.dry_run:  # which leaves nothing behind from where it could go on
                return await _goes_on(cycle)
        except OutOfCalls:
            pass
        except Unavailable as error:
            return _after_outage(error, begun, time.monotonic() - started_s)
        except (ClaimLost, Rejected) as error:
            return Release(str(error)) if isinstance(error, ClaimLost) else Fail(str(error))
        if not reader.calls:
            await self._gate.withdraw()
        figures = {name: figure for name, figure in cycle.figures().items() if name not in NOTES}
        for name, why in cycle.down.items():
            self._publish(Trouble(where=f"sync {name}", error=why))
        self._publish(
            CycleEnded(connector="shipstation", account=self._account, reason=job.row["reason"], stats=figures)
        )
        return Done({"stats": figures})

    def _not_ours(self, job: Job) -> str:
        asked, ours = (job.row["connector"], job.row["account"]), ("shipstation", self._account)
        if asked == ours:
            return ""
        return (
            f"no credentials for {' '.join(asked)} here; this process has {' '.join(ours)}\n"
            f"hint: leave the account out of the INSERT, or name {self._account!r}"
        )

    async def _marks(self) -> dict[Feed, Mark]:
        known = await self._state.marks([feed.workflow for feed in FEEDS])
        marks = {feed: known.get(feed.workflow, (None, None)) for feed in FEEDS}
        return {feed: Mark(at=at, cursor=cursor) for feed, (at, cursor) in marks.items()}


async def _goes_on(cycle: Cycle) -> Outcome:
    try:
        await cycle.cut()
    except ClaimLost as error:
        return Release(str(error))
    return Snooze(0.0, "more than one operation_timeout of pages; goes on")


def _after_outage(error: Unavailable, begun: Begun, lasted_s: float) -> Outcome:
    if error.reason not in DOUBTFUL:
        return Release(str(error))  # the gate knows how long
    age_s = (begun.now - begun.started_at).total_seconds() + lasted_s
    return Snooze(min(max(age_s, LEAST_WAIT_S), MOST_WAIT_S), str(error))
