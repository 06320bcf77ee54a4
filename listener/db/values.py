"""What a row's values are in Python: whatever a column holds, it loses no claim.

Postgres holds values for which Python has none: 'infinity', a date in the year 20000, 24:00, JSON with a number of
5,000 digits or 3,000 levels of nesting. The driver raises over them, which would fail the whole claim over one row,
and again at every restart. The connections are ours alone: a program's own keep the driver's behaviour.
"""

import json
from datetime import UTC, date, datetime
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.abc import Loader as AnyLoader
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format
from psycopg.types.json import set_json_loads

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
    set_json_loads(_read_json, adapters)
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


def _read_json(text: str | bytes) -> Any:
    """Read jsonb; what Python cannot hold becomes a text that says so."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"unreadable JSON: {error}"
