"""What goes wrong, on demand: a plan of faults that can be replaced while the sandbox runs.

The plan decides which faults hit a call; `exchange` carries them out. A fault that names orders hits only calls that
contain one of them; any other hits each call that fits its `path`, `method` and `probability`, `count` times at most.
"""

import random
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class Fault(BaseModel):
    """One entry of the plan; every field may be combined with every other.

    Which calls: `count` (the next N), `path` (``*`` allowed), `method`, `probability`. Two entries may hit one call.
    Before the call: `latency_s`; `hang_s` (silence; the write has happened unless `effect` is false).
    Instead of the reply: `reset_before`, `status` (with `headers`, `remaining`, `retry_after`, `message`), `html200`;
    these have no effect on the data unless `effect` is true. `poison` and `reject_400` name orders that turn a whole
    call into a 500 or a 400; `order_error` turns single ones into failures at HTTP 200.
    After the write: `cut_json`, `reset_after` (true: no reply; "mid": half of one).
    In the reply: `date_offset_s`, `unknown_fields`, `null_fields`, `big_ids`, `shuffle`, `drop_result`,
    `duplicate_row`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=1)] | None = None
    path: str | None = None
    method: str | None = None
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0

    latency_s: Annotated[float, Field(ge=0)] = 0.0
    hang_s: Annotated[float, Field(ge=0)] = 0.0
    effect: bool | None = None

    reset_before: bool = False
    reset_after: bool | Literal["mid"] = False
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    message: str | None = None
    headers: bool = True
    remaining: Annotated[int, Field(ge=0)] | None = None
    retry_after: int | str | None = None
    html200: bool = False
    cut_json: bool = False

    poison: tuple[str, ...] = ()
    reject_400: tuple[str, ...] = ()
    order_error: dict[str, str] = {}

    date_offset_s: float = 0.0
    unknown_fields: bool = False
    null_fields: tuple[str, ...] = ()
    big_ids: bool = False
    shuffle: bool = False
    drop_result: bool = False
    duplicate_row: bool = False

    def orders(self) -> set[str]:
        """Give the order keys and numbers it names."""
        return {*self.poison, *self.reject_400, *self.order_error}


#: No fault at all; what most calls get.
QUIET = Fault()

_PLAN: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])


class _Armed:
    """A fault of the plan and how many calls it has left (None = no end)."""

    __slots__ = ("fault", "left", "orders")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.count
        self.orders = fault.orders()


class FaultPlan:
    """The faults in force."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._armed: list[_Armed] = []

    @property
    def is_on(self) -> bool:
        """True while any fault may still hit a call."""
        return bool(self._armed)

    def replace(self, document: Any) -> None:
        """Put a new plan in force: a list of faults, ``{"faults": [...]}``, or a single fault.

        Raises pydantic.ValidationError and leaves the former plan in force.
        """
        if isinstance(document, dict):
            document = document.get("faults", [document] if document else [])
        self._armed = [_Armed(fault) for fault in _PLAN.validate_python(document)]

    def clear(self) -> None:
        """Stop all faults."""
        self._armed = []

    def describe(self) -> list[dict[str, Any]]:
        """List the plan as it stands; `count` is what is left of it."""
        return [
            {**armed.fault.model_dump(mode="json", exclude_unset=True), "count": armed.left} for armed in self._armed
        ]

    def take(self, method: str, path: str, orders: set[str]) -> Fault:
        """Give the faults that hit this call, merged into one, and count them as used."""
        if not self._armed:
            return QUIET
        hits = [
            armed
            for armed in self._armed
            if (not armed.orders or not armed.orders.isdisjoint(orders)) and self._fits(armed, method, path)
        ]
        return _merged((self._use(armed) for armed in hits), orders)

    def take_poison(self, method: str, path: str, orders: set[str]) -> bool:
        """Tell whether a reply that shows these orders must be a 500, and count the fault as used."""
        for armed in tuple(self._armed):
            if not orders.isdisjoint(armed.fault.poison) and self._fits(armed, method, path):
                self._use(armed)
                return True
        return False

    def _fits(self, armed: _Armed, method: str, path: str) -> bool:
        fault = armed.fault
        if fault.path is not None and not fnmatchcase(path, fault.path):
            return False
        if fault.method is not None and fault.method.upper() != method:
            return False
        return fault.probability >= 1 or self._rng.random() < fault.probability

    def _use(self, armed: _Armed) -> Fault:
        if armed.left is not None:
            armed.left -= 1
            if armed.left == 0:
                self._armed.remove(armed)
        return armed.fault


def _merged(faults: Iterable[Fault], orders: set[str]) -> Fault:
    """Lay faults over each other: a later one wins a field, those that name an order of the call add up."""
    result = QUIET
    for fault in faults:
        changes = {name: getattr(fault, name) for name in fault.model_fields_set}
        changes["poison"] = (*result.poison, *orders.intersection(fault.poison))
        changes["reject_400"] = (*result.reject_400, *orders.intersection(fault.reject_400))
        changes["order_error"] = result.order_error | fault.order_error
        result = result.model_copy(update=changes)
    return result
