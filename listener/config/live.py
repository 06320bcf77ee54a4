"""Live configuration: the rows of `configuration_params` as one frozen model, swapped as a whole when a row changes.

Types, ranges and defaults stand here and nowhere else; `KEYS` tells them to the migration, the command line and the
docs. Pure: rows come in as an argument. Keys are read in any case; a value that does not parse never takes effect.
"""

import difflib
import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

ROLLED_BACK_INTERVAL_S = 300.0
"""Seconds between polls without fast polling: the pace of the cron jobs that this service replaced."""

DISABLED_INTERVAL_S = 60.0
"""Seconds between two looks at the switch of a workflow that is off; a change of the switch itself acts at once."""

ALIASES = MappingProxyType({"unified_sync_interval": "sync_interval"})
"""Lower-case names of older plans → key. (`FAST_POLLING_INTERVAL` is `fast_polling_interval` in another case.)"""

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
# ASCII only: the trigger in the database must read a value exactly as we do, whatever its locale makes of other letters
_BLANKS = " \t\n\r\v\f"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SWITCHED = ("upload", "import", "sync")
_SWITCH_OF = {"upload": "enable_fast_upload_polling", "import": "enable_fast_xml_polling"}


def _of(unit: str, description: str, *, missing: int | None = None) -> Any:
    return Field(description=description, json_schema_extra={"unit": unit, "missing": missing})


Concurrency = Annotated[
    int, Field(ge=1, le=100), _of("handler calls", "handler calls of this queue at once, per process")
]
Priority = Annotated[
    int, Field(ge=1, le=9), _of("places", "who starts first when all common slots are busy: 1 before 9")
]


class LiveConfig(BaseModel):
    """Every key with its default; a field's name is the key in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fast_polling_enabled: Annotated[bool, _of("", "false = rollback: ignore notifications, poll every 300 s")] = True
    enable_fast_upload_polling: Annotated[bool, _of("", "the same for upload alone")] = True
    enable_fast_xml_polling: Annotated[bool, _of("", "the same for import alone")] = True
    doorbell_enabled: Annotated[
        bool, _of("", "false = every INSERT notifies, also while the listeners are busy and look by themselves")
    ] = True
    fast_polling_interval: Annotated[
        int, Field(ge=1, le=3_600), _of("seconds", "between safety polls", missing=300)
    ] = 15
    sync_interval: Annotated[
        int, Field(ge=10, le=86_400), _of("seconds", "between the starts of two ShipStation syncs", missing=300)
    ] = 120
    upload_enabled: Annotated[bool, _of("", "false = claim no orders; running work ends")] = True
    import_enabled: Annotated[bool, _of("", "false = claim no files; running work ends")] = True
    sync_enabled: Annotated[bool, _of("", "false = start no sync runs; running work ends")] = True
    upload_batch_size: Annotated[
        int, Field(ge=1, le=100), _of("orders", "orders in one call; ShipStation takes 100")
    ] = 100
    upload_concurrency: Concurrency = 2
    import_concurrency: Concurrency = 2
    sync_concurrency: Concurrency = 4
    upload_priority: Priority = 1
    import_priority: Priority = 4
    sync_priority: Priority = 1
    sync_calls_per_cycle: Annotated[
        int, Field(ge=10, le=100_000), _of("calls", "API calls that one sync may make; the next one goes on from there")
    ] = 60
    max_attempts: Annotated[int, Field(ge=1, le=100), _of("attempts", "before a row goes to Failed")] = 10
    operation_timeout: Annotated[
        int, Field(ge=1, le=86_400), _of("seconds", "that one handler call may take, also one that runs already")
    ] = 300
    max_concurrent_operations: Annotated[
        int, Field(ge=1, le=1_000), _of("handler calls", "handler calls of all queues at once, per process")
    ] = 15
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _of("", "least level that is logged")] = "info"
    polling_metrics_enabled: Annotated[bool, _of("", "write checks to polling_metrics, kept for 7 days")] = True
    retention_days: Annotated[
        int, Field(ge=1, le=3_650), _of("days", "that finished sync runs and webhooks are kept")
    ] = 30

    def is_enabled(self, queue: str) -> bool:
        """Whether the queue may claim; a queue without a switch of its own always may."""
        return bool(getattr(self, f"{queue}_enabled")) if queue in _SWITCHED else True

    def priority(self, queue: str) -> int:
        """The queue's place when all common slots are busy; a queue without a key of its own is among the first."""
        return int(getattr(self, f"{queue}_priority")) if queue in _SWITCHED else 1

    def notifications_enabled(self, queue: str) -> bool:
        """Whether the queue follows notifications; false = it is rolled back to slow polling. Either switch is enough:
        both older plans' rollback statements must work while the other plan's row still says true."""
        return self.fast_polling_enabled and bool(getattr(self, _SWITCH_OF.get(queue, "fast_polling_enabled")))

    def poll_interval_s(self, queue: str) -> float:
        """Seconds between two polls of the queue."""
        if not self.is_enabled(queue):
            return DISABLED_INTERVAL_S
        return float(self.fast_polling_interval) if self.notifications_enabled(queue) else ROLLED_BACK_INTERVAL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of `configuration_params`. default: as it is written in the table. unit: for people, may be empty.

    missing: what is in force without a row, which the migration wrote; for an interval it is slower than the default,
    which is what a lost row may safely do.
    """

    name: str
    kind: Literal["boolean", "integer", "choice"]
    default: str
    unit: str
    description: str
    minimum: int | None = None
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    missing: str

    @property
    def words(self) -> tuple[str, ...]:
        """The words it takes, in lower case; none for a number."""
        return TRUE + FALSE if self.kind == "boolean" else self.choices

    @property
    def expected(self) -> str:
        """What a value must be, as half a sentence."""
        if self.kind == "boolean":
            return f"{', '.join(TRUE[:-1])} or {TRUE[-1]}, or {', '.join(FALSE[:-1])} or {FALSE[-1]}"
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        return f"a whole number of {self.unit} from {self.minimum} to {self.maximum}"

    def parse(self, text: str) -> bool | int | str:
        """Read a value; raises ValueError when it is not what is expected."""
        word = text.strip(_BLANKS).translate(_LOWER)
        if word in self.words:
            return word in TRUE if self.kind == "boolean" else word
        if self.kind == "integer" and self.minimum is not None and self.maximum is not None:
            # ten digits hold every range, and int() would refuse more than 4,300
            number = int(word) if re.fullmatch("[0-9]{1,10}", word) else -1
            if self.minimum <= number <= self.maximum:
                return number
        raise ValueError(f"{self.name} must be {self.expected}, got {text[:80]!r}")


def _key(name: str) -> Key:
    info = LiveConfig.model_fields[name]
    kind: Literal["boolean", "integer", "choice"] = "choice"
    if info.annotation is bool:
        kind = "boolean"
    elif info.annotation is int:
        kind = "integer"
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    default = str(info.default).lower()
    return Key(
        name=name.upper() if name.startswith("enable_") else name,
        kind=kind,
        default=default,
        unit=str(extra["unit"]),
        description=info.description or "",
        minimum=next((mark.ge for mark in info.metadata if hasattr(mark, "ge")), None),
        maximum=next((mark.le for mark in info.metadata if hasattr(mark, "le")), None),
        choices=get_args(info.annotation) if kind == "choice" else (),
        missing=default if extra["missing"] is None else str(extra["missing"]),
    )


KEYS = MappingProxyType({name: _key(name) for name in LiveConfig.model_fields})
"""Field of LiveConfig → its key, in the order of the docs."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rows mean. invalid: key → why its value is not in force. missing: keys without a row → what is in
    force instead. unknown: keys that are none of ours but look like it → which one."""

    config: LiveConfig
    invalid: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


@lru_cache(1_024)  # with `_parsed`, a whole table is read in 0.05 ms instead of 0.2: every replica's swap waits for it
def field_of(param_key: str) -> str:
    """Return the field that a row's key names, in any case and by older names; an unknown key gives no field's name."""
    name = param_key.strip(_BLANKS).translate(_LOWER)
    return ALIASES.get(name, name)


@lru_cache(256)
def nearest(param_key: str) -> str | None:
    """Return the key that an unknown one is a typing error of; None when it is like no other. At less likeness a switch
    that somebody makes up (`invoices_enabled`) is like one that has nothing to do with it."""
    found = difflib.get_close_matches(field_of(param_key), [*KEYS, *ALIASES], n=1, cutoff=0.85)
    return KEYS[field_of(found[0])].name if found else None


def read_live_config(rows: Iterable[tuple[str, str | None]], previous: LiveConfig | None) -> Reading:
    """Read the rows of the table.

    In place of a bad value stays that of `previous`, or the default when there is none. Of several rows for one key
    (names differ in case, or by alias) the key's own spelling counts.
    """
    values: dict[str, Any] = {}
    invalid: dict[str, str] = {}
    missing: dict[str, str] = {}
    rows = list(rows)
    chosen = _chosen(rows)
    for name, key in KEYS.items():
        if name not in chosen:
            values[name] = key.parse(key.missing)
            missing[key.name] = f"{key.name} has no row; {key.missing} is in force"
            continue
        text = chosen[name]
        try:
            values[name] = _parsed(name, text or "")
        except ValueError as error:
            values[name] = getattr(previous or LiveConfig(), name)
            sentence = str(error) if text is not None else f"{key.name} must be {key.expected}, got NULL"
            invalid[key.name] = f"{sentence}; {shown(values[name])} stays in force"
    return Reading(LiveConfig(**values), invalid, missing, _unknown(key for key, _ in rows))


@lru_cache(1_024)
def _parsed(name: str, text: str) -> bool | int | str:
    return KEYS[name].parse(text)


def shown(value: object) -> str:
    """Return a value as it is written in the table."""
    return str(value).lower()


def _unknown(keys: Iterable[str]) -> dict[str, str]:
    """Others' keys are their own affair; one that is nearly ours is a typing error that has no effect."""
    guesses = {key: nearest(key) for key in keys if field_of(key) not in KEYS}
    return {key: f"{key!r} is no key; did you mean {guess}?" for key, guess in guesses.items() if guess}


def _chosen(rows: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """One value per field: sorted so that the row with the key's own name comes last, whatever order they came in."""
    known = [(name, key, value) for key, value in rows if (name := field_of(key)) in KEYS]
    known.sort(key=lambda row: (row[1] == KEYS[row[0]].name, row[1]))
    return {name: value for name, _, value in known}
