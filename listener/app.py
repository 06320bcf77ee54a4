"""The composition root: the only place that wires. Reads top to bottom as the service's life."""

import signal
from contextlib import AsyncExitStack
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from listener.clients.shipstation.client import CONNECTOR, ShipStation, account_name
from listener.config.environment import Environment
from listener.config.live import LiveConfig
from listener.core.budget import Gate
from listener.core.errors import ConfigError, ListenerError
from listener.core.events import Bus, QueueMode
from listener.core.queue import Limits, Queue
from listener.db.applied import verify_async
from listener.db.budgets import ApiBudget
from listener.db.configuration import read_configuration
from listener.db.polling_metrics import PollingLog
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.watch import WatchConnection, announce, read_peers
from listener.engine.completer import Completer
from listener.engine.configuration import Configuration
from listener.engine.dispatcher import Dispatcher
from listener.engine.executor import Executor, Handler
from listener.engine.polling_metrics import PollingMetrics
from listener.engine.rescuer import Rescuer
from listener.engine.slots import Slots
from listener.engine.supervisor import Supervisor, Worker
from listener.engine.wake import Wake
from listener.engine.watch import Watch
from listener.obs import log as logs
from listener.obs.metrics import Metrics
from listener.obs.operations import Operations
from listener.obs.server import address_of, bind, serve
from listener.web.api import build
from listener.web.figures import Figures
from listener.workflows.upload.handler import MOST_ORDERS, UPLOAD, Upload

QUEUES: dict[str, Queue] = {queue.name: queue for queue in (UPLOAD,)}
# The older scripts' names in polling_metrics.
_WORKFLOWS = {"upload": "shipstation-upload", "import": "xml-import"}


class App:
    """One process of the service."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._names = chosen_queues(env)
        if UPLOAD.name in self._names:
            credentials(env)  # said now, before anything runs
        self.bus = Bus()
        self._metrics = Metrics(self._names)
        self._event_log = logs.EventLog({name: QUEUES[name].noun for name in self._names})
        self._running = Operations()
        for subscriber in (self._metrics, self._event_log, self._running):
            self.bus.subscribe(subscriber.on_event)
        self.pool_ = Pool(
            env.database_url.get_secret_value(),
            schema=env.schema_name,
            is_pooled=env.is_pooled,
            min_size=env.pool_min,
            max_size=env.pool_max,
        )
        self.configuration = Configuration(lambda: read_configuration(self.pool_), self.bus.publish)
        self._polling = PollingMetrics(
            PollingLog(self.pool_),
            self.bus.publish,
            is_enabled=lambda: self.configuration.live.polling_metrics_enabled,
            names=_WORKFLOWS,
        )
        self.bus.subscribe(self._polling.on_event)
        self.tables = {name: QueueTable(self.pool_, QUEUES[name]) for name in self._names}
        self.slots = Slots(lambda: self.live.max_concurrent_operations)
        self.address = ""
        self._wakes: list[Wake] = []
        self._modes: dict[str, tuple[bool, bool, float]] = {}

    @property
    def live(self) -> LiveConfig:
        """The configuration in force."""
        return self.configuration.live

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigError, DatabaseError for what no waiting mends."""
        log = structlog.get_logger()
        sock = bind(*self.env.http_address)
        self.address = address_of(sock)
        failure: ListenerError | None = None
        async with AsyncExitStack() as stack:
            stack.callback(self._event_log.close)
            stack.callback(sock.close)
            await stack.enter_async_context(self.pool_)
            log.info(f"Connection pool initialized (min={self.env.pool_min}, max={self.env.pool_max})")
            self.supervisor = await self._wire(stack)
            async with anyio.create_task_group() as group:
                group.start_soon(serve, build(self._figures(), token=self.env.api_token), sock)
                await group.start(self._obey_signals)
                log.info("HTTP interface", address=self.address)
                if started is not None:
                    started.set()
                try:
                    await self.supervisor.run()
                except ListenerError as error:  # outside the group it would arrive wrapped
                    failure = error
                group.cancel_scope.cancel("the engine has stopped")
        log.info("Connection pool closed")
        if failure is not None:
            raise failure

    async def _wire(self, stack: AsyncExitStack) -> Supervisor:
        workers: list[Worker] = []
        self.configuration.on_change(self._announce)
        if UPLOAD.name in self._names:
            client = await stack.enter_async_context(self._shipstation())
            workers.append(self._worker(UPLOAD, Upload(client, client.account), client.account, self._upload_limits))
        rescuer = Rescuer(list(self.tables.values()), self.bus.publish)
        direct_url = self.env.direct_url.get_secret_value()

        async def rescue() -> None:
            await rescuer.run_once(operation_timeout_s=self.live.operation_timeout)

        def look() -> None:
            for wake in self._wakes:
                wake.ring("peer")

        watch = Watch(
            lambda: announce(self.pool_),
            lambda: read_peers(self.pool_),
            lambda: WatchConnection.open(direct_url, schema=self.env.schema_name),
            rescue,
            self.bus.publish,
            on_gone=look,
        )
        return Supervisor(
            self.pool_,
            direct_url,
            workers,
            self.slots,
            rescuer,
            watch,
            self.bus.publish,
            configuration=self.configuration,
            shutdown_timeout_s=self.env.shutdown_timeout_s,
            verify=lambda: self.pool_.inspect(lambda conn: verify_async(conn, self.env.schema_name)),
            chores=(self._polling.run,),
        )

    def _figures(self) -> Figures:
        return Figures(
            self.pool_,
            list(self.tables.values()),
            self.supervisor,
            self.slots,
            self._metrics,
            self._running,
            self.configuration,
            accounts=frozenset(
                {(CONNECTOR, account_name(credentials(self.env)[0]))} if UPLOAD.name in self._names else ()
            ),
            troubles=self.supervisor.troubles,
        )

    def _shipstation(self) -> ShipStation:
        key, secret = credentials(self.env)
        budget = ApiBudget(
            self.pool_,
            self.bus.publish,
            connector=CONNECTOR,
            account=account_name(key),
            call_limit=self.env.shipstation_rate_limit,
            window_s=self.env.shipstation_rate_window_s,
        )
        return ShipStation(
            self.env.shipstation_base_url,
            key=key,
            secret=secret,
            timeout_s=self.env.shipstation_timeout_s,
            budget=budget,
            publish=self.bus.publish,
        )

    def _worker(self, queue: Queue, handler: Handler, gate: Gate | None, limits: Any) -> Worker:
        table, wake = self.tables[queue.name], Wake()
        self._wakes.append(wake)
        completer = Completer(
            table, self.bus.publish, on_reopened=lambda: wake.ring("reopened"), on_delayed=wake.ring_in
        )
        executor = Executor(
            queue.name,
            handler,
            completer,
            self.slots,
            self.bus.publish,
            is_gated=gate is not None,
            is_releasing=lambda: self.supervisor.is_releasing(),  # noqa: PLW0108 - made after its workers
        )
        dispatcher = Dispatcher(
            table,
            executor,
            self.slots,
            wake,
            self.bus.publish,
            gate=gate,
            limits=limits,
            poll_s=lambda: self.live.poll_interval_s(queue.name),
        )

        def may_claim() -> tuple[object, ...]:
            return limits(), self.live.max_concurrent_operations, self.live.notifications_enabled(queue.name)

        allowed = may_claim()

        def follow(before: LiveConfig, after: LiveConfig) -> None:
            nonlocal allowed
            former, allowed = allowed, may_claim()
            if allowed != former:
                wake.ring("config")
            wake.retime()  # a sleep that was long under the old values gets shorter now
            executor.prolong(after.operation_timeout - before.operation_timeout)

        self.configuration.on_change(follow)
        return Worker(
            dispatcher=dispatcher, completer=completer, hears=lambda: self.live.notifications_enabled(queue.name)
        )

    def _upload_limits(self) -> Limits:
        return Limits(
            enabled=self.live.is_enabled(UPLOAD.name),
            batch_size=min(self.live.upload_batch_size, MOST_ORDERS),
            concurrency=self.live.upload_concurrency,
            max_attempts=self.live.max_attempts,
            timeout_s=self.live.operation_timeout,
        )

    def _announce(self, before: LiveConfig, after: LiveConfig) -> None:
        """Say how each queue works from now on, and at which level that is said."""
        if after.log_level != before.log_level:  # at the start nobody may have asked for the default
            logs.set_level(after.log_level)
        for name in self._names:
            mode = (after.is_enabled(name), after.notifications_enabled(name), after.poll_interval_s(name))
            if self._modes.get(name) == mode:
                continue
            is_enabled, fast_polling, interval_s = mode
            self.bus.publish(
                QueueMode(
                    queue=name,
                    is_enabled=is_enabled,
                    fast_polling=fast_polling,
                    interval_s=interval_s,
                    is_start=name not in self._modes,
                )
            )
            self._modes[name] = mode

    async def _obey_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self.supervisor.stop()


def chosen_queues(env: Environment) -> list[str]:
    """Return the queues this process works on. Raises ConfigError for a name that is none."""
    wanted = list(env.queues or QUEUES)
    for name in wanted:
        if name not in QUEUES:
            raise ConfigError(f"LISTENER_QUEUES names {name!r}, which is no queue; known: {', '.join(QUEUES)}")
    return wanted


def credentials(env: Environment) -> tuple[str, str]:
    """Return ShipStation's key and secret. Raises ConfigError when they are not set."""
    key, secret = env.shipstation_api_key, env.shipstation_api_secret
    if key is None or secret is None:
        raise ConfigError(
            "SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET are not set; queue upload needs them "
            "(ShipStation → Settings → API), or leave upload out of LISTENER_QUEUES"
        )
    return key.get_secret_value(), secret.get_secret_value()
