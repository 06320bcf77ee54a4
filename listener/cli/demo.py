"""`listener demo`: everything on this machine and nothing left behind — Postgres, sandbox, service, sample orders."""

import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import anyio
import typer
from pydantic import SecretStr

from listener.app import App
from listener.config.environment import Environment
from listener.core.errors import ConfigError, ListenerError
from listener.db.embedded import Cluster
from listener.db.migrate import migrate
from listener.db.pool import Pool
from listener.db.samples import count_by_status, example_insert, insert_order
from listener.engine.loop import run_loop
from listener.obs import log
from listener.obs.server import address_of, bind, serve
from listener.sandbox.shipstation import SandboxSettings, build
from listener.sandbox.shop import ShopSettings

# Sandbox and service share one machine here; an order that is not accepted after this time never will be.
LIMIT_S = 120.0
# The service's own default; another port when something else listens there.
_HTTP = "127.0.0.1:8080"


cli = typer.Typer()


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the sandbox says of one order: how often it was written, and when first (epoch seconds)."""

    writes: int
    accepted_at: float


@cli.command()
def demo(
    orders: Annotated[int, typer.Option("--orders", min=1, max=100_000, help="How many sample orders.")] = 25,
    exit_: Annotated[bool, typer.Option("--exit", help="End when all is uploaded; exit 0 or 1.")] = False,
) -> None:
    """Run everything here: a temporary Postgres, the sandbox and the service, fed with sample orders."""
    log.set_up(format="console", level="warning" if exit_ else "info")
    if not run_loop(_run, orders, exit_):
        raise typer.Exit(1)


@cli.command()
def sandbox(
    listen: Annotated[str, typer.Option("--listen", help="Address to listen on, host:port.")] = "127.0.0.1:8090",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Calls per window; 0 = no limit.")] = 40,
    window: Annotated[float, typer.Option("--window", min=0.1, max=3600.0, help="Seconds of one rate window.")] = 60.0,
) -> None:
    """Serve local APIs like ShipStation's, a shop's and Google Drive's; /sandbox/orders lists what was uploaded."""
    log.set_up(format="console")
    anyio.run(_serve_sandbox, listen, limit, window)


async def _run(count: int, ends: bool) -> bool:
    """Insert `count` orders and watch them arrive; True when every one arrived exactly once."""
    with _temporary_server() as cluster:
        return await _with_services(cluster, count, ends)


async def _serve_sandbox(listen: str, limit: int, window_s: float) -> None:
    """Serve the sandboxes until interrupted. Raises ListenerError when the address is taken."""
    from listener.sandbox.together import build_together  # loads cryptography, which the demo does not need

    settings = SandboxSettings(limit=limit, window_s=window_s)
    sock = bind(*_parsed(listen), cure="choose another address with --listen")
    address = address_of(sock)
    secret = settings.secret.get_secret_value()
    _say(f"ShipStation sandbox on {address}; for `listener run`:")
    unlimited = "" if limit else " SHIPSTATION_RATE_LIMIT=0"
    credentials = f"SHIPSTATION_API_KEY={settings.key} SHIPSTATION_API_SECRET={secret}"
    _say(f"export SHIPSTATION_BASE_URL={address} {credentials}{unlimited}")
    _say(f"what it holds: {address}/sandbox/orders")
    shop = ShopSettings()
    credentials = f"IMPORT_SHOP_USER={shop.user} IMPORT_SHOP_PASSWORD={shop.password.get_secret_value()}"
    _say("a shop's export address and Google Drive, for order files (docs/imports.md):")
    _say(f"export IMPORT_SHOP_URL={address}/shop/export {credentials}")
    _say(f"curl -s {address}/google/sandbox/service-account > key.json")
    _say(f"export DRIVE_BASE_URL={address}/google DRIVE_FOLDER_ID=orders DRIVE_SERVICE_ACCOUNT_FILE=key.json")
    await serve(build_together(settings), sock)


@contextmanager
def _temporary_server() -> Iterator[Cluster]:
    """A migrated server in a folder of its own; afterwards neither is left, however impatient the person is.

    Blocks the event loop, which has nothing else to do: a Ctrl-C would leave a thread behind that still makes the
    server while its folder is removed (seen).
    """
    parts = ExitStack()
    try:
        with _uninterrupted() as presses:
            folder = parts.enter_context(
                tempfile.TemporaryDirectory(prefix="order-listener-", ignore_cleanup_errors=True)
            )
            _say(f"starting PostgreSQL in {folder} …")
            cluster = Cluster(data_dir=Path(folder) / "data")
            parts.callback(cluster.stop)
            cluster.start()
            migrate(cluster.url(), "public")
        if presses:
            signal.raise_signal(signal.SIGINT)
        yield cluster
    finally:
        with _uninterrupted():
            parts.close()


@contextmanager
def _uninterrupted() -> Iterator[list[int]]:
    """Ctrl-C is only noted."""
    presses: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: presses.append(number))
    try:
        yield presses
    finally:
        signal.signal(signal.SIGINT, before)


async def _with_services(cluster: Cluster, count: int, ends: bool) -> bool:
    settings = SandboxSettings(limit=0)
    sandbox = build(settings)
    sock = bind("127.0.0.1", 0)
    env = Environment(
        database_url=SecretStr(cluster.url()),
        http=_HTTP if not ends and _is_free(_HTTP) else "127.0.0.1:0",
        shipstation_api_key=SecretStr(settings.key),
        shipstation_api_secret=settings.secret,
        shipstation_base_url=address_of(sock),
        shipstation_rate_limit=0,
    )
    app = App(env)
    is_good = False
    failure: ListenerError | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(serve, sandbox, sock)
        started = anyio.Event()

        async def service() -> None:
            nonlocal failure
            try:
                await app.run(started=started)
            except ListenerError as error:  # outside the group it would arrive wrapped
                failure = error
            group.cancel_scope.cancel("the service has ended")

        group.start_soon(service)
        await started.wait()
        is_good = await _feed(app, sandbox, cluster, count)
        if not ends:
            _explain(app, cluster, address_of(sock))
            await anyio.sleep_forever()
        app.supervisor.stop()
    if failure is not None:
        raise failure
    return is_good


async def _feed(app: App, sandbox: Any, cluster: Cluster, count: int) -> bool:
    committed: dict[str, float] = {}
    url = cluster.url()
    with anyio.move_on_after(LIMIT_S):
        while app.supervisor.state != "connected":  # noqa: ASYNC110 - watched from outside, as a user would
            await anyio.sleep(0.01)
        async with Pool(url, schema="public", is_pooled=False, min_size=1, max_size=1) as writer:
            _say(f"inserting {count} orders, one transaction each …")
            for number in range(1, count + 1):
                await insert_order(writer, number)
                committed[f"demo-D-{number:05}"] = time.time()
            while (await count_by_status(writer)).get("Uploaded", 0) < count:  # noqa: ASYNC110
                await anyio.sleep(0.02)
    return _report(committed, _accepted(sandbox))


def _accepted(sandbox: Any) -> dict[str, Accepted]:
    held = (order.describe() for order in sandbox.state.sandbox.store.live())
    return {order["orderKey"]: Accepted(order["writes"], order["accepted_at"]) for order in held}


def _report(committed: dict[str, float], accepted: dict[str, Accepted]) -> bool:
    lost = [key for key in committed if key not in accepted]
    twice = [key for key in committed if key in accepted and accepted[key].writes > 1]
    waits_ms = sorted(1000 * (accepted[key].accepted_at - at) for key, at in committed.items() if key in accepted)
    _say(f"{len(committed) - len(lost)} uploaded, {len(lost) or 'none'} lost, {len(twice) or 'none'} twice")
    if waits_ms:
        p50, p99 = _percentile(waits_ms, 50), _percentile(waits_ms, 99)
        _say(f"commit → accepted by ShipStation: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return not lost and not twice and bool(committed)


def _percentile(values: Sequence[float], percent: int) -> float:
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


def _explain(app: App, cluster: Cluster, sandbox: str) -> None:
    insert = example_insert("A-1")
    _say("\nInsert an order (with another order_number each time):\n")
    _say(f"  {shlex.quote(str(cluster.psql))} {shlex.quote(cluster.url())} -c {shlex.quote(insert)}\n")
    _say(f"ShipStation sandbox  {sandbox}/sandbox/orders")
    _say(f"service              {app.address}/readyz  /metrics  /api/v1/queues")
    _say("Ctrl-C ends it all.")


def _parsed(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ConfigError(f"--listen {listen!r}: expected host:port, such as 127.0.0.1:8090")
    return host.strip("[]"), int(port)


def _is_free(address: str) -> bool:
    try:
        bind(*_parsed(address)).close()
    except ListenerError:
        return False
    return True


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
