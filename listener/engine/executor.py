"""Runs a handler on a batch of jobs and turns whatever happens into outcomes."""

import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import anyio

from listener.core.errors import Unavailable, Unreachable
from listener.core.events import OperationEnded, OperationStarted, Publish
from listener.core.job import Job, Settlement, settlement
from listener.core.outcome import Done, Fail, Outcome, Release, Retry, Snooze
from listener.core.queue import Limits
from listener.core.retry import Backoff
from listener.engine.completer import Completer
from listener.engine.crew import Crew
from listener.engine.slots import Slots

Handler: TypeAlias = Callable[[Sequence[Job]], Awaitable[Sequence[Outcome]]]

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
        self._deadlines: set[anyio.CancelScope] = set()

    def start(
        self, crew: Crew, jobs: Sequence[Job], limits: Limits, deadline_s: float, let_go: Callable[[], None]
    ) -> None:
        """Begin one call in one slot, which the caller has taken. deadline_s: by the event loop's clock; `prolong`
        moves it from here on. let_go: told when the rows are settled."""
        deadline = anyio.CancelScope(deadline=deadline_s)
        self._deadlines.add(deadline)
        crew.start(self._run(crew, jobs, limits, deadline, let_go), deadline)

    @property
    def is_behind(self) -> bool:
        """So many outcomes wait to be written that no call should begin."""
        return self._completer.is_behind

    def prolong(self, by_s: float) -> None:
        """Move the deadline of the calls under way: the operation timeout has changed by so many seconds. The rescue
        goes by the new one at once, and must not take rows from a call that may still run."""
        for deadline in self._deadlines:
            deadline.deadline += by_s

    async def _run(
        self,
        crew: Crew,
        jobs: Sequence[Job],
        limits: Limits,
        deadline: anyio.CancelScope,
        let_go: Callable[[], None],
    ) -> None:
        """The slot is free when the handler has ended: writing its outcomes is the completer's work. One deadline for
        the whole operation, its splits included: a longer one would outlive the claim."""
        operation = f"{self._queue}-{jobs[0].claim_id}-{jobs[0].id}"  # a claim may be several operations
        started_s = time.perf_counter()
        self._publish(OperationStarted(queue=self._queue, operation=operation, active=self._slots.active, jobs=jobs))
        outcomes: dict[int, Outcome] = {}
        error: str | None = None
        with deadline:
            error = await self._attempt(jobs, range(len(jobs)), outcomes)
        self._deadlines.discard(deadline)
        duration_s = time.perf_counter() - started_s
        if not deadline.cancelled_caught:
            result = "failed" if error else "completed"
            if outcomes and all(isinstance(outcome, Release) for outcome in outcomes.values()):
                result = "released"
        elif not crew.is_cancelled:
            allowed_s = deadline.deadline - (anyio.current_time() - duration_s)
            error = f"The handler did not end within {round(max(allowed_s, 0.0), 1):g} s (operation_timeout)."
            result = "timeout"
            _fill(outcomes, jobs, Retry(error))
        else:
            result = "cancelled"
            if self._is_releasing():
                _fill(outcomes, jobs, Release())
            else:
                outcomes.clear()
        self._publish(
            OperationEnded(
                queue=self._queue,
                operation=operation,
                active=self._slots.give_back(self._queue),
                result=result,
                duration_s=duration_s,
                error=error,
            )
        )
        self._completer.put(self._settlements(jobs, outcomes, limits), let_go)

    def _settlements(self, jobs: Sequence[Job], outcomes: dict[int, Outcome], limits: Limits) -> list[Settlement]:
        return [
            settlement(
                jobs[position], outcome, max_attempts=limits.max_attempts, backoff=self._backoff, jitter=random.random()
            )
            for position, outcome in sorted(outcomes.items())
        ]

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


def _fill(outcomes: dict[int, Outcome], jobs: Sequence[Job], outcome: Outcome) -> None:
    for position in range(len(jobs)):
        outcomes.setdefault(position, outcome)


def _checked(answers: Sequence[Outcome], count: int) -> Sequence[Outcome]:
    if len(answers) != count:
        raise TypeError(f"the handler returned {len(answers)} outcomes for {count} jobs; return one for each, in order")
    for answer in answers:
        if not isinstance(answer, Done | Retry | Snooze | Fail | Release):
            raise TypeError(f"the handler returned {answer!r}; return Done, Retry, Snooze or Fail")
    return answers
