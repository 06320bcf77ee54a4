"""`listener health`: asks the process that serves on LISTENER_HTTP how it is, as a container's health check does."""

import http.client
import json
from typing import Annotated, Any

import typer

from listener.config.environment import load_http_address
from listener.core.errors import ConfigError, ListenerError

# Shorter than any health check's own limit, so that what is wrong is said.
_LIMIT_S = 5.0
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a service listens on is not where one calls it


cli = typer.Typer()


@cli.command()
def health(
    live: Annotated[bool, typer.Option("--live", help="Only whether the process answers at all.")] = False,
) -> None:
    """Ask the process that runs on this machine whether it is ready; exit 1 if it is not."""
    print(_check(load_http_address(), "/livez" if live else "/readyz"))


def _check(address: tuple[str, int], path: str) -> str:
    """Return what is said of a process that is well. Raises ListenerError: it is not, or does not answer."""
    host, port = address
    if port == 0:
        raise ConfigError("LISTENER_HTTP has port 0, which is another one at each start; give it a port")
    connection = http.client.HTTPConnection(_ANY_ADDRESS.get(host, host), port, timeout=_LIMIT_S)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        why = " ".join(str(error).split()) or type(error).__name__  # of another program: its words, line ends and all
        raise ListenerError(f"{host}:{port} does not answer: {why}; is it running?") from error
    finally:
        connection.close()
    if reply.status != 200:
        raise ListenerError("\n".join(_problems(body)) or f"{path} answered {reply.status}")
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError) as error:
        raise ListenerError(f"what answers at {host}:{port} is no listener: correct LISTENER_HTTP") from error


def _problems(body: bytes) -> list[str]:
    """A line for each part that is not as it should be."""
    try:
        parts: dict[str, Any] = json.loads(body)
    except ValueError:
        return []
    if not isinstance(parts, dict):  # of another program
        return []
    found = [(name, part) for name, part in parts.items() if name in ("database", "session")]
    queues = parts.get("queues")
    found += [(f"queue {name}", part) for name, part in (queues if isinstance(queues, dict) else {}).items()]
    return [
        f"{name}: {part.get('status')}: {part.get('detail', '')}"
        for name, part in found
        if isinstance(part, dict) and part.get("status") not in ("ok", "connected")
    ]
