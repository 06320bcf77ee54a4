"""`listener health`, as a container's health check runs it."""

import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import Database
from sandbox.server import Client

from e2e.service import Services, clean_environ
from listener.cli.health import _check
from listener.core.errors import ListenerError


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


def test_another_program_on_that_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 200, and is no listener."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>It works!</html>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ListenerError, match="is no listener: correct LISTENER_HTTP"):
            _check(("127.0.0.1", server.server_port), "/readyz")
        thread.join()
