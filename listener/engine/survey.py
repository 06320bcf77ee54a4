"""The survey: one question, with each safety poll, for all queues of the process: is there anything to do?

While there is not, that is all that is asked. Each queue's claim, rescue and look for strays by themselves, under their
names, and the read of the configuration were 1.4 statements a second in an idle process with three queues (measured).
"""

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from math import floor
from typing import Protocol

import anyio

from listener.core.errors import DatabaseError
from listener.db.queue import QueueTable
from listener.db.survey import Question, Surveyed, Todo
from listener.engine.configuration import Configuration
from listener.engine.rescuer import stale_s


class Read(Protocol):
    """Asks the database: `SurveyStatement.read`."""

    def __call__(
        self, session_key: int, questions: Sequence[Question], *, is_whole: bool, usual_s: float
    ) -> Awaitable[Surveyed]:
        """Raises Unreachable, DatabaseError."""


# An answer to a question that was asked this long before ours is one to ours, too: polls that fall into one moment.
_SHARED_S = 1.0
# A timer may go off so much before its time; the poll it stands for must not come twice.
_EARLY_S = 0.005
# A whole survey visits every row that was claimed since VACUUM could last clean up (measured: 1 µs each, seconds after
# an hour's pg_dump). After one that took longer than this, polls ask nothing of the rows for so many times as long:
# each queue looks for itself, and rows of the dead wait.
_LONG_S, _SHARE, _LONGEST_S = 0.1, 20, 300.0
# Replicas that were started together do not march in step: each one's polls lie earlier by a part of the interval.
_MOST_PHASE = 0.1


class Asker(Protocol):
    """One queue's dispatcher, as far as the survey asks for it."""

    @property
    def table(self) -> QueueTable:
        """The queue."""

    def held(self) -> Collection[int]:
        """Claims whose rows are worked on here."""

    def asks_bell(self) -> bool:
        """Whether it matters if anybody has the doorbell on."""

    def suspect_strays(self) -> None:
        """Our session may hold rows that nobody here works on."""


@dataclass(frozen=True, slots=True)
class _Queue:
    asker: Asker
    timeout_s: Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Answer:
    began_at: float
    content: Surveyed | DatabaseError

    def opened(self) -> Surveyed:
        """Return what was found. Raises what was met instead."""
        if isinstance(self.content, DatabaseError):
            raise self.content
        return self.content


class Survey:
    """Asks for all queues that were added, at moments in which their polls fall together."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._queues: list[_Queue] = []
        self._session_key = 0
        self._began_at, self._phase = 0.0, 0.0
        self._turn = anyio.Lock()
        self._latest: _Answer | None = None
        self._whole_from, self._usual_s = 0.0, 0.0

    def add(self, asker: Asker, timeout_s: Callable[[], float]) -> None:
        """Look over this queue too; `timeout_s` gives the seconds that one of its handler calls may take now."""
        self._queues.append(_Queue(asker, timeout_s))

    def begin(self, session_key: int) -> None:
        """Ask for this session from now on, and begin to count its polls."""
        self._session_key, self._latest = session_key, None
        self._whole_from, self._usual_s = 0.0, 0.0
        self._began_at, self._phase = anyio.current_time(), random.uniform(0.0, _MOST_PHASE)

    def next_poll(self, after: float, every_s: float) -> float:
        """Return the first moment after `after` at which all polls of the process that are made `every_s` seconds fall
        together. Times are the event loop's."""
        if every_s <= 0:
            return after
        passed = floor((after + _EARLY_S - self._began_at) / every_s + self._phase)
        return self._began_at + (passed + 1 - self._phase) * every_s

    async def ask(self, queue: str, *, every_s: float) -> tuple[Todo, float]:
        """Return what there is to do in a queue, and the seconds that it took to find out. Raises as `poll` does."""
        surveyed = (await self._ask(every_s)).opened()
        return surveyed.queues[queue], surveyed.duration_s

    async def until_poll(self, configuration: Configuration) -> None:
        """Wait for the process's own part of the next safety poll; a change of its interval counts at once."""
        now = anyio.current_time()
        await configuration.pause(lambda: self.next_poll(now, configuration.live.fast_polling_interval) - now)

    async def poll(self, configuration: Configuration) -> list[str]:
        """Bring the configuration up to date, and return the queues that have something to rescue.

        Raises Unreachable, DatabaseError; one table that cannot be read is enough.
        """
        if not self._queues:
            await configuration.reload()
            return []
        answer = await self._ask(configuration.live.fast_polling_interval)
        surveyed = answer.opened()
        configuration.take(surveyed.configuration, read_at=answer.began_at)
        return [name for name, todo in surveyed.queues.items() if todo.has_stranded]

    async def _ask(self, every_s: float) -> _Answer:
        asked_at = anyio.current_time()
        async with self._turn:
            latest = self._latest
            if latest is None or asked_at - latest.began_at > min(_SHARED_S, every_s / 2):
                latest = self._latest = await self._answer()
        return latest

    async def _answer(self) -> _Answer:
        began_at = anyio.current_time()
        questions = [
            Question(
                table=queue.asker.table,
                stale_s=stale_s(queue.timeout_s()),
                held=queue.asker.held(),
                asks_bell=queue.asker.asks_bell(),
            )
            for queue in self._queues
        ]
        is_whole = began_at >= self._whole_from
        try:
            surveyed = await self._read(self._session_key, questions, is_whole=is_whole, usual_s=self._usual_s)
        except DatabaseError as error:  # who shares it must not wait for the same trouble again
            for queue in self._queues:
                queue.asker.suspect_strays()
            return _Answer(began_at, error)
        finally:
            if is_whole:
                self._usual_s = anyio.current_time() - began_at
                if self._usual_s > _LONG_S:
                    self._whole_from = began_at + min(_SHARE * self._usual_s, _LONGEST_S)
        for queue in self._queues:
            if surveyed.queues[queue.asker.table.queue.name].has_strays:
                queue.asker.suspect_strays()
        return _Answer(began_at, surveyed)
