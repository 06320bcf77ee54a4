"""What a file holds: orders, or trouble."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType
from typing import Any, NamedTuple

from listener.workflows.imports.words import DEFAULT_WORDS


class Found(NamedTuple):
    """One order of a file. payload: in the shape of `orders_inbox.payload`, not yet checked.

    version: when the shop last changed it, ISO 8601 in UTC, None = it does not say. is_shipped: it is no work any more.
    """

    number: str
    version: str | None
    payload: dict[str, Any]
    is_shipped: bool = False


class OrderTrouble(ValueError):  # noqa: N818 - reads as a state
    """One order cannot be read; the others can."""

    def __init__(self, reason: str, *, number: str | None = None) -> None:
        super().__init__(reason)
        self.number = number


class FileTrouble(ValueError):  # noqa: N818
    """The file as a whole is none that we take; nothing of it is imported."""


class FileChanged(FileTrouble):
    """Somebody wrote to the file while it was read: look again later."""


class FileAway(FileTrouble):
    """The file is not where this process looks: another one may see it, so it is tried again."""


class FileReplaced(FileTrouble):
    """The file has other content than its row speaks of; that has a row of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a source's files are read.

    zone: of times without an offset. words: a shop's status word, in lower case → ours.

    The rest are limits: of a file's bytes, of the bytes from one order's end to the next one's, of its orders, of
    nested elements, of one text's characters, and of the seconds that a file may take.
    """

    zone: tzinfo
    words: Mapping[str, str] = field(default_factory=lambda: MappingProxyType(DEFAULT_WORDS))
    most_bytes: int = 2_000_000_000
    most_order_bytes: int = 2_000_000
    most_orders: int = 5_000_000
    most_depth: int = 32
    most_field_chars: int = 100_000
    most_seconds: float = 3_600.0
