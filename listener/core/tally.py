"""Sums of checks: what a log line or a row of metrics says about all checks since the one before it."""

from dataclasses import dataclass

from listener.core.events import Checked


@dataclass(slots=True)
class Tally:
    """The checks of one queue. claimed: rows. skipped: checks that claimed none. Times in seconds."""

    checks: int = 0
    claimed: int = 0
    skipped: int = 0
    duration_s: float = 0.0
    longest_s: float = 0.0

    def add(self, check: Checked) -> None:
        """Count one check in."""
        self.checks += 1
        self.claimed += check.claimed
        self.skipped += not check.claimed
        self.duration_s += check.duration_s
        self.longest_s = max(self.longest_s, check.duration_s)
