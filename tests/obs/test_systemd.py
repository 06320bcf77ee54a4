"""What systemd hears from a real process, on a socket as systemd makes it."""

import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from conftest import Database
from e2e.service import Services, services
from sandbox.server import Client, serving
from waiting import until, until_async

from listener.core.events import Bus, Event, Trouble
from listener.obs.systemd import Systemd

WATCHDOG_US = 300_000


class Manager:
    """systemd's end of the socket; `heard` are the messages so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._sock.bind(str(path))
        self._heard: list[str] = []

    @property
    def heard(self) -> list[str]:
        while True:
            try:
                self._heard.append(self._sock.recv(4096).decode())
            except BlockingIOError:
                return self._heard

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="listener-tests-") as folder:  # a socket's path has 108 bytes at most
        manager = Manager(Path(folder) / "notify")
        yield manager
        manager.close()


@pytest.fixture
def api() -> Iterator[Client]:
    with serving() as client:
        yield client


@pytest.fixture
def listeners(database: Database, api: Client, tmp_path: Path) -> Iterator[Services]:
    with services(database.service_url, api, tmp_path) as group:
        yield group


def test_it_hears_ready_then_signs_of_life_then_the_end(manager: Manager, listeners: Services) -> None:
    service = listeners.start(NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=str(WATCHDOG_US))
    until(lambda: "READY=1" in manager.heard, deadline_s=30, what=f"READY; heard {manager.heard}")
    assert service.get("/readyz")[0] == 200
    before = manager.heard.index("READY=1")
    assert "WATCHDOG=1" not in manager.heard[:before]
    until(lambda: manager.heard.count("WATCHDOG=1") >= 4, what="signs of life")
    until(lambda: any(text.startswith("STATUS=connected: session ") for text in manager.heard), what="the status")
    assert service.stop() == 0
    after = manager.heard[manager.heard.index("STOPPING=1") :]
    assert manager.heard.count("READY=1") == manager.heard.count("STOPPING=1") == 1
    assert any(text.startswith("STATUS=stopping: ") for text in after)


def test_while_the_database_is_away_it_asks_for_time_and_is_not_ready(manager: Manager, listeners: Services) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = listeners.start(
        NOTIFY_SOCKET=str(manager.path), DATABASE_URL=f"postgresql://nobody@127.0.0.1:{port}/nothing"
    )
    until(lambda: manager.heard.count("EXTEND_TIMEOUT_USEC=30000000") >= 3, deadline_s=30, what="requests for time")
    assert any(text.startswith("STATUS=starting: ") and str(port) in text for text in manager.heard)
    assert "READY=1" not in manager.heard
    service.signal(signal.SIGTERM)
    assert service.process.wait(30) == 0


class Well:
    """Figures of a process that is ready."""

    async def readiness(self) -> tuple[bool, dict[str, object]]:
        return True, {}

    def summary(self) -> str:
        return "connected:\nsession 1"


@pytest.mark.anyio
async def test_a_loop_that_hangs_gives_no_sign_of_life(manager: Manager) -> None:
    """The sign comes from the loop itself: what blocks it, for example a handler, silences it."""
    environ = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "30000"}
    async with anyio.create_task_group() as group:
        group.start_soon(Systemd(Well(), Bus(), environ).run)
        await until_async(lambda: manager.heard.count("WATCHDOG=1") >= 2, what="signs of life")
        count = manager.heard.count("WATCHDOG=1")
        with pytest.raises(pytest.fail.Exception):
            until(lambda: manager.heard.count("WATCHDOG=1") > count + 1, deadline_s=0.3)  # blocks the loop
        await until_async(lambda: manager.heard.count("WATCHDOG=1") > count + 1, what="signs of life again")
        group.cancel_scope.cancel()
    assert "STATUS=connected: session 1" in manager.heard


@pytest.mark.anyio
async def test_a_manager_that_is_away_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    told: list[Event] = []
    bus = Bus()
    bus.subscribe(told.append, Trouble)
    environ = {"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "3000"}
    with anyio.move_on_after(0.1):
        await Systemd(Well(), bus, environ).run()
    assert [event.where for event in told if isinstance(event, Trouble)] == ["systemd"]


@pytest.mark.anyio
@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": "3000"}])
async def test_without_a_socket_nothing_runs(environ: dict[str, str]) -> None:
    with anyio.fail_after(5):
        await Systemd(Well(), Bus(), environ).run()


@pytest.mark.anyio
async def test_the_watchdog_of_another_process_is_not_ours(manager: Manager) -> None:
    """An abstract address too: systemd's own names begin with @."""
    name = f"\0listener-tests-{manager.path.parent.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(name)
        environ = {"NOTIFY_SOCKET": f"@{name[1:]}", "WATCHDOG_USEC": "3000", "WATCHDOG_PID": "1"}
        with anyio.move_on_after(0.1):
            await Systemd(Well(), Bus(), environ).run()
        assert sock.recv(100) == b"READY=1"
        assert sock.recv(100) == b"WATCHDOG=1"
        assert sock.recv(100).startswith(b"STATUS=")
        with pytest.raises(BlockingIOError):
            sock.recv(100)
