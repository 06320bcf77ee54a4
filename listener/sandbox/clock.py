"""The vendor's clock: UTC inside, unmarked Pacific wall clock with seven digits outside.

ShipStation stores and compares wall-clock values. We do the same, so that the ambiguous hour in November and the
missing one in March hurt a client here as they do there.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate
from zoneinfo import ZoneInfo

PACIFIC = ZoneInfo("America/Los_Angeles")

_STAMP = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?)?"
    r"\s?(Z|[+-]\d{2}:?\d{2})?",
)


@dataclass(slots=True)
class Clock:
    """Both clocks of a sandbox, replaceable by a test.

    Attributes:
        source: UTC seconds since 1970; stamps what the caller measures (`accepted_at`, `received_at`).
        ticks: monotonic seconds; decides rate windows and durations.
        offset_s: how far the vendor's clock is ahead of ours (negative = behind); shifts what the API shows.
    """

    source: Callable[[], float] = time.time
    ticks: Callable[[], float] = time.monotonic
    offset_s: float = 0.0
    _second: tuple[int, str] = (-1, "")  # the last second that was asked for, as wall clock

    def epoch_s(self) -> float:
        """Give our own time, in seconds since 1970, whatever the offset."""
        return self.source()

    def wall(self) -> str:
        """Give the vendor's time as it appears in replies."""
        now = self.source() + self.offset_s
        second, text = self._second
        if second != math.floor(now):
            # Zone rules cost ten times as much as the rest, and a batch asks a hundred times in a second.
            second = math.floor(now)
            text = to_wall(datetime.fromtimestamp(second, UTC))[:19]
            self._second = (second, text)
        return f"{text}.{min(round((now - second) * 1e6), 999_999):06d}0"

    def date_header(self, offset_s: float = 0.0) -> str:
        """Give the value of the `Date` header, `offset_s` seconds further off."""
        return formatdate(self.source() + self.offset_s + offset_s, usegmt=True)


def to_wall(moment: datetime) -> str:
    """Write an aware moment as Pacific wall clock: ``2024-11-09T15:15:09.9970000``."""
    local = moment.astimezone(PACIFIC).replace(tzinfo=None)
    return local.isoformat(timespec="microseconds") + "0"


def read_wall(text: str) -> str:
    """Read a date or date/time as the vendor does and write it as Pacific wall clock.

    A value without a zone is taken as Pacific; one with ``Z`` or an offset is converted. Raises ValueError.
    """
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a date: {text!r}")
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    moment = datetime(  # noqa: DTZ001 - a wall clock has no zone
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0)
    )
    if zone is not None:
        moment = moment.replace(tzinfo=_offset(zone)).astimezone(PACIFIC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{(fraction or '')[:7]:0<7}"


def read_bound(text: str) -> str:
    """Read a filter's bound: like `read_wall`, but filters know no fractions of a second."""
    return read_wall(text)[:19] + ".0000000"


def _offset(zone: str) -> timezone:
    if zone == "Z":
        return UTC
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return timezone(timedelta(minutes=-minutes if zone[0] == "-" else minutes))
