"""ShipStation's time: Pacific wall clock without offset, in what it says, takes and filters by. Pure."""

import re
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from listener.core.errors import ConfigError

_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?)?(?: ?(Z|[+-]\d\d:?\d\d))?", re.ASCII | re.IGNORECASE
)


@cache
def zone() -> ZoneInfo:
    """Return the time zone. Raises ConfigError on a machine without time zone data."""
    name = "America/Los_Angeles"
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        hint = "install the time zone data: `pip install tzdata`, or the system's tzdata package"
        raise ConfigError(f"this machine does not know the time zone {name}, ShipStation's own; {hint}") from error


def pacific(moment: datetime) -> str:
    """Write an aware time as ShipStation does: Pacific wall clock, 7 fractional digits, no offset.

    Raises ConfigError on a machine without time zone data. The hour that November repeats is written twice the same:
    the API cannot tell one from the other.
    """
    return moment.astimezone(zone()).strftime("%Y-%m-%dT%H:%M:%S.%f0")


def read_pacific(text: str) -> datetime:
    """Read a time or a date of theirs, in UTC. Raises ValueError.

    A `Z` is ignored: newer samples print one, the values are Pacific all the same (field reports). Any other offset is
    meant. In the hour that November repeats the earlier moment is taken; one that March leaves out is an hour later.
    """
    found = _STAMP.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r:.60} is no time")
    day, clock, fraction, offset = found.groups()
    naive = datetime.fromisoformat(f"{day}T{clock or '00:00:00'}.{(fraction or '')[:6]:0<6}")
    if offset is None or offset in "Zz":
        return naive.replace(tzinfo=zone()).astimezone(UTC)
    minutes = int(offset[1:3]) * 60 + int(offset[-2:])
    return naive.replace(tzinfo=timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))).astimezone(UTC)


def lower_bound(since: datetime) -> str:
    """Write the earliest wall clock that any moment from `since` on shows, floored to the second, as a filter.

    In the hour that November repeats that is its 01:00:00: asking from the first 01:50 on would miss what changes at
    the second 01:10, twenty minutes later.
    """
    first, later = since.astimezone(zone()), (since.astimezone(UTC) + timedelta(hours=1)).astimezone(zone())
    lowest = first.replace(tzinfo=None, microsecond=0)
    if later.utcoffset() != first.utcoffset():  # forwards in March: the later clock is ahead, and this changes nothing
        lowest = min(lowest, later.replace(tzinfo=None, minute=0, second=0, microsecond=0))
    return lowest.isoformat(" ")
