"""Live configuration: the rows of `configuration_params` as one frozen model, swapped as a whole when a row changes.

Types, ranges and defaults stand here and nowhere else; `KEYS` tells them to the migration, the command line and the
docs. Pure: rows come in as an argument. Keys are read in any case; a value that does not parse never takes effect.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

ROLLED_BACK_INTERVAL_S = 300.0
"""Seconds between polls without fast polling: the pace of the cron jobs that this service replaced."""

ALIASES = MappingProxyType({"unified_sync_interval": "sync_interval"})
"""Lower-case names of older plans → key. (`FAST_POLLING_INTERVAL` is `fast_polling_interval` in another case.)"""

_TRUE, _FALSE = frozenset(("true", "1", "yes", "on")), frozenset(("false", "0", "no", "off"))
_UNITS = {"s": "seconds", "rows": "rows", "calls": "handler calls", "attempts": "attempts", "days": "days"}
_SWITCH_OF = {"upload": "enable_fast_upload_polling", "import": "enable_fast_xml_polling"}


def _of(unit: str, description: str) -> Any:
    return Field(description=description, json_schema_extra={"unit": unit})


Concurrency = Annotated[int, Field(ge=1, le=100), _of("calls", "handler calls of this queue at once, per process")]


class LiveConfig(BaseModel):
    """Every key with its default; a field's name is the key in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fast_polling_enabled: Annotated[bool, _of("", "false = rollback: ignore notifications, poll every 300 s")] = True
    enable_fast_upload_polling: Annotated[bool, _of("", "the same for upload alone")] = True
    enable_fast_xml_polling: Annotated[bool, _of("", "the same for import alone")] = True
    fast_polling_interval: Annotated[int, Field(ge=1, le=3_600), _of("s", "between safety polls")] = 15
    sync_interval: Annotated[int, Field(ge=10, le=86_400), _of("s", "between ShipStation syncs")] = 120
    upload_enabled: Annotated[bool, _of("", "false = claim no orders; running work ends")] = True
    import_enabled: Annotated[bool, _of("", "false = claim no files; running work ends")] = True
    sync_enabled: Annotated[bool, _of("", "false = claim no sync runs; running work ends")] = True
    upload_batch_size: Annotated[int, Field(ge=1, le=100), _of("rows", "orders in one call; ShipStation takes 100")] = (
        100
    )
    upload_concurrency: Concurrency = 2
    import_concurrency: Concurrency = 2
    sync_concurrency: Concurrency = 4
    max_attempts: Annotated[int, Field(ge=1, le=100), _of("attempts", "before a row goes to Failed")] = 10
    operation_timeout: Annotated[int, Field(ge=1, le=86_400), _of("s", "that one handler call may take")] = 300
    max_concurrent_operations: Annotated[
        int, Field(ge=1, le=1_000), _of("calls", "handler calls of all queues at once, per process")
    ] = 15
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _of("", "least level that is logged")] = "info"
    polling_metrics_enabled: Annotated[bool, _of("", "write a row of polling_metrics for each check")] = True
    retention_days: Annotated[int, Field(ge=1, le=3_650), _of("days", "that metrics and events are kept")] = 30

    def notifications_enabled(self, queue: str) -> bool:
        """Whether the queue follows notifications; false = it is rolled back to slow polling."""
        return self.fast_polling_enabled and bool(getattr(self, _SWITCH_OF.get(queue, "fast_polling_enabled")))

    def poll_interval_s(self, queue: str) -> float:
        """Seconds between two polls of the queue."""
        return float(self.fast_polling_interval) if self.notifications_enabled(queue) else ROLLED_BACK_INTERVAL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of `configuration_params`. default: as it is written in the table. unit: for people, may be empty."""

    name: str
    kind: Literal["boolean", "integer", "choice"]
    default: str
    unit: str
    description: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def expected(self) -> str:
        """What a value must look like, as half a sentence."""
        if self.kind == "boolean":
            return "true, 1, yes or on, or false, 0, no or off"
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        return f"a whole number from {self.minimum} to {self.maximum} ({self.unit})"

    def parse(self, text: str) -> bool | int | str:
        """Read a value; raises ValueError when it is not what is expected."""
        word = text.strip().lower()
        if self.kind == "boolean" and word in _TRUE | _FALSE:
            return word in _TRUE
        if self.kind == "choice" and word in self.choices:
            return word
        if self.kind == "integer" and self.minimum is not None and self.maximum is not None:
            # ten digits hold every range, and int() would refuse more than 4,300
            number = int(word) if re.fullmatch("[0-9]{1,10}", word) else -1
            if self.minimum <= number <= self.maximum:
                return number
        raise ValueError(f"expected {self.expected}")


def _key(field: str) -> Key:
    info = LiveConfig.model_fields[field]
    kind: Literal["boolean", "integer", "choice"] = "choice"
    if info.annotation is bool:
        kind = "boolean"
    elif info.annotation is int:
        kind = "integer"
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    return Key(
        name=field.upper() if field.startswith("enable_") else field,
        kind=kind,
        default=str(info.default).lower(),
        unit=_UNITS.get(str(extra["unit"]), ""),
        description=info.description or "",
        minimum=next((mark.ge for mark in info.metadata if hasattr(mark, "ge")), None),
        maximum=next((mark.le for mark in info.metadata if hasattr(mark, "le")), None),
        choices=get_args(info.annotation) if kind == "choice" else (),
    )


KEYS = MappingProxyType({field: _key(field) for field in LiveConfig.model_fields})
"""Field of LiveConfig → its key, in the order of the docs."""


def read_live_config(
    rows: Iterable[tuple[str, str | None]], previous: LiveConfig | None
) -> tuple[LiveConfig, dict[str, str]]:
    """Give the configuration in force, and key → sentence for each value that is not.

    A missing key has its default; in place of a bad value stays that of `previous`, or the default when there is none.
    Of several rows for one key (names differ in case, or by alias) the key's own spelling counts.
    """
    values: dict[str, Any] = {}
    invalid: dict[str, str] = {}
    for field, text in _chosen(rows).items():
        key = KEYS[field]
        try:
            values[field] = key.parse(text or "")
        except ValueError as error:
            values[field] = getattr(previous or LiveConfig(), field)
            shown = "NULL" if text is None else repr(text[:80])
            stays = str(values[field]).lower()
            invalid[key.name] = f"{key.name} is {shown}, {error}; {stays} stays in force"
    return LiveConfig(**values), invalid


def _chosen(rows: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """One value per field: sorted so that the row with the key's own name comes last, whatever order they came in."""
    named = [(ALIASES.get(key.strip().lower(), key.strip().lower()), key, value) for key, value in rows]
    known = [row for row in named if row[0] in KEYS]
    known.sort(key=lambda row: (row[1] == KEYS[row[0]].name, row[1]))
    return {field: value for field, _, value in known}
