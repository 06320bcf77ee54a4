"""One process: the engine put together from its parts, with its HTTP interface and its signals.

The service (`app.py`) and a user's program (`library/`) differ in their queues alone; both are wired here.
"""

import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio.lowlevel
from anyio.abc import TaskStatus
from starlette.routing import Route

from listener.config.environment import Environment
from listener.config.live import LiveConfig
from listener.core.errors import ListenerError
from listener.core.events import Bus, Checked, ConfigLoaded, Event, OperationEnded, OperationStarted, QueueMode, Trouble
from listener.core.queue import Limits
from listener.db.applied import verify_async, verify_granted
from listener.db.configuration import read_configuration
from listener.db.line import Line
from listener.db.polling_metrics import PollingLog
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.session import probe
from listener.db.survey import SurveyStatement
from listener.db.watch import WatchConnection, announce, read_peers
from listener.engine.assignment import Assignment
from listener.engine.completer import Completer
from listener.engine.configuration import Configuration
from listener.engine.dispatcher import Dispatcher
from listener.engine.executor import Executor
from listener.engine.polling_metrics import PollingMetrics
from listener.engine.rescuer import Rescuer
from listener.engine.slots import Slots
from listener.engine.supervisor import Chore, Supervisor, Worker
from listener.engine.survey import Survey
from listener.engine.wake import Wake
from listener.engine.watch import Watch
from listener.obs import log as logs
from listener.obs.metrics import Metrics
from listener.obs.operations import Operations
from listener.obs.server import address_of, bind, serve
from listener.obs.systemd import Systemd
from listener.web.api import build
from listener.web.figures import Figures


class Process:
    """The parts of one process, as an async context that holds its pool and its socket; `supervisor` is there inside.

    nouns: queue → what its rows are called; every queue that will be assigned. workflows: queue → its name in
    `polling_metrics`. serves: with the HTTP interface. log: where to, when the program's logging is not ours to set.
    tells_operations: a line for each handler call's start and end. prepare: awaited at each connect, before anything is
    claimed; may assign queues. most: handler calls at once. chores, routes: to be filled before `run`.
    """

    _log_level = LiveConfig().log_level

    def __init__(
        self,
        env: Environment,
        nouns: Mapping[str, str],
        *,
        accounts: frozenset[tuple[str, str]] = frozenset(),
        workflows: Mapping[str, str] | None = None,
        serves: bool = True,
        log: Any = None,
        tells_operations: bool = True,
        prepare: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
        most: Callable[[LiveConfig], int] = lambda live: live.max_concurrent_operations,
    ) -> None:
        self.env = env
        self.address = ""
        self.bus = Bus()
        self.tables, self._names = list[QueueTable](), list(nouns)
        self._accounts = accounts
        self._serves, self._sets_log = serves, log is None
        self._log = logs.own() if log is None else log
        self._prepare, self._most = prepare, most
        self._workflows = workflows or {}
        self._dispatchers: list[Dispatcher] = []
        self._modes: dict[str, tuple[bool, bool, float]] = {}
        self._stack = AsyncExitStack()
        self.chores, self.routes = list[Chore](), list[Route]()
        self._metrics = Metrics(self._names)
        self._event_log = logs.EventLog(
            dict(nouns),
            self._log,
            tells_operations=tells_operations,
            tells_debug=logs.tells_debug if log is None else logs.borrowed_tells_debug,
        )
        self._running = Operations()
        self.bus.subscribe(self._metrics.on_event)
        self.bus.subscribe(self._obey_level, ConfigLoaded)  # before its own line is written
        self.bus.subscribe(self._event_log.on_event)
        self.bus.subscribe(self._running.on_event, OperationStarted, OperationEnded)
        self.pool = Pool(
            env.database_url.get_secret_value(),
            schema=env.schema_name,
            is_pooled=env.is_pooled,
            min_size=env.pool_min,
            max_size=env.pool_max,
        )
        self._line = Line(self.pool, on_trouble=lambda error: self.bus.publish(Trouble(where="line", error=str(error))))
        self.configuration = Configuration(lambda: read_configuration(self.pool), self.bus.publish)
        self.configuration.on_change(self._announce)
        self.slots = Slots(self.configuration.figure(most), place=lambda queue: self.live.priority(queue))  # noqa: PLW0108
        self._rescuer, self._survey = Rescuer(self.bus.publish), Survey(SurveyStatement(self.pool).read)

    @property
    def live(self) -> LiveConfig:
        """The configuration in force."""
        return self.configuration.live

    async def __aenter__(self) -> Self:
        """Open socket and pool. Raises ConfigError when the address is taken."""
        async with AsyncExitStack() as stack:
            stack.callback(lambda: self._log.info("Connection pool closed"))
            stack.callback(self._event_log.close)
            if self._serves:
                self._sock = bind(*self.env.http_address)
                stack.callback(self._sock.close)
                self.address = address_of(self._sock)
            await stack.enter_async_context(self.pool)
            self.supervisor = self._supervise()
            self._stack = stack.pop_all()
        self._log.info(f"Connection pool initialized (min={self.env.pool_min}, max={self.env.pool_max})")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):  # a second or two, also for whoever is cancelled
            await self._stack.aclose()

    async def run(self, *, started: anyio.Event | None = None, obeys_signals: bool = True) -> None:
        """Work until stopped, by SIGTERM and SIGINT or by `supervisor.stop`.

        Raises ConfigError, DatabaseError for what no waiting mends.
        """
        failure: ListenerError | None = None
        async with anyio.create_task_group() as group:
            figures = self._figures()
            if self._serves:
                group.start_soon(figures.run)
                group.start_soon(serve, build(figures, token=self.env.api_token, routes=self.routes), self._sock)
            if obeys_signals:
                group.start_soon(Systemd(figures, self.bus).run)
                await group.start(self._obey_signals)
            if self._serves:
                self._log.info("HTTP interface", address=self.address)
            if started is not None:
                started.set()
            try:
                await self.supervisor.run()
            except ListenerError as error:  # outside the group it would arrive wrapped
                failure = error
            group.cancel_scope.cancel("the engine has stopped")
        if failure is not None:
            raise failure

    def assign(self, assignment: Assignment) -> None:
        """Work on a queue; before `run` or while it prepares."""
        table, wake, figure = assignment.table, Wake(self._survey.next_poll), self.configuration.figure
        name, gate, limits = table.queue.name, assignment.gate, figure(assignment.limits)
        completer = Completer(
            table,
            self.bus.publish,
            on_reopened=lambda: wake.ring("reopened"),
            on_delayed=wake.ring_in,
            on_room=lambda: dispatcher.slot_freed(),  # noqa: PLW0108 - made below
        )
        executor = Executor(
            name,
            assignment.handler,
            completer,
            self.slots,
            self.bus.publish,
            is_gated=gate is not None,
            is_releasing=self.supervisor.is_releasing,
        )
        dispatcher = Dispatcher(
            table,
            executor,
            self.slots,
            wake,
            self._survey,
            self.bus.publish,
            gate=gate,
            limits=limits,
            poll_s=figure(lambda live: live.poll_interval_s(name)),
            hears=figure(lambda live: live.notifications_enabled(name)),
            spares_writers=figure(lambda live: live.doorbell_enabled),
        )
        table.line = self._line
        self.tables.append(table)
        self._dispatchers.append(dispatcher)
        self._rescuer.add(table, lambda: limits().timeout_s)
        self._survey.add(dispatcher, lambda: limits().timeout_s)
        self.configuration.on_change(self._follower(name, assignment.limits, dispatcher, executor))
        self.supervisor.add(Worker(dispatcher=dispatcher, completer=completer))

    def _follower(
        self, name: str, limits: Callable[[LiveConfig], Limits], dispatcher: Dispatcher, executor: Executor
    ) -> Callable[[LiveConfig, LiveConfig], None]:
        def may_claim(live: LiveConfig) -> tuple[object, ...]:
            return limits(live), self._most(live), live.notifications_enabled(name), live.doorbell_enabled

        def follow(before: LiveConfig, after: LiveConfig) -> None:
            if may_claim(after) != may_claim(before):
                dispatcher.reconfigured()
            dispatcher.wake.retime()  # a sleep that was long under the old values gets shorter now
            executor.prolong(limits(after).timeout_s - limits(before).timeout_s)

        return follow

    def _supervise(self) -> Supervisor:
        direct_url = self.env.direct_url.get_secret_value()
        polling = PollingMetrics(
            PollingLog(self.pool),
            self.bus.publish,
            is_enabled=lambda: self.live.polling_metrics_enabled,
            names=self._workflows,
            is_ending=lambda: self.supervisor.state == "stopping",
        )
        self.bus.subscribe(polling.on_event, Checked)
        self.chores += [polling.run, self._line.run]

        def look() -> None:
            for dispatcher in self._dispatchers:
                dispatcher.peers_changed()

        watch = Watch(
            lambda: announce(self.pool),
            lambda: read_peers(self.pool),
            lambda: WatchConnection.open(direct_url, schema=self.env.schema_name),
            self._rescuer.rescue,
            self.bus.publish,
            on_change=look,
        )
        return Supervisor(
            self.pool,
            direct_url,
            self.slots,
            self._rescuer,
            self._survey,
            watch,
            self.bus.publish,
            configuration=self.configuration,
            shutdown_timeout_s=self.env.shutdown_timeout_s,
            verify=self._verify,
            chores=self.chores,
        )

    async def _verify(self) -> None:
        if self.env.is_pooled:  # the session has shown that its own address is good
            await probe(self.env.database_url.get_secret_value())
        await self.pool.transaction(lambda conn: verify_async(conn, self.env.schema_name), name="verify")
        if self.supervisor.awaits_migration:  # what is new in this release may be granted a moment later
            await self.pool.transaction(verify_granted, name="verify")
        await self._prepare()

    def _figures(self) -> Figures:
        return Figures(
            self.pool,
            self.tables,
            self.supervisor,
            self.slots,
            self._metrics,
            self._running,
            self.configuration,
            accounts=self._accounts,
        )

    def _obey_level(self, _loaded: Event) -> None:
        if self._sets_log and self.live.log_level != self._log_level:  # at the start nobody may have asked for one
            self._log_level = self.live.log_level
            logs.set_level(self._log_level)

    def _announce(self, _before: LiveConfig, after: LiveConfig) -> None:
        for name in self._names:
            mode = (after.is_enabled(name), after.notifications_enabled(name), after.poll_interval_s(name))
            if self._modes.get(name) == mode:
                continue
            (is_on, is_fast, every_s), new = mode, name not in self._modes
            self.bus.publish(
                QueueMode(queue=name, is_enabled=is_on, fast_polling=is_fast, interval_s=every_s, is_start=new)
            )
            self._modes[name] = mode

    async def _obey_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self.supervisor.stop()
