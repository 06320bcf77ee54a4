"""Calls per fixed window, counted per API key, and the three `X-Rate-Limit` headers.

Windows follow each other without a gap and start when the limiter is made, configured or cleared. A refused call
still counts as a call of its window, but takes nothing from anyone.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

from listener.sandbox.clock import Clock

#: What the headers promise when nothing is limited: more than any client sends in a window.
UNLIMITED = 1_000_000

#: Finished windows remembered: a day of one-minute windows and some.
_REMEMBERED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May the call pass, and what the headers say. reset_s: whole seconds until the next window, at least 1."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Give the headers that every reply carries."""
        return {
            "X-Rate-Limit-Limit": str(self.limit),
            "X-Rate-Limit-Remaining": str(self.remaining),
            "X-Rate-Limit-Reset": str(self.reset_s),
        }


@dataclass(slots=True)
class _Window:
    index: int
    started_at: float
    calls: int = 0
    refused: int = 0


class Limiter:
    """The windows of one API."""

    def __init__(self, clock: Clock, *, limit: int | None, window_s: float) -> None:
        self._clock = clock
        self._past: deque[_Window] = deque(maxlen=_REMEMBERED)
        self.configure(limit=limit, window_s=window_s)

    def configure(self, *, limit: int | None, window_s: float) -> None:
        """Begin a first window now. limit: calls per window and key, None or 0 = no limit; window_s: seconds."""
        self.limit = limit or None
        self.window_s = window_s
        self._origin = self._clock.ticks()
        self._past.clear()
        self._used: dict[str, int] = {}
        self._now = _Window(0, self._clock.epoch_s())

    def take(self, account: str) -> Verdict:
        """Count one call of `account` and judge it."""
        left_s = self._turn()
        used = self._used.get(account, 0)
        allowed = self.limit is None or used < self.limit
        self._now.calls += 1
        if allowed:
            used += 1
            self._used[account] = used
        else:
            self._now.refused += 1
        limit = self.limit or UNLIMITED
        return Verdict(allowed=allowed, limit=limit, remaining=max(limit - used, 0), reset_s=max(math.ceil(left_s), 1))

    def windows(self) -> list[dict[str, Any]]:
        """List the windows that had calls, oldest first; `started_at` in seconds since 1970."""
        self._turn()
        return [
            {"started_at": window.started_at, "calls": window.calls, "refused": window.refused}
            for window in (*self._past, self._now)
            if window.calls
        ]

    def _turn(self) -> float:
        """Open the window that the clock is in and give the seconds left of it."""
        passed = self._clock.ticks() - self._origin
        index = int(passed // self.window_s)
        left_s = (index + 1) * self.window_s - passed
        if index != self._now.index:
            self._past.append(self._now)
            self._used.clear()
            self._now = _Window(index, self._clock.epoch_s() - (self.window_s - left_s))
        return left_s
