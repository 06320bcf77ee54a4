"""Everything one sandbox knows, in one place; `app.state.sandbox` is one of these."""

import base64
import random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from listener.sandbox.clock import Clock
from listener.sandbox.faults import FaultPlan
from listener.sandbox.limits import Limiter
from listener.sandbox.shipstation.order import Body
from listener.sandbox.shipstation.store import Store
from listener.sandbox.traffic import Traffic


class SandboxSettings(BaseModel):
    """How a sandbox begins; limits and credentials can be changed while it runs.

    Attributes:
        key, secret: Basic auth user and password.
        limit: calls per window and key; None or 0 = no limit.
        window_s: length of the rate window in seconds.
        clock_offset_s: how far the vendor's clock is ahead of ours.
        log_size: calls remembered one by one for ``/sandbox/requests``.
        seed: makes `probability` and `shuffle` repeatable; None = different each time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = "sandbox-key"
    secret: SecretStr = SecretStr("sandbox-secret")
    limit: Annotated[int, Field(ge=0)] | None = 40
    window_s: Annotated[float, Field(gt=0)] = 60.0
    clock_offset_s: float = 0.0
    log_size: Annotated[int, Field(ge=1)] = 2_000
    seed: int | None = None


class Sandbox:
    """The state of one ShipStation. Touched by the server's event loop only; other threads may read.

    `close()` may be called from any thread: calls that are kept waiting by a fault then end within 50 ms.
    """

    def __init__(self, settings: SandboxSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.clock.offset_s = settings.clock_offset_s
        self.rng = random.Random(settings.seed)
        self.limiter = Limiter(clock, limit=settings.limit, window_s=settings.window_s)
        self.plan = FaultPlan(self.rng)
        self.traffic = Traffic(settings.log_size)
        self.store = Store(clock)
        self.webhooks: dict[int, Body] = {}
        self._is_closing = False
        self.admit_only(settings.key, settings.secret.get_secret_value())

    def reset(self) -> None:
        """Go back to the settings: no orders, no log, no faults."""
        self.clock.offset_s = self.settings.clock_offset_s
        self.rng.seed(self.settings.seed)
        self.limiter.configure(limit=self.settings.limit, window_s=self.settings.window_s)
        self.plan.clear()
        self.traffic.clear()
        self.store.clear()
        self.webhooks.clear()
        self.admit_only(self.settings.key, self.settings.secret.get_secret_value())

    def admit_only(self, key: str, secret: str) -> None:
        """Replace the credentials."""
        self.key = key
        self._token = base64.b64encode(f"{key}:{secret}".encode()).decode()

    def admits(self, authorization: str) -> bool:
        """Tell whether an `Authorization` header carries the credentials."""
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "basic" and token.strip() == self._token

    def is_closing(self) -> bool:
        """Tell whether `close()` was called."""
        return self._is_closing

    def close(self) -> None:
        """End the calls that a fault keeps waiting; for whoever stops the server."""
        self._is_closing = True
