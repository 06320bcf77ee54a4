"""Typed rows: a model (pydantic or dataclass) made of a row's columns, or every reason why that cannot be."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation
from pydantic_core import ErrorDetails

from listener.core.errors import ConfigError

# As many as a person corrects in one go.
_MOST_FAULTS = 20


class RowFaults(ValueError):  # noqa: N818 - it is the list of faults
    """A row is not what its handler asks for. `str()`: a line per fault, with path and value, at most 20."""


class RowModel:
    """The model of a handler's rows. columns: what is read from the table for it.

    Raises ConfigError for a type that is neither a pydantic model nor a dataclass, or that pydantic cannot check.
    """

    def __init__(self, model: Any) -> None:
        self.name = getattr(model, "__name__", repr(model))
        self.columns = _columns(model)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(model)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            raise ConfigError(f"{self.name} cannot be checked: {str(error).splitlines()[0]}") from error

    def read(self, row: Mapping[str, Any]) -> Any:
        """Make the model of a row. Raises RowFaults."""
        try:
            return self._adapter.validate_python({name: row[name] for name in self.columns}, by_alias=True)
        except ValidationError as error:
            faults = [_line(details) for details in error.errors(include_url=False)]
        except Exception as error:  # noqa: BLE001 - the model's own code: as wrong as a fault, and for this row alone
            faults = [f"{type(error).__name__}: {error}"]
        more = [f"and {len(faults) - _MOST_FAULTS:,} more"] if len(faults) > _MOST_FAULTS else []
        raise RowFaults("\n".join([f"The row is no {self.name}:", *faults[:_MOST_FAULTS], *more]))


def _columns(model: Any) -> tuple[str, ...]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        names = [field.validation_alias or name for name, field in model.model_fields.items()]
        if odd := [name for name in names if not isinstance(name, str)]:
            raise ConfigError(f"{model.__name__}: a field is read from one column; {odd[0]!r} names several")
        return tuple(str(name) for name in names)
    if isinstance(model, type) and dataclasses.is_dataclass(model):
        return tuple(field.name for field in dataclasses.fields(model) if field.init)
    raise ConfigError(f"Job[{getattr(model, '__name__', model)}]: expected a pydantic model or a dataclass")


def _line(details: ErrorDetails) -> str:
    path = ".".join(map(str, details["loc"])) or "the row"
    return f"{path}: {details['input']!r:.80}: {details['msg']}"
