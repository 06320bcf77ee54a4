"""One queue's engine on a real database, with a handler of the test's own and no session: each part can be cut."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup
from conftest import Database
from queues import SESSION, open_pool
from waiting import until_async

from listener.core.budget import Gate
from listener.core.errors import SessionLost
from listener.core.events import Event
from listener.core.job import Job, Settlement
from listener.core.outcome import Done, Outcome
from listener.core.queue import Limits, Queue
from listener.core.retry import Backoff
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.session import Session
from listener.db.survey import SurveyStatement
from listener.engine.bell import Bell
from listener.engine.completer import Completer
from listener.engine.crew import Crew
from listener.engine.dispatcher import Dispatcher
from listener.engine.executor import Executor, Handler
from listener.engine.rescuer import Rescuer
from listener.engine.slots import Slots
from listener.engine.survey import Survey
from listener.engine.wake import Wake
from listener.workflows.queues import UPLOAD

E = TypeVar("E")


class Work:
    """A handler that notes what it was given and, until `open` is set, keeps it."""

    def __init__(self, answer: Callable[[Sequence[Job]], Sequence[Outcome]] | None = None) -> None:
        self.calls: list[list[int]] = []
        self.active = 0
        self.most_active = 0
        self.open = anyio.Event()
        self._answer = answer

    async def __call__(self, jobs: Sequence[Job]) -> Sequence[Outcome]:
        self.calls.append([job.id for job in jobs])
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            await self.open.wait()
            return [Done() for _ in jobs] if self._answer is None else self._answer(jobs)
        finally:
            self.active -= 1

    @property
    def seen(self) -> list[int]:
        return [key for call in self.calls for key in call]


class Bench:
    """The parts of one queue. `limits`, `poll_s`, `hears` and `is_releasing` are the live configuration; change them
    at will. Without `hears` nobody turns the bell on."""

    def __init__(
        self,
        pool: Pool,
        handler: Handler,
        *,
        slots: Slots | None = None,
        gate: Gate | None = None,
        limits: Limits | None = None,
        queue: Queue = UPLOAD,
        table: QueueTable | None = None,
    ) -> None:
        self.events: list[Event] = []
        self.pool_url = pool._url
        self.limits = limits or Limits()
        self.poll_s = 300.0
        self.hears = False
        self.is_alone = self.spares_writers = True
        self.is_releasing = False
        self.table = table or QueueTable(pool, queue)
        self.slots = slots or Slots(lambda: 100)
        self.wake = Wake()
        self.rescuer = Rescuer(self.events.append)
        self.survey = Survey(SurveyStatement(pool).read)
        self.completer = Completer(
            self.table,
            self.events.append,
            on_reopened=lambda: self.wake.ring("reopened"),
            on_delayed=self.wake.ring_in,
            on_room=lambda: self.dispatcher.slot_freed(),  # noqa: PLW0108 - made below
        )
        self.executor = Executor(
            queue.name,
            handler,
            self.completer,
            self.slots,
            self.events.append,
            is_gated=gate is not None,
            is_releasing=lambda: self.is_releasing,
            backoff=Backoff(base_s=0.0),
        )
        self.dispatcher = Dispatcher(
            self.table,
            self.executor,
            self.slots,
            self.wake,
            self.survey,
            self.events.append,
            gate=gate,
            limits=lambda: self.limits,
            poll_s=lambda: self.poll_s,
            hears=lambda: self.hears,
            spares_writers=lambda: self.spares_writers,
        )
        self.rescuer.add(self.table, lambda: self.limits.timeout_s)
        self.survey.add(self.dispatcher, lambda: self.limits.timeout_s)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @asynccontextmanager
    async def running(self, *, dispatches: bool = True) -> AsyncIterator[Crew]:
        """Run it for the block; yields the calls under way. At its end they are cancelled, and outcomes are written."""
        async with anyio.create_task_group() as group:
            group.start_soon(self.completer.run)
            self.survey.begin(SESSION)
            async with Crew.gathered() as crew:
                if dispatches:
                    group.start_soon(self._dispatch, group, crew, await self.bell(group))
                yield crew
                crew.cancel()
            with anyio.move_on_after(5):
                await self.completer.flush()
            group.cancel_scope.cancel("the test is over")

    def start(self, crew: Crew, jobs: Sequence[Job], limits: Limits | None = None) -> list[Job]:
        """Begin a call as the dispatcher would; returns a list that gets the jobs when they are let go."""
        limits, gone = limits or self.limits, list[Job]()
        deadline_s = anyio.current_time() + limits.timeout_s
        self.executor.begin(self.executor.prepare(crew, jobs, limits, deadline_s, lambda: gone.extend(jobs)))
        return gone

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Hand outcomes to the completer, and wait until they are written."""
        written = anyio.Event()
        self.completer.put(settlements, written.set)
        await written.wait()

    async def bell(self, group: TaskGroup) -> Bell:
        """Open a session in the group, and the queue's bell on it; nobody else is there."""
        session = await Session.open(self.pool_url, schema="public")
        group.start_soon(self._listen, session)
        return Bell(self.table, session, self.events.append, is_alone=lambda: self.is_alone)

    async def _dispatch(self, group: TaskGroup, crew: Crew, bell: Bell) -> None:
        try:
            await self.dispatcher.run(SESSION, crew, bell)
        except SessionLost:
            if not group.cancel_scope.cancel_called:  # else it was in a statement when the session ended with the test
                raise

    async def _listen(self, session: Session) -> None:
        try:
            await session.listen()
        finally:
            await session.close()

    async def claim(self, count: int) -> list[Job]:
        """Claim rows as the dispatcher would."""
        jobs = (await self.table.claim(limit=count, session_key=SESSION)).jobs
        assert len(jobs) == count
        return jobs


@asynccontextmanager
async def bench(database: Database, handler: Handler, **options: Any) -> AsyncIterator[Bench]:
    """Open a bench with a pool of its own."""
    async with open_pool(database, max_size=4) as pool:
        yield Bench(pool, handler, **options)


async def quiet(work: Work, calls: int, *, what: str = "the handler") -> None:
    """Wait until the handler has been called that often."""
    await until_async(lambda: len(work.calls) >= calls, what=f"{what} to be called {calls} times; {work.calls}")
