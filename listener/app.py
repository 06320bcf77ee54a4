"""The service: its queues, and the clients that their handlers need. What every process has is in `process.py`."""

from contextlib import AsyncExitStack
from pathlib import Path
from zoneinfo import ZoneInfo

import anyio

from listener.clients.folder import Folder
from listener.clients.shipstation.client import CONNECTOR, ShipStation, account_name
from listener.config.environment import Environment
from listener.config.live import LiveConfig
from listener.core.errors import ConfigError
from listener.core.queue import Limits, Queue
from listener.db.budgets import ApiBudget
from listener.db.queue import QueueTable
from listener.engine.supervisor import Supervisor
from listener.process import Assignment, Process
from listener.workflows.imports.folder_source import SOURCE as FOLDER
from listener.workflows.imports.folder_source import FolderSource
from listener.workflows.imports.found import Rules
from listener.workflows.imports.handler import IMPORT, Import, Opener, Settings
from listener.workflows.imports.words import parse_words
from listener.workflows.upload.handler import MOST_ORDERS, UPLOAD, Upload

QUEUES: dict[str, Queue] = {queue.name: queue for queue in (UPLOAD, IMPORT)}
# The older scripts' names in polling_metrics.
_WORKFLOWS = {"upload": "shipstation-upload", "import": "xml-import"}


class App:
    """One process of the service. Raises ConfigError when it cannot work as it is configured."""

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._names = chosen_queues(env)
        self._imports = import_settings(env)
        accounts = set()
        if UPLOAD.name in self._names:
            accounts.add((CONNECTOR, account_name(credentials(env)[0])))  # missing ones are said before anything runs
        self.process = Process(
            env,
            {name: QUEUES[name].noun for name in self._names},
            accounts=frozenset(accounts),
            workflows=_WORKFLOWS,
        )
        self._openers: dict[str, Opener] = {}
        if IMPORT.name in self._names and env.import_folder is not None:
            self._watch_folder(env.import_folder)

    def _watch_folder(self, path: Path) -> None:
        folder = FolderSource(
            Folder(path),
            self.process.pool,
            self.process.bus.publish,
            settle_s=self.env.import_settle_s,
            poll_s=lambda: self.process.live.poll_interval_s(IMPORT.name),
            hears=lambda: self.process.live.notifications_enabled(IMPORT.name),
        )
        self.process.bus.subscribe(folder.on_event)
        self.process.chores.append(folder.run)
        self._openers[FOLDER] = folder

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
            if UPLOAD.name in self._names:
                client = await stack.enter_async_context(self._shipstation())
                self.process.assign(
                    Assignment(
                        table=QueueTable(self.process.pool, UPLOAD),
                        handler=Upload(client, client.account),
                        limits=_upload_limits,
                        gate=client.account,
                    )
                )
            if IMPORT.name in self._names:
                self.process.assign(
                    Assignment(
                        table=QueueTable(self.process.pool, IMPORT),
                        handler=Import(self.process.pool, self._imports, self.process.bus.publish, self._openers),
                        limits=_import_limits,
                    )
                )
            await self.process.run(started=started)

    def _shipstation(self) -> ShipStation:
        key, secret = credentials(self.env)
        publish = self.process.bus.publish
        budget = ApiBudget(
            self.process.pool,
            publish,
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
            publish=publish,
        )


def _upload_limits(live: LiveConfig) -> Limits:
    return Limits(
        enabled=live.is_enabled(UPLOAD.name),
        batch_size=min(live.upload_batch_size, MOST_ORDERS),
        concurrency=live.upload_concurrency,
        max_attempts=live.max_attempts,
        timeout_s=live.operation_timeout,
    )


def _import_limits(live: LiveConfig) -> Limits:
    return Limits(
        enabled=live.is_enabled(IMPORT.name),
        concurrency=live.import_concurrency,
        max_attempts=live.max_attempts,
        timeout_s=live.operation_timeout,
    )


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
            "SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET are not set; queue upload needs them "
            "(ShipStation → Settings → API), or leave upload out of LISTENER_QUEUES"
        )
    return key.get_secret_value(), secret.get_secret_value()
