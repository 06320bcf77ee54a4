"""Recycling: a process that has worked enough or grown too large ends, exit 0; its supervisor starts a new one."""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from listener.core.events import Event, OperationEnded

_STATM = Path("/proc/self/statm")
_MIB = 1 << 20
_LOOK_EVERY_S = 1.0


class Recycling:
    """Follows the ends of operations. most_operations, most_mib: 0 = no limit.

    recycle: called once, with the reason; it must begin an orderly stop, so that running work ends and nothing is lost.
    """

    def __init__(
        self,
        recycle: Callable[[str], None],
        *,
        most_operations: int,
        most_mib: int,
        memory_mib: Callable[[], float] | None = None,
    ) -> None:
        self._recycle = recycle
        self._most_operations = most_operations
        self._most_mib = most_mib
        self._memory_mib = memory_mib or resident_mib
        self._ended = 0
        self._looked_at = -_LOOK_EVERY_S
        self._is_told = False

    def on_event(self, event: Event) -> None:
        """Count an end, and look at the memory at most once a second; never raises."""
        if not isinstance(event, OperationEnded) or self._is_told:
            return
        self._ended += 1
        if reason := self._reason():
            self._is_told = True
            self._recycle(reason)

    def _reason(self) -> str:
        if self._most_operations and self._ended >= self._most_operations:
            return f"{self._ended} operations (LISTENER_RECYCLE_AFTER)"
        now = time.monotonic()
        if self._most_mib and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            memory_mib = self._memory_mib()
            if memory_mib >= self._most_mib:
                return f"{memory_mib:.0f} MiB of memory, {self._most_mib} allowed (LISTENER_RECYCLE_MEMORY)"
        return ""


def resident_mib() -> float:
    """Return the memory of this process, in MiB: what is resident now; where there is no /proc, the most that was."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS, in KiB elsewhere
    return peak / _MIB if sys.platform == "darwin" else peak / 1024
