"""One HTTP exchange below the level of ASGI: silence, half a reply, a reset, a `Date` header of our own.

ASGI has no words for these. Uvicorn's `receive` is a method of its request cycle, which knows the transport; we use
what is there and do without where it is not (another server, or a client that calls the application in process).
"""

import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import anyio
from starlette.types import Receive, Send

#: How often a silent call looks whether the server wants to stop: short for a person, cheap for a processor.
_LOOK_S = 0.05

#: SO_LINGER with zero seconds: closing sends RST instead of FIN, so that the client sees a reset, not an end.
_NO_LINGER = struct.pack("ii", 1, 0)


class Wire:
    """The connection of one call."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._cycle: Any = getattr(receive, "__self__", None)
        self._kept_alive = bool(getattr(self._cycle, "keep_alive", False))
        self._is_gone = False

    def is_gone(self) -> bool:
        """Tell whether the client has closed the connection."""
        return self._is_gone or bool(getattr(self._cycle, "disconnected", False))

    async def read_body(self) -> bytes | None:
        """Read the whole body; None when the client left before its end."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._is_gone = True
                return None
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def wait(self, seconds: float, is_closing: Callable[[], bool]) -> bool:
        """Stay silent for `seconds`. False, at once, when the client leaves or the server stops."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with anyio.move_on_after(min(left, _LOOK_S)):
                if (await self._receive())["type"] == "http.disconnect":
                    self._is_gone = True
            if self.is_gone() or is_closing() or self._is_stopping():
                return False
        return True

    async def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send a whole reply."""
        await self._start(status, headers, body)
        await self._send({"type": "http.response.body", "body": body})

    async def half_reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send a reply that ends in the middle, by a reset."""
        await self._start(status, headers, body)
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await self.reset()

    async def reset(self) -> None:
        """Close the connection hard. Raises ConnectionResetError where there is no transport to close."""
        transport = getattr(self._cycle, "transport", None)
        if transport is None:
            self._is_gone = True
            raise ConnectionResetError("the sandbox was told to reset this connection")
        peer = transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        transport.abort()
        # The server logs an error for a call that returns unanswered, unless it has seen the connection end.
        while not self.is_gone():
            if (await self._receive())["type"] == "http.disconnect":
                self._is_gone = True

    async def _start(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._drop_default_date()
        head = {**headers, "Content-Length": str(len(body))}
        lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in head.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    def _drop_default_date(self) -> None:
        """Take the server's own `Date` out of this reply: ours tells the sandbox's time, and two are one too many."""
        if hasattr(self._cycle, "default_headers"):
            self._cycle.default_headers = [line for line in self._cycle.default_headers if line[0] != b"date"]

    def _is_stopping(self) -> bool:
        """Tell whether uvicorn is shutting down: it then takes keep-alive from each call under way, and waits."""
        return self._kept_alive and not getattr(self._cycle, "keep_alive", True)
