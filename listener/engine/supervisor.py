"""Holds the session and everything whose life is bound to it.

connect → LISTEN → self-test → configuration → rescue → dispatch, until the session is lost or we are told to stop.
Losing the session cancels all of it (the handlers too: their rows are being taken), and it starts over with a new key.
"""

import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from listener.core.errors import (
    ConfigError,
    DatabaseError,
    ListenerError,
    Pooled,
    SessionLost,
    Ungranted,
    Unmigrated,
    Unreachable,
    most_telling,
)
from listener.core.events import Publish, Rung, SessionClosed, SessionOpened, Stopping, Trouble
from listener.core.retry import Backoff
from listener.db.pool import Pool
from listener.db.session import CONFIG_CHANNEL, PEERS_CHANNEL, WAKE_CHANNEL, Session, end_former
from listener.db.trouble import is_final
from listener.engine.bell import Bell
from listener.engine.completer import Completer
from listener.engine.configuration import Configuration
from listener.engine.crew import Crew
from listener.engine.dispatcher import Dispatcher
from listener.engine.rescuer import Rescuer
from listener.engine.slots import Slots
from listener.engine.survey import Survey
from listener.engine.watch import Watch

RECONNECT = Backoff(base_s=0.2, cap_s=10.0)
# The self-test is repeated while things are quiet: a pooler or proxy may have come in between later.
SELF_TEST_EVERY_S = 300.0
# Seconds that cancelled calls and their settles may take; afterwards their rows are rescued with the session.
_SETTLING_LIMIT_S = 5.0

Chore = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One queue's parts."""

    dispatcher: Dispatcher
    completer: Completer


class Supervisor:
    """The engine's life. `state` is for `/readyz`: starting, connected, reconnecting, stopping, stopped.

    verify: awaited at each connect, before anything is read or claimed.
    chores: run beside the work, until cancelled, while there is a session; they survive their own database trouble. The
    list may grow until `run`.
    """

    def __init__(
        self,
        pool: Pool,
        direct_url: str,
        slots: Slots,
        rescuer: Rescuer,
        survey: Survey,
        watch: Watch,
        publish: Publish,
        *,
        configuration: Configuration,
        shutdown_timeout_s: float,
        verify: Callable[[], Awaitable[None]],
        chores: Sequence[Chore],
    ) -> None:
        self.state = "starting"
        self.detail = "no connection yet"
        #: A schema that does not fit, or is not granted yet, is waited for at the start, instead of ending the process.
        self.awaits_migration = False
        self._pool = pool
        self._direct_url = direct_url
        self._workers: dict[str, Worker] = {}
        self._slots = slots
        self._rescuer = rescuer
        self._survey = survey
        self._watch = watch
        self._publish = publish
        self._configuration = configuration
        self._shutdown_timeout_s = shutdown_timeout_s
        self._verify = verify
        self._chores = chores
        self._former: Session | None = None
        self._lost_at: float | None = None
        self._has_connected = False
        self._failures = 0
        self._stopping = anyio.Event()
        self._hurrying = anyio.Event()
        self._is_releasing = False

    def add(self, worker: Worker) -> None:
        """Work on a queue too; before the first connect or while `verify` runs."""
        self._workers[worker.dispatcher.name] = worker

    def is_releasing(self) -> bool:
        """True while a shutdown cancels handlers: their rows are to be given back."""
        return self._is_releasing

    def troubles(self) -> dict[str, str]:
        """Queues that could not be looked at several times in a row, and why."""
        dispatchers = [worker.dispatcher for worker in self._workers.values()]
        return {dispatcher.name: dispatcher.trouble for dispatcher in dispatchers if dispatcher.trouble}

    def stop(self, *, hurries: bool = True) -> None:
        """Stop claiming and wait for running handlers; called again: cancel them at once, if it hurries."""
        if hurries and self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    async def run(self) -> None:
        """Run until stopped. Raises DatabaseError if the first connection shows what no waiting mends."""
        while not self._stopping.is_set() and (error := await self._live()) is not None:
            is_awaited = self.awaits_migration and isinstance(error, Unmigrated | Ungranted)
            if not self._has_connected and is_final(error) and not is_awaited:
                raise error
            await self._wait_to_reconnect(error)
        self.state, self.detail = "stopped", "stopped"

    async def _live(self) -> ListenerError | None:
        """Hold one session until it is lost (returns why) or we were stopped (returns None)."""
        session = await self._open()
        if not isinstance(session, Session):
            return session
        failure: ListenerError | None = None
        try:
            await self._serve(session)
        except* (SessionLost, DatabaseError, ConfigError) as group:
            failure = most_telling(group)
        finally:
            await session.close()
        if failure is not None:
            self._former = session
        return failure

    async def _open(self) -> Session | DatabaseError | None:
        """Return a session, why there is none, or None when we were stopped first."""
        opened: Session | DatabaseError | None = None
        async with anyio.create_task_group() as connecting:

            async def give_up() -> None:
                await self._stopping.wait()
                connecting.cancel_scope.cancel("stopping")

            connecting.start_soon(give_up)
            try:
                opened = await Session.open(self._direct_url, schema=self._pool.schema)
            except DatabaseError as error:  # outside the group it would arrive wrapped
                opened = error
            connecting.cancel_scope.cancel("connected")
        return opened

    async def _serve(self, session: Session) -> None:
        async with anyio.create_task_group() as scope:
            session.on_heard(self._hear)
            scope.start_soon(self._until_lost, session.listen)
            await self._prepare(session)
            for chore in (self._configuration.follow, *self._chores):
                scope.start_soon(chore)
            scope.start_soon(self._watch.run, session.key)
            for worker in self._workers.values():
                scope.start_soon(worker.completer.run)
            scope.start_soon(self._until_lost, lambda: self._keep_house(session))
            with anyio.CancelScope() as settling:
                async with Crew.gathered() as crew:
                    scope.start_soon(self._shut_down, crew, settling)
                    async with anyio.create_task_group() as dispatching:
                        for worker in self._workers.values():
                            bell = Bell(worker.dispatcher.table, session, self._publish, is_alone=self._watch.is_alone)
                            dispatching.start_soon(worker.dispatcher.run, session.key, crew, bell)
                for worker in self._workers.values():
                    await worker.completer.flush()
            if self._is_releasing:
                for worker in self._workers.values():  # rows of cancelled handlers were given back: no trigger tells
                    await worker.dispatcher.table.ring(session)
            scope.cancel_scope.cancel("all work is settled")

    async def _until_lost(self, work: Callable[[], Awaitable[None]]) -> None:
        """Show a loss when it is found: statements under way may take seconds to end before we reconnect."""
        try:
            await work()
        except SessionLost as error:
            self._lose(error)
            raise

    async def _prepare(self, session: Session) -> None:
        """LISTEN already holds; so what is committed from now on is heard, and what was before is found by the look."""
        await self._pool.refresh()
        if self._former is not None:
            await self._end(self._former)
        await self._verify()
        await session.self_test(self._pool)
        await self._configuration.reload()
        await self._rescuer.rescue()
        self._survey.begin(session.key)
        self._has_connected, self.awaits_migration = True, False
        self._failures, self._former = 0, None
        self.state, self.detail = "connected", f"session {session.key}"
        recovered_s = None if self._lost_at is None else time.monotonic() - self._lost_at
        self._lost_at = None
        self._publish(SessionOpened(key=session.key, backend_pid=session.backend_pid, recovered_s=recovered_s))

    async def _end(self, former: Session) -> None:
        schema = self._pool.schema
        try:
            await end_former(self._pool, schema=schema, session_key=former.key, backend_pid=former.backend_pid)
        except Unreachable:
            raise
        except DatabaseError as error:  # another role than the session's: keepalives end it within 15 s
            self._publish(Trouble(where="end former session", error=str(error)))

    async def _keep_house(self, session: Session) -> None:
        """With each safety poll: is the lease still ours, is the configuration, are there rows of the dead?"""
        next_self_test = anyio.current_time() + SELF_TEST_EVERY_S
        while True:
            await self._survey.until_poll(self._configuration)
            await session.check()
            if not await self._survive(self._poll()):
                await session.check()
                # each by itself: rows of the dead are given back also while the configuration cannot be read
                await self._survive(self._configuration.reload())
                await self._survive(self._rescuer.rescue())
            if anyio.current_time() >= next_self_test and not self._slots.active:
                await self._survive(session.self_test(self._pool))
                next_self_test = anyio.current_time() + SELF_TEST_EVERY_S

    async def _poll(self) -> None:
        if stranded := await self._survey.poll(self._configuration):
            await self._rescuer.rescue(stranded)

    async def _survive(self, chore: Awaitable[object]) -> bool:
        try:
            await chore
        except Pooled as error:
            raise SessionLost(str(error)) from error
        except DatabaseError as error:
            self._publish(Trouble(where="safety poll", error=str(error)))
            return False
        return True

    async def _shut_down(self, crew: Crew, settling: anyio.CancelScope) -> None:
        await self._stopping.wait()
        self.state, self.detail = "stopping", "waiting for running handlers"
        self._publish(Stopping(stage=1, active=self._slots.active))
        for worker in self._workers.values():
            worker.dispatcher.stop()
        with anyio.move_on_after(self._shutdown_timeout_s):
            await self._hurrying.wait()
        self._is_releasing = True
        self._publish(Stopping(stage=2, active=self._slots.active))
        crew.cancel()
        await anyio.sleep(_SETTLING_LIMIT_S)
        settling.cancel("the database does not take the outcomes")

    def _hear(self, channel: str, payload: str) -> None:
        if channel == CONFIG_CHANNEL:
            self._configuration.tell()
        elif channel == PEERS_CHANNEL:
            self._watch.look_again()
        elif channel == WAKE_CHANNEL:
            self._hear_bell(*payload.partition("\t"))

    def _hear_bell(self, table: str, _tab: str, by: str) -> None:
        for worker in self._workers.values():  # tables of one name in two schemas are told apart by a look
            dispatcher = worker.dispatcher
            if dispatcher.table.queue.table == table and dispatcher.hears():
                if by:
                    dispatcher.wake.ring("call")
                else:
                    dispatcher.hear()
                self._publish(Rung(queue=dispatcher.name, by=by or "writer"))

    def _lose(self, error: ListenerError) -> None:
        if self._lost_at is None and self._has_connected:
            self._lost_at = time.monotonic()
        self.state = "reconnecting" if self._has_connected else "starting"
        self.detail = str(error)

    async def _wait_to_reconnect(self, error: ListenerError) -> None:
        self._lose(error)
        self._failures += 1
        delay_s = RECONNECT.ceiling_s(self._failures) * random.uniform(0.5, 1.0)
        self._publish(SessionClosed(reason=str(error), retry_s=delay_s))
        with anyio.move_on_after(delay_s):
            await self._stopping.wait()
