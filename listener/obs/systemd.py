"""Tells systemd how the process is (sd_notify): ready, alive, stopping, and a word for `systemctl status`.

It gives the address in NOTIFY_SOCKET; where nobody did, nothing is sent. The watchdog's sign of life comes from
the event loop that does all the work: a loop that hangs is silent, and systemd starts the service again.
"""

import os
import socket
from collections.abc import Mapping
from typing import Any, Protocol

import anyio

from listener.core import events as e

# Between two looks whether we are ready, and while starting up between two requests for more time, in seconds.
_LOOK_EVERY_S = 0.5
# Asked for again at each look: a database that is away at boot is waited for, a process that hangs is not.
_MORE_TIME_US = 30_000_000


class Figures(Protocol):
    """How the process is; what `/readyz` answers from."""

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not, and every part by name."""

    def summary(self) -> str:
        """A few words for people, without asking the database."""


class Systemd:
    """What systemd is told. Raises nothing: a systemd that does not listen stops no work."""

    def __init__(self, figures: Figures, bus: e.Bus, environ: Mapping[str, str] = os.environ) -> None:
        self._figures = figures
        self._bus = bus
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._period_s = _watchdog_s(environ) / 3  # two signs may be late before the third is missed
        self._said = ""
        self._is_failing = False
        self._changed = anyio.Event()

    def _on_event(self, event: e.Event) -> None:
        if isinstance(event, e.Stopping) and event.stage == 1:
            self._send("STOPPING=1")
        self._changed.set()

    async def run(self) -> None:
        """Tell it until cancelled."""
        if not self._address:
            return
        self._bus.subscribe(self._on_event, e.SessionOpened, e.SessionClosed, e.Stopping)
        while not (await self._figures.readiness())[0]:
            self._send(f"EXTEND_TIMEOUT_USEC={_MORE_TIME_US}")
            await self._tell_state_and_wait(_LOOK_EVERY_S)
        self._send("READY=1")
        while True:
            self._send("WATCHDOG=1")
            await self._tell_state_and_wait(self._period_s)

    async def _tell_state_and_wait(self, at_most_s: float) -> None:
        self._changed = anyio.Event()
        state = " ".join(self._figures.summary().split())  # a message is lines of NAME=value
        if state != self._said:
            self._send(f"STATUS={state}")
            self._said = state
        with anyio.move_on_after(at_most_s):
            await self._changed.wait()

    def _send(self, message: str) -> None:
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(message.encode(), name)
            self._is_failing = False
        except OSError as error:
            if not self._is_failing:
                self._bus.publish(e.Trouble(where="systemd", error=str(error), is_minor=True))
            self._is_failing = True


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """Seconds that may pass between two signs of life; infinite when nobody waits for any."""
    is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if is_ours and text.isdecimal() and int(text) else float("inf")
