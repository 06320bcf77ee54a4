"""When to try again: exponential back-off with full jitter."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits drawn uniformly from [0, min(cap, base · 2^(n-1))] seconds.

    Full jitter (not "equal" or none): of the common schemes it needs the fewest calls until a crowd of
    failures has spread out. See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    base_s: float = 1.0
    cap_s: float = 300.0

    def ceiling_s(self, attempt: int) -> float:
        """The longest wait after the given 1-based attempt, in seconds."""
        # 2.0 ** 1100 overflows; the cap is reached long before attempt 64
        return min(self.cap_s, self.base_s * 2.0 ** min(max(attempt, 1) - 1, 64))

    def delay_s(self, attempt: int, jitter: float) -> float:
        """The wait after the given 1-based attempt; `jitter` is a random number in [0, 1)."""
        return self.ceiling_s(attempt) * jitter
