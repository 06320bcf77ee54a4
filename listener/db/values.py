"""What a row's values are in Python, and how outcomes are sent: whatever a column holds, it loses no claim.

Postgres holds values for which Python has none: 'infinity', a date in the year 20000, 24:00, JSON with a number of
5,000 digits or 3,000 levels of nesting. The driver raises over them, which would fail the whole claim over one row,
and again at every restart. The connections are ours alone: a program's own keep the driver's behaviour.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.abc import Loader as AnyLoader
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

from listener.core.job import Settle, Settlement

_ENDLESS: dict[str, dict[bytes, Any]] = {
    "date": {b"infinity": date.max, b"-infinity": date.min},
    "timestamptz": {b"infinity": datetime.max.replace(tzinfo=UTC), b"-infinity": datetime.min.replace(tzinfo=UTC)},
    "timestamp": {b"infinity": datetime.max, b"-infinity": datetime.min},  # noqa: DTZ901 - that type has no zone
}
_OTHERS = ("time", "timetz", "interval")


def tolerant() -> AdaptersMap:
    """Return the driver's adapters, but what they cannot read becomes its text, and infinity the last day there is."""
    adapters = AdaptersMap(psycopg.adapters)
    for name in (*_ENDLESS, *_OTHERS):
        oid = adapters.types[name].oid
        if (usual := adapters.get_loader(oid, Format.TEXT)) is not None:
            adapters.register_loader(oid, _tolerant(usual, _ENDLESS.get(name, {})))
    for name in ("json", "jsonb"):
        adapters.register_loader(adapters.types[name].oid, _Json)
    return adapters


def _tolerant(usual: type[AnyLoader], endless: dict[bytes, Any]) -> type[Loader]:
    class Tolerant(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._usual = usual(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._usual.load(data)
            except (psycopg.DataError, ValueError, OverflowError):
                text = bytes(data)
                return endless.get(text, text.decode())

    return Tolerant


class _Json(Loader):
    """Reads JSON; what Python cannot hold becomes a text that says so. From text: json.loads asks bytes each time what
    encoding they have. Not by `decode`: it looks for blanks around, and for more behind, with two expressions, but the
    server has checked that there is nothing more (500 bytes in 2.4, 1.5 and, so, 1.0 µs, measured)."""

    _decode = staticmethod(json.JSONDecoder().raw_decode)

    def load(self, data: Buffer) -> Any:
        try:
            return self._decode(str(data, "utf-8").strip())[0]
        except (ValueError, RecursionError) as error:
            return f"unreadable JSON: {error}"


def arrays(settlements: Sequence[Settlement]) -> dict[str, Any]:
    """Return the settle query's arrays; of what is usual for all an empty one. Raises TypeError, ValueError,
    OverflowError and RecursionError for what cannot be sent."""
    unusual = settlements if any(s.kind is not Settle.COMPLETE or s.values for s in settlements) else ()
    return {
        "keys": numbers([s.job.id for s in settlements]),
        "claims": numbers([s.job.claim_id for s in settlements]),
        "kinds": unless([s.kind.value for s in unusual], Settle.COMPLETE.value),
        "revisions": numbers(unless([s.job.revision for s in settlements], 0)),
        "delays": unless([float(s.delay_s) for s in unusual], 0.0),  # int beside float is refused
        "errors": unless([storable(s.error) for s in unusual], None),
        "values": unless([json.dumps(dict(s.values), default=jsonable) if s.values else None for s in unusual], None),
    }


def numbers(values: list[Any]) -> Any:
    """Write whole numbers as the server reads an array: psycopg takes 3 µs for each (measured), this a tenth."""
    return f"{{{','.join(map(str, values))}}}" if set(map(type, values)) <= {int} else values


def unless(values: list[Any], usual: Any) -> list[Any]:
    """Send nothing when every value is the usual one."""
    return [] if values.count(usual) == len(values) else values


def storable(text: str | None) -> str | None:
    """Make a text one that Postgres can hold: neither NUL nor half of a surrogate pair; an error may quote anything."""
    if text is None:
        return None
    return str(text).replace("\x00", "\N{SYMBOL FOR NULL}").encode(errors="backslashreplace").decode()


def jsonable(value: Any) -> str:
    """Write what JSON cannot hold as the text that Postgres reads back. Raises TypeError for what it could not read."""
    if isinstance(value, date | time | timedelta | Decimal | UUID):
        return str(value)
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form: {value!r:.80}")
