"""Runs a handler on a batch of jobs and turns whatever happens into outcomes."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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

_OUTCOMES = (Done, Retry, Snooze, Fail, Release)

# How long calls take on average goes by about so many of the last ones, and starts with so many seconds.
_LAST_CALLS, UNKNOWN_S = 32, 1.0
# A queue without a gate has nothing that holds it back while its API is down.
UNGATED_PAUSE_S = 5.0


@dataclass(slots=True)
class Call:
    """One handler call to be: rows of one claim, by the limits that held for it. let_go: told when they are settled."""

    crew: Crew
    jobs: Sequence[Job]
    limits: Limits
    deadline: anyio.CancelScope
    let_go: Callable[[], None]


class Executor:
    """One queue's executor. `is_releasing` tells at a cancel whether to give the rows back (shutdown) or to leave them
    (the session is lost, they are being rescued). mean_s: how long the last calls took on average, seconds."""

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
        self.mean_s = UNKNOWN_S

    def prepare(
        self, crew: Crew, jobs: Sequence[Job], limits: Limits, deadline_s: float, let_go: Callable[[], None]
    ) -> Call:
        """Return one call, to begin or to give back. deadline_s: by the event loop's clock; `prolong` moves it from
        here on."""
        deadline = crew.scope(deadline_s)
        self._deadlines.add(deadline)
        return Call(crew, jobs, limits, deadline, let_go)

    def begin(self, call: Call) -> None:
        """Begin a call, in one slot more."""
        self._slots.take(self._queue)
        call.crew.start(self._run(call), call.deadline)

    def drop(self, call: Call, *, gives_back: bool) -> None:
        """Let go of a call that has not begun; gives_back: or, but for a shutdown, leave its rows to the rescue."""
        self._deadlines.discard(call.deadline)
        outcomes = [Release()] * len(call.jobs) if gives_back or self._is_releasing() else []
        self._completer.put(self._settlements(call.jobs, outcomes, call.limits), call.let_go)

    async def flush(self) -> None:
        """Wait until the outcomes known by now are written."""
        await self._completer.flush()

    @property
    def is_behind(self) -> bool:
        """So many outcomes wait to be written that no call should begin."""
        return self._completer.is_behind

    def prolong(self, by_s: float) -> None:
        """Move the deadline of the calls under way: the operation timeout has changed by so many seconds. The rescue
        goes by the new one at once, and must not take rows from a call that may still run."""
        for deadline in self._deadlines:
            deadline.deadline += by_s

    async def _run(self, call: Call) -> None:
        """The slot is free when the handler has ended: writing its outcomes is the completer's work. One deadline for
        the whole operation, its splits included: a longer one would outlive the claim."""
        jobs, deadline = call.jobs, call.deadline
        operation = f"{self._queue}-{jobs[0].claim_id}-{jobs[0].id}"  # a claim may be several operations
        started_s = time.perf_counter()
        self._publish(OperationStarted(queue=self._queue, operation=operation, active=self._slots.active, jobs=jobs))
        outcomes: list[Outcome | None] = [None] * len(jobs)
        error: str | None = None
        with deadline:
            error = await self._attempt(call, jobs, 0, outcomes)
        self._deadlines.discard(deadline)
        duration_s = time.perf_counter() - started_s
        self.mean_s += (duration_s - self.mean_s) / _LAST_CALLS
        if not deadline.cancelled_caught:
            result = "failed" if error else "completed"
            if isinstance(outcomes[0], Release) and all(isinstance(outcome, Release) for outcome in outcomes):
                result = "released"
        elif not call.crew.is_cancelled:
            allowed_s = max(deadline.deadline - (anyio.current_time() - duration_s), 0.0)
            allowed = f"{round(allowed_s, 1 if allowed_s >= 1 else 3):g} s ({call.limits.timeout_by})"
            error = f"The handler did not end within {allowed}."
            result = "timeout"
            outcomes = [outcome or Retry(error) for outcome in outcomes]
        else:
            result = "cancelled"
            outcomes = [outcome or Release() for outcome in outcomes] if self._is_releasing() else []
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
        self._completer.put(self._settlements(jobs, outcomes, call.limits), call.let_go)

    def _settlements(self, jobs: Sequence[Job], outcomes: Sequence[Outcome | None], limits: Limits) -> list[Settlement]:
        """None for all = their rows are left alone."""
        return [
            settlement(job, outcome, max_attempts=limits.max_attempts, backoff=self._backoff, jitter=random.random())
            for job, outcome in zip(jobs, outcomes, strict=False)
            if outcome is not None
        ]

    async def _attempt(self, call: Call, jobs: Sequence[Job], first: int, outcomes: list[Outcome | None]) -> str | None:
        """Call the handler, and put its answers where they belong, from the `first` on. An exception from more than
        one job is not charged to all: halve until it stands alone."""
        answers: Sequence[Outcome]
        text: str | None = None
        try:
            answers = _checked(await self._handler(jobs), len(jobs))
        except Unavailable as error:
            text = str(error)
            answers = [Release(text) if self._is_gated else Snooze(error.wait_s or UNGATED_PAUSE_S, text)] * len(jobs)
        except Unreachable as error:  # our own database: no order's fault either
            text = str(error)
            answers = [Snooze(UNGATED_PAUSE_S, text)] * len(jobs)
        except (KeyboardInterrupt, GeneratorExit):  # somebody's Ctrl-C, and the end of the event loop
            raise
        except BaseException as error:  # noqa: BLE001 - its rows' error, never our end
            if isinstance(error, asyncio.CancelledError):
                _uncancel(call, error)
            if len(jobs) > 1:
                middle = len(jobs) // 2
                before = await self._attempt(call, jobs[:middle], first, outcomes)
                after = await self._attempt(call, jobs[middle:], first + middle, outcomes)
                return before or after
            text = _text(error)
            answers = [Retry(text)]
        outcomes[first : first + len(jobs)] = answers
        return text


def _uncancel(call: Call, error: asyncio.CancelledError) -> None:
    """Raise a cancellation that is ours. Any other is the handler's own: it awaited a task that somebody cancelled, or
    cancelled itself."""
    if call.deadline.cancel_called:
        raise error
    task = asyncio.current_task()
    while task and task.cancelling():
        task.uncancel()


def _text(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except BaseException as fault:  # noqa: BLE001 - somebody's __str__
        return f"{name}, whose text cannot be had: {type(fault).__name__}"


def _checked(answers: Sequence[Outcome], count: int) -> Sequence[Outcome]:
    if len(answers) != count:
        raise TypeError(f"the handler returned {len(answers)} outcomes for {count} jobs; return one for each, in order")
    for answer in answers:
        if not isinstance(answer, _OUTCOMES):
            raise TypeError(f"the handler returned {answer!r}; return Done, Retry, Snooze or Fail")
    return answers
