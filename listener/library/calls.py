"""Calls a program's function as the engine calls a handler: rows in, one outcome for each."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from listener.core.job import Job
from listener.core.outcome import Done, Fail, Outcome, Retry, Snooze
from listener.library.rows import RowFaults, RowModel
from listener.library.threads import NoThread, Threads

Answer: TypeAlias = Done | Retry | Snooze | Fail
Answers: TypeAlias = Sequence[Answer | None]
One: TypeAlias = Callable[[Job[Any]], Answer | Awaitable[Answer | None] | None]
Many: TypeAlias = Callable[[list[Job[Any]]], Answers | Awaitable[Answers | None] | None]

EXPECTED = "None, Done, Retry, Snooze or Fail"
# Until a call that was given up may have returned.
_NO_THREAD_PAUSE_S = 5.0
#: 31 years: what has been computed wrongly is more, and the database's intervals end.
_LONGEST_S = 1e9


class Calls:
    """The handler of one queue. What a function answers wrongly fails its row: a second call would answer the same,
    and do its work twice.

    results: columns that `Done` may name. threads: where the function runs; None = it is async.
    on_surprise: told inside `except` of what the function raised, which the engine keeps as the row's error, and of its
    jobs.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        is_batch: bool,
        model: RowModel | None,
        results: frozenset[str],
        threads: Threads | None,
        on_surprise: Callable[[BaseException, Sequence[Job[Any]]], None],
    ) -> None:
        self._function = function
        self._is_batch = is_batch
        self._model = model
        self._results = results
        self._threads = threads
        self._on_surprise = on_surprise

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        """Return one outcome per job. Raises what the function raises."""
        if self._model is None:
            return await self._call(jobs)
        outcomes: dict[int, Outcome] = {}
        typed: dict[int, Job[Any]] = {}
        for position, job in enumerate(jobs):
            try:
                typed[position] = replace(job, row=self._model.read(job.row))
            except RowFaults as faults:
                outcomes[position] = Fail(str(faults))
        if typed:
            outcomes.update(zip(typed, await self._call(list(typed.values())), strict=True))
        return [outcomes[position] for position in range(len(jobs))]

    async def _call(self, jobs: Sequence[Job[Any]]) -> Sequence[Outcome]:
        argument: Any = list(jobs) if self._is_batch else jobs[0]
        try:
            if self._threads is None:
                answer = await self._function(argument)
            else:
                answer = await self._threads.run(self._function, argument)
                answer = await answer if inspect.isawaitable(answer) else answer
        except NoThread as error:
            return [Snooze(_NO_THREAD_PAUSE_S, str(error))] * len(jobs)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            self._on_surprise(error, jobs)
            raise
        if not self._is_batch:
            return [self._checked(answer)]
        if answer is None:
            return [Done()] * len(jobs)
        if not isinstance(answer, list | tuple):
            text = f"the handler returned {answer!r:.200} for a batch; return None or a list of outcomes"
        elif len(answer) != len(jobs):
            text = f"the handler returned {len(answer)} outcomes for {len(jobs)} jobs; return one for each, in order"
        else:
            return [self._checked(one) for one in answer]
        return [Fail(text)] * len(jobs)

    def _checked(self, answer: object) -> Outcome:
        match answer:
            case None:
                return Done()
            case Done(values) if not isinstance(values, Mapping):
                return Fail(f"the handler returned {answer!r:.200}; Done takes column → value")
            case Done(values) if unknown := sorted(map(str, values.keys() - self._results)):
                return Fail(
                    f"the handler's Done names {', '.join(unknown)}, which is not declared; "
                    f"declared: results=({', '.join(sorted(self._results))})"
                )
            case Retry() | Snooze() if not _names_its_delay(answer):
                return Fail(
                    f"the handler returned {answer!r:.200}; delay_s takes seconds, "
                    f"an int or a float up to {_LONGEST_S:.0e}"
                )
            case Retry(error) | Fail(error) if not isinstance(error, str):
                return Fail(f"the handler returned {answer!r:.200}; its error takes the text that a person reads")
            case Done() | Retry() | Snooze() | Fail():
                return answer
            case _:
                return Fail(f"the handler returned {answer!r:.200}; return {EXPECTED}")


def _names_its_delay(answer: Retry | Snooze) -> bool:
    delay_s: object = answer.delay_s  # whatever the program has put there
    if delay_s is None:
        return isinstance(answer, Retry)
    return isinstance(delay_s, int | float) and -math.inf < delay_s <= _LONGEST_S  # what is past is due at once
