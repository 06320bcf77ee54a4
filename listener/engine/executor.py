"""Runs a handler on a batch of jobs and turns whatever happens into outcomes."""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias
from weakref import WeakSet

import anyio
from anyio.abc import TaskGroup

from listener.core.errors import Unavailable, Unreachable
from listener.core.events import OperationEnded, OperationStarted, Publish
from listener.core.job import Job, settlement
from listener.core.outcome import Done, Fail, Outcome, Release, Retry, Snooze
from listener.core.queue import Limits
from listener.core.retry import Backoff
from listener.engine.completer import Completer
from listener.engine.slots import Slots

Handler: TypeAlias = Callable[[Sequence[Job]], Awaitable[Sequence[Outcome]]]

# Seconds the release of a cancelled batch may take; afterwards its rows are rescued with the session.
RELEASE_LIMIT_S = 5.0
# A queue without a gate has nothing that holds it back while its API is down.
UNGATED_PAUSE_S = 5.0


class Executor:
    """One queue's executor. `is_releasing` tells at a cancel whether to give the rows back (shutdown) or to leave them
    (the session is lost, they are being rescued)."""

    def __init__(
        self,
        queue: str,
        handler: Handler,
        completer: Completer,
        slots: Slots,
        publish: Publish,
        *,
        is_gated: bool,
        is_releasing: Callable[[], bool],
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._completer = completer
        self._slots = slots
        self._publish = publish
        self._is_gated = is_gated
        self._is_releasing = is_releasing
        self._backoff = backoff
        self._deadlines: WeakSet[anyio.CancelScope] = WeakSet()

    def start(
        self, group: TaskGroup, jobs: Sequence[Job], limits: Limits, settled: Callable[[Sequence[Job]], None]
    ) -> None:
        """Run one batch in the group. Its time runs from here, and so does what `prolong` does to it."""
        group.start_soon(self.run, jobs, limits, settled, self._deadline(limits))

    def prolong(self, by_s: float) -> None:
        """Move the deadline of the calls under way: the operation timeout has changed by so many seconds. The rescue
        goes by the new one at once, and must not take rows from a call that may still run."""
        for deadline in self._deadlines:
            deadline.deadline += by_s

    def _deadline(self, limits: Limits) -> anyio.CancelScope:
        deadline = anyio.CancelScope(deadline=anyio.current_time() + limits.timeout_s)
        self._deadlines.add(deadline)
        return deadline

    async def run(
        self,
        jobs: Sequence[Job],
        limits: Limits,
        settled: Callable[[Sequence[Job]], None],
        deadline: anyio.CancelScope | None = None,
    ) -> None:
        """Handle one batch in one slot, which the caller has taken; `settled` is told when its rows are let go."""
        operation = f"{self._queue}-{jobs[0].claim_id}-{jobs[0].id}"  # a claim may be several operations
        started = time.perf_counter()
        self._publish(
            OperationStarted(
                queue=self._queue,
                operation=operation,
                active=self._slots.active,
                jobs=len(jobs),
                labels=tuple(str(job.id if job.label is None else job.label) for job in jobs),
                pickup_s=tuple(job.due_for_s for job in jobs),
            )
        )
        outcomes: dict[int, Outcome] = {}
        result, error = "cancelled", None
        try:
            try:
                result, error = await self._handle(jobs, deadline or self._deadline(limits), outcomes)
            except anyio.get_cancelled_exc_class():
                await self._release(jobs, outcomes, limits)
                raise
            await self._settle(jobs, outcomes, limits)
        finally:
            settled(jobs)
            active = self._slots.give_back(self._queue)
            self._publish(
                OperationEnded(
                    queue=self._queue,
                    operation=operation,
                    active=active,
                    result=result,
                    duration_s=time.perf_counter() - started,
                    error=error,
                )
            )

    async def _handle(
        self, jobs: Sequence[Job], deadline: anyio.CancelScope, outcomes: dict[int, Outcome]
    ) -> tuple[str, str | None]:
        """Fill `outcomes` by position of the job. One deadline for the whole operation, its splits included: a longer
        one would outlive the claim."""
        started_at = anyio.current_time()
        with deadline:
            error = await self._attempt(jobs, range(len(jobs)), outcomes)
        self._deadlines.discard(deadline)
        if not deadline.cancelled_caught:
            if outcomes and all(isinstance(outcome, Release) for outcome in outcomes.values()):
                return "released", error
            return ("failed", error) if error else ("completed", None)
        allowed_s = round(max(deadline.deadline - started_at, 0.0), 1)
        text = f"The handler did not end within {allowed_s:g} s (operation_timeout)."
        for position in range(len(jobs)):
            outcomes.setdefault(position, Retry(text))
        return "timeout", text

    async def _attempt(self, jobs: Sequence[Job], positions: range, outcomes: dict[int, Outcome]) -> str | None:
        """Call the handler; an exception from more than one job is not charged to all: halve until it stands alone."""
        try:
            answers = await self._handler([jobs[position] for position in positions])
            outcomes.update(zip(positions, _checked(answers, len(positions)), strict=True))
        except Unavailable as error:
            held_back = Release(str(error)) if self._is_gated else Snooze(error.wait_s or UNGATED_PAUSE_S, str(error))
            outcomes.update(dict.fromkeys(positions, held_back))
            return str(error)
        except Unreachable as error:  # our own database: no order's fault either
            outcomes.update(dict.fromkeys(positions, Snooze(UNGATED_PAUSE_S, str(error))))
            return str(error)
        except Exception as error:  # noqa: BLE001 - a handler's surprise is its row's error, never the service's end
            if len(positions) == 1:
                text = f"{type(error).__name__}: {error}"
                outcomes[positions[0]] = Retry(text)
                return text
            middle = positions[len(positions) // 2]
            first = await self._attempt(jobs, range(positions[0], middle), outcomes)
            second = await self._attempt(jobs, range(middle, positions[-1] + 1), outcomes)
            return first or second
        return None

    async def _settle(self, jobs: Sequence[Job], outcomes: dict[int, Outcome], limits: Limits) -> None:
        await self._completer.settle(
            [
                settlement(
                    jobs[position],
                    outcome,
                    max_attempts=limits.max_attempts,
                    backoff=self._backoff,
                    jitter=random.random(),
                )
                for position, outcome in sorted(outcomes.items())
            ]
        )

    async def _release(self, jobs: Sequence[Job], outcomes: dict[int, Outcome], limits: Limits) -> None:
        if not self._is_releasing():
            return
        for position in range(len(jobs)):
            outcomes.setdefault(position, Release())
        with anyio.move_on_after(RELEASE_LIMIT_S, shield=True):
            await self._settle(jobs, outcomes, limits)


def _checked(answers: Sequence[Outcome], count: int) -> Sequence[Outcome]:
    if len(answers) != count:
        raise TypeError(f"the handler returned {len(answers)} outcomes for {count} jobs; return one for each, in order")
    for answer in answers:
        if not isinstance(answer, Done | Retry | Snooze | Fail | Release):
            raise TypeError(f"the handler returned {answer!r}; return Done, Retry, Snooze or Fail")
    return answers
