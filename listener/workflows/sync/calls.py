"""What the calls of one run need, and why they end before everything is read."""

from collections.abc import Mapping
from typing import Protocol

from listener.clients.shipstation.lists import Page
from listener.core.errors import Unavailable

# Why a call fails that may be the list's own trouble.
DOUBTFUL = frozenset({"outage", "credentials"})


class Client(Protocol):
    """What a sync needs of `clients/shipstation`."""

    async def list_page(
        self, path: str, name: str, query: Mapping[str, str | int], *, base_url: str | None = None
    ) -> Page:
        """Read one page."""

    async def empty_page(self, *, besides: str = ...) -> Page | None:
        """Ask for a list that no record is in, another one than `besides`; None when even that is answered with 500."""

    async def report_down(self, error: Exception) -> Unavailable:
        """Blame the API as a whole; returns what to raise."""


class OutOfCalls(Exception):  # noqa: N818 - reads as a state
    """The run has made the calls that one cycle may make; the next cycle goes on."""


class OutOfTime(Exception):  # noqa: N818
    """The operation timeout is near; the run goes on at once, in another claim."""


class ListDown(Exception):  # noqa: N818
    """One list cannot be read now, and the API answers elsewhere, or there is no call left to ask: others may be."""
