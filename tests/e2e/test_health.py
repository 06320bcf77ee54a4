"""`listener health`, as a container's health check runs it."""

import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Database
from sandbox.server import Client

from e2e.service import Services, clean_environ
from listener.cli.health import _check
from listener.core.errors import ConfigError, ListenerError


def test_it_tells_ready_alive_and_away(listeners: Services, api: Client, database: Database, tmp_path: Path) -> None:
    service = listeners.start().wait_ready()
    address = service.address.removeprefix("http://")
    ready = listeners.run("health", LISTENER_HTTP=f"0.0.0.0:{address.rpartition(':')[2]}")
    assert (ready.returncode, ready.stdout) == (0, "ready\n"), ready.stderr

    alone = subprocess.run(
        [sys.executable, "-m", "listener", "health"],
        env={**clean_environ(), "LISTENER_HTTP": address},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (alone.returncode, alone.stdout) == (0, "ready\n"), f"it needs no database: {alone.stderr}"

    service.kill()
    gone = listeners.run("health", "--live", LISTENER_HTTP=address)
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"listener: {address} does not answer: ")
    assert "Traceback" not in gone.stderr
    assert listeners.run("health").returncode == 2, "port 0 cannot be asked"


def test_it_says_what_is_missing(listeners: Services, api: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = listeners.start(DATABASE_URL=f"postgresql://nobody@127.0.0.1:{port}/nothing")
    address = service.address.removeprefix("http://")
    alive = listeners.run("health", "--live", LISTENER_HTTP=address)
    assert (alive.returncode, alive.stdout) == (0, "ok\n")
    unready = listeners.run("health", LISTENER_HTTP=address)
    assert unready.returncode == 1
    assert "listener: session: starting: " in unready.stderr
    assert "listener: database: down: " in unready.stderr


class Scripted(socketserver.BaseRequestHandler):
    """Answers the server's `answer`, or never."""

    def handle(self) -> None:
        self.server.asked = self.request.recv(65536).split(b" ")[1].decode()  # type: ignore[attr-defined]
        answer = self.server.answer  # type: ignore[attr-defined]
        if answer is None:
            self.request.recv(1)  # until the caller gives up
        else:
            self.request.sendall(answer)


@contextmanager
def answering(answer: bytes | None) -> Iterator[tuple[Any, tuple[str, int]]]:
    """A server of one request."""
    with socketserver.TCPServer(("127.0.0.1", 0), Scripted) as server:
        server.answer = answer  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield server, ("127.0.0.1", server.server_address[1])
        thread.join()


def reply(status: int, body: object) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


WELL = {"status": "ok"}
PARTS = {
    "status": "not ready",
    "database": WELL,
    "session": {"status": "connected", "detail": "session 7"},
    "configuration": {"status": "not as written"},
    "connectors": {"shipstation 1": {"status": "paused", "detail": "429"}},
    "queues": {"upload": WELL},
}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reply(503, PARTS), "/readyz answered 503"),
        (reply(503, {**PARTS, "database": {"status": "down", "detail": "gone"}}), "database: down: gone"),
        (reply(503, {**PARTS, "session": {"status": "reconnecting"}}), "session: reconnecting: "),
        (reply(503, {**PARTS, "queues": {"upload": {"status": "trouble", "detail": "no table"}, "sync": WELL}}),
         "queue upload: trouble: no table"),
        (reply(503, {**PARTS, "database": {"status": "down", "detail": "a"}, "session": {"status": "starting"}}),
         "database: down: a\nsession: starting: "),
        (reply(500, {**PARTS, "queues": ["upload"], "database": "ok"}), "/readyz answered 500"),
        (reply(404, {"queues": {"upload": "lost"}}), "/readyz answered 404"),
        (reply(404, ["no such page"]), "/readyz answered 404"),
        (reply(502, b"<html>Bad gateway</html>"), "/readyz answered 502"),
        (reply(201, {"status": "ready"}), "/readyz answered 201"),
        (reply(200, b"<html>It works!</html>"), "what answers at {0} is no listener: correct LISTENER_HTTP"),
        (reply(200, ["ready"]), "what answers at {0} is no listener: correct LISTENER_HTTP"),
        (reply(200, {"state": "ready"}), "what answers at {0} is no listener: correct LISTENER_HTTP"),
        (b"", "{0} does not answer: Remote end closed connection without response; is it running?"),
        (b"SSH-2.0-OpenSSH\r\n", "{0} does not answer: SSH-2.0-OpenSSH; is it running?"),
        (None, "{0} does not answer: timed out; is it running?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(answer: bytes | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part that is not as it should be, and nothing else; also of a program that is no listener."""
    if answer is None:
        monkeypatch.setattr("listener.cli.health._LIMIT_S", 0.3)
    with answering(answer) as (_, address), pytest.raises(ListenerError) as raised:
        _check(address, "/readyz")
    assert str(raised.value) == told.format(f"127.0.0.1:{address[1]}")


@pytest.mark.parametrize("path", ["/readyz", "/livez"])
def test_what_is_well_is_said(path: str) -> None:
    with answering(reply(200, {"status": "fine"})) as (server, address):
        assert _check(address, path) == "fine"
    assert server.asked == path


@pytest.mark.parametrize(("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.7", "10.0.0.7")])
def test_an_address_of_all_interfaces_is_called_on_this_machine(
    host: str, called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux would take the former for the latter by itself; others do not."""
    calls: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> None:
        calls.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(ListenerError, match="does not answer: ConnectionRefusedError; is it running"):
        _check((host, 8080), "/livez")
    assert calls == [(called, 8080)]


def test_port_0_is_another_one_at_each_start() -> None:
    with pytest.raises(ConfigError, match="give it a port"):
        _check(("127.0.0.1", 0), "/livez")
