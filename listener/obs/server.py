"""Serves an ASGI application inside our own task tree: our socket, our signals, no second event loop."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import uvicorn

from listener.core.errors import ListenerError


def bind(host: str, port: int, *, cure: str = "set LISTENER_HTTP to a free address") -> socket.socket:
    """Open the listening socket; port 0 = any free one. Raises ListenerError, which names the cure, when that fails.

    No ConfigError: whoever has the port now, a connection of its own say, may have left it at the next start.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)  # now, so that nobody is refused between here and the server's start
    except OSError as error:
        sock.close()
        raise ListenerError(f"cannot listen on {host}:{port}: {error.strerror or error}; {cure}") from error
    return sock


def address_of(sock: socket.socket) -> str:
    """Return the http:// address of a listening socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the application decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Any, sock: socket.socket) -> None:
    """Serve until cancelled; connections in progress get a moment to end."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
        server_header=False,
        proxy_headers=False,  # who calls is the socket's peer, whatever a header says
    )
    server = _Server(config)
    async with anyio.create_task_group() as group:

        async def stop() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                server.should_exit = True

        async def run() -> None:
            # shielded: uvicorn ends by its own flag, so that its sockets are closed in order
            with anyio.CancelScope(shield=True):
                await server.serve(sockets=[sock])

        group.start_soon(stop)
        group.start_soon(run)
