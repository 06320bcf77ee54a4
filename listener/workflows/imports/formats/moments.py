"""Times as order files write them. Pure.

A time without an offset is of the shop's zone (UTC by the custom store's guide). The hour that autumn repeats is taken
as the first of the two; one that spring leaves out is read with the offset from before, an hour later by the clock.
Month and day: the former comes first between slashes; what cannot be a month is refused, never swapped.
"""

import re
from datetime import UTC, datetime, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache

_SLASHED = re.compile(
    r"(?P<month>\d{1,2})[/-](?P<day>\d{1,2})[/-](?P<year>\d{4}|\d{2})"
    r"(?:,?[ T]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,]\d{1,9})?)?"
    r"(?: *(?P<mark>[AaPp])\.?[Mm]\.?)?"
    r"(?: *(?P<zone>Z|UTC|GMT))?)?",
    re.ASCII,
)
_SLASHED_ISO = re.compile(r"(\d{4})/(\d{1,2})/(\d{1,2})(.*)", re.DOTALL | re.ASCII)
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(.*)", re.DOTALL | re.ASCII)
_ISO = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[T ]+(\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?) ?(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})(?:T?(\d{2})(\d{2})(\d{2})?(Z)?)?", re.ASCII)
_RFC = re.compile(
    r"(?:[A-Za-z]{3}, *)?\d{1,2} [A-Za-z]{3} \d{4} \d{1,2}:\d{2}(?::\d{2})? (?:[A-Z]{3}|[+-]\d{4})", re.ASCII
)
#: Most shops' files repeat a minute many times.
_REMEMBERED = 4_096


class BadMoment(ValueError):  # noqa: N818
    """A text is no time that we can read; the message says which."""


@lru_cache(_REMEMBERED)
def written_moment(text: str, zone: tzinfo) -> str:
    """Read a time and write it as ISO 8601, in UTC. Raises BadMoment."""
    return moment(text, zone).isoformat()


def moment(text: str, zone: tzinfo) -> datetime:
    """Read a time; the result is in UTC. Raises BadMoment."""
    try:
        found = _read(" ".join(text.split()))
        if found is not None:
            aware = found if found.tzinfo is not None else found.replace(tzinfo=zone)
            at = aware.astimezone(UTC)
            if 1970 <= at.year < 2200:
                return at
    except (ValueError, OverflowError):
        pass  # a month 13, an hour 25
    raise BadMoment(f"expected a time such as 11/20/2026 14:03 or 2026-11-20T14:03:00Z, got {text[:60]!r}")


def _read(text: str) -> datetime | None:
    if found := _ISO.fullmatch(text):
        return _iso(*found.groups())
    if found := _SLASHED.fullmatch(text):
        return _slashed(found)
    if found := _SLASHED_ISO.fullmatch(text):
        year, month, day, rest = found.groups()
        return _read(f"{year}-{int(month):02}-{int(day):02}{rest}")
    if found := _DOTTED.fullmatch(text):
        day, month, year, rest = found.groups()
        return _read(f"{year}-{int(month):02}-{int(day):02}{rest}")
    if found := _COMPACT.fullmatch(text):
        year, month, day, hour, minute, second, mark = found.groups()
        at = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0))  # noqa: DTZ001
        return at.replace(tzinfo=UTC) if mark else at
    if _RFC.fullmatch(text):
        return parsedate_to_datetime(text)
    return None


def _iso(day: str, clock: str | None, offset: str | None) -> datetime:
    if clock is None:
        return datetime.fromisoformat(day)
    clock = re.sub(r"[.,](\d{1,6})\d*", lambda digits: f".{digits[1]:0<6}", clock)
    if offset is None:
        return datetime.fromisoformat(f"{day}T{clock}")
    if offset in ("Z", "z", "UTC", "GMT"):
        return datetime.fromisoformat(f"{day}T{clock}+00:00")
    digits = offset[1:].replace(":", "").ljust(4, "0")
    return datetime.fromisoformat(f"{day}T{clock}{offset[0]}{digits[:2]}:{digits[2:]}")


def _slashed(found: re.Match[str]) -> datetime:
    year, hour = int(found["year"]), int(found["hour"] or 0)
    mark = (found["mark"] or "").upper()
    # "21:56 PM" stands in ShipStation's own sample: a mark says nothing about an hour after twelve
    if mark == "P" and hour < 12:
        hour += 12
    elif mark == "A" and hour == 12:
        hour = 0
    at = datetime(  # noqa: DTZ001 - the shop's zone is put in by the caller
        year if len(found["year"]) == 4 else 2000 + year,
        int(found["month"]),
        int(found["day"]),
        hour,
        int(found["minute"] or 0),
        int(found["second"] or 0),
    )
    return at.replace(tzinfo=UTC) if found["zone"] else at
