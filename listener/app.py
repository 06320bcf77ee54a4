"""The service: its queues, and the clients that their handlers need. What every process has is in `process.py`."""

from contextlib import AsyncExitStack
from zoneinfo import ZoneInfo

import anyio

from listener.clients.shipstation.client import CONNECTOR, ShipStation, account_name
from listener.clients.shipstation.lists import is_theirs
from listener.config.environment import Environment
from listener.config.live import LiveConfig
from listener.core.errors import ConfigError
from listener.core.events import OperationEnded, Publish
from listener.core.queue import Limits
from listener.db.budgets import ApiBudget
from listener.db.pool import Pool
from listener.db.queue import QueueTable
from listener.db.sync_runs import SyncRuns
from listener.db.sync_state import SyncState
from listener.engine.assignment import Assignment
from listener.engine.supervisor import Supervisor
from listener.obs import log
from listener.obs.recycling import Recycling
from listener.process import Process
from listener.sources import open_sources, source_accounts
from listener.web.access import guard
from listener.web.sync import sync_monitor
from listener.web.webhooks import shipstation_webhooks
from listener.workflows.imports.found import Rules
from listener.workflows.imports.handler import Import, Settings
from listener.workflows.imports.words import parse_words
from listener.workflows.queues import IMPORT, QUEUES, SYNC, UPLOAD
from listener.workflows.sync.handler import Sync
from listener.workflows.sync.retention import Retention
from listener.workflows.sync.schedule import Schedule
from listener.workflows.upload.handler import MOST_ORDERS, Upload

# The older scripts' names in polling_metrics.
_WORKFLOWS = {"upload": "shipstation-upload", "import": "xml-import", "sync": "unified-sync"}


class App:
    """One process of the service. Raises ConfigError when it cannot work as it is configured."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._names = chosen_queues(env)
        self._imports = import_settings(env)
        accounts = set()
        if {UPLOAD.name, SYNC.name} & set(self._names):
            accounts.add((CONNECTOR, account_name(credentials(env)[0])))  # missing ones are said before anything runs
        if IMPORT.name in self._names:
            accounts |= source_accounts(env)
        self.process = Process(
            env,
            {name: QUEUES[name].noun for name in self._names},
            accounts=frozenset(accounts),
            workflows=_WORKFLOWS,
        )
        recycling = Recycling(self._recycle, most_operations=env.recycle_after, most_mib=env.recycle_memory_mib)
        self.process.bus.subscribe(recycling.on_event, OperationEnded)

    def _tell_refused(self, count: int) -> None:
        is_set = self.env.shipstation_webhook_secret is not None
        why = "the address ends with another secret" if is_set else "SHIPSTATION_WEBHOOK_SECRET is not set"
        log.own().warning("Webhooks refused", connector=CONNECTOR, count=count, why=why)

    def _recycle(self, reason: str) -> None:
        log.own().info(f"Recycling: {reason}; running work ends, a new process goes on")
        self.supervisor.stop(hurries=False)

    @property
    def supervisor(self) -> Supervisor:
        """The engine's life: its state, and `stop`."""
        return self.process.supervisor

    @property
    def address(self) -> str:
        """Where the HTTP interface is; empty before `run`."""
        return self.process.address

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Run until SIGTERM or SIGINT. Raises ConfigError, DatabaseError for what no waiting mends."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.process)
            self.supervisor.awaits_migration = self.env.await_migration
            if UPLOAD.name in self._names:
                client = await stack.enter_async_context(
                    shipstation(self.env, self.process.pool, self.process.bus.publish)
                )
                self.process.assign(
                    Assignment(
                        table=QueueTable(self.process.pool, UPLOAD),
                        handler=Upload(client, client.account),
                        limits=_upload_limits,
                        gate=client.account,
                    )
                )
            if IMPORT.name in self._names:
                openers = await open_sources(self.process, stack)
                self.process.assign(
                    Assignment(
                        table=QueueTable(self.process.pool, IMPORT),
                        handler=Import(self.process.pool, self._imports, self.process.bus.publish, openers),
                        limits=_import_limits,
                    )
                )
            if SYNC.name in self._names:
                await self._assign_sync(stack)
            await self.process.run(started=started)

    async def _assign_sync(self, stack: AsyncExitStack) -> None:
        process, env = self.process, self.env
        runs = await assign_sync(process, stack)
        process.chores.append(Schedule(runs, process.configuration, process.bus.publish, queue=SYNC.name).run)
        process.chores.append(Retention(runs, process.bus.publish, days=lambda: process.live.retention_days).run)
        process.routes.append(
            shipstation_webhooks(
                runs,
                secret=env.shipstation_webhook_secret,
                is_theirs=lambda url: is_theirs(url, env.shipstation_base_url),
                on_refused=self._tell_refused,
            )
        )
        process.routes.append(
            sync_monitor(
                runs,
                live=lambda: process.live,
                is_connected=lambda: process.supervisor.state == "connected",
                guard=guard(env.api_token),
            )
        )


async def assign_sync(process: Process, stack: AsyncExitStack) -> SyncRuns:
    """Have the process work on queue sync; returns the account's runs.

    The client is one of its own: its calls yield to the uploads', and neither takes what the other has reserved.
    """
    env, publish = process.env, process.bus.publish
    client = await stack.enter_async_context(shipstation(env, process.pool, publish, yields=True))
    account = account_name(credentials(env)[0])
    runs = SyncRuns(process.pool, connector=CONNECTOR, account=account)
    sync = Sync(
        client,
        client.account,
        runs,
        SyncState(process.pool, account=account),
        publish,
        account=account,
        base_url=env.shipstation_base_url,
        most_calls=lambda: process.live.sync_calls_per_cycle,
    )
    table = QueueTable(process.pool, SYNC)
    process.assign(Assignment(table=table, handler=sync, limits=_sync_limits, gate=client.account))
    return runs


def shipstation(env: Environment, pool: Pool, publish: Publish, *, yields: bool = False) -> ShipStation:
    """Make a client of ShipStation, to be entered. yields: it leaves calls to the uploads.

    Raises ConfigError when the credentials are not set.
    """
    key, secret = credentials(env)
    budget = ApiBudget(
        pool,
        publish,
        connector=CONNECTOR,
        account=account_name(key),
        call_limit=env.shipstation_rate_limit,
        window_s=env.shipstation_rate_window_s,
        yields=yields,
    )
    return ShipStation(
        env.shipstation_base_url,
        key=key,
        secret=secret,
        timeout_s=env.shipstation_timeout_s,
        budget=budget,
        publish=publish,
    )


def _limits(live: LiveConfig, queue: str, *, concurrency: int, batch_size: int = 1) -> Limits:
    return Limits(
        enabled=live.is_enabled(queue),
        batch_size=batch_size,
        concurrency=concurrency,
        max_attempts=live.max_attempts,
        timeout_s=live.operation_timeout,
    )


def _upload_limits(live: LiveConfig) -> Limits:
    batch_size = min(live.upload_batch_size, MOST_ORDERS)
    return _limits(live, UPLOAD.name, concurrency=live.upload_concurrency, batch_size=batch_size)


def _import_limits(live: LiveConfig) -> Limits:
    return _limits(live, IMPORT.name, concurrency=live.import_concurrency)


def _sync_limits(live: LiveConfig) -> Limits:
    return _limits(live, SYNC.name, concurrency=live.sync_concurrency)


def import_settings(env: Environment) -> Settings:
    """Return how files of orders are read. Raises ConfigError."""
    try:
        words = parse_words(env.import_status_words)
    except ValueError as error:
        raise ConfigError(f"IMPORT_STATUS_WORDS: {error}") from error
    rules = Rules(
        zone=ZoneInfo(env.import_time_zone),
        most_bytes=env.import_max_bytes,
        most_orders=env.import_max_orders,
        most_depth=env.import_max_depth,
        most_field_chars=env.import_max_field,
        most_seconds=env.import_max_seconds,
    )
    return Settings(order_source=env.import_order_source, rules=rules, words=words)


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
            "SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET are not set; queues upload and sync need them "
            "(ShipStation → Settings → API), or leave both out of LISTENER_QUEUES"
        )
    return key.get_secret_value(), secret.get_secret_value()
