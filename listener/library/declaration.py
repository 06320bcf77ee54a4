"""One queue as a program declares it. What is wrong with it is said at once, where it stands in the program."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_origin

from listener.config.live import LiveConfig
from listener.core.errors import ConfigError
from listener.core.job import Job
from listener.core.queue import Limits, Queue
from listener.db.attached import Attached
from listener.library.rows import RowModel
from listener.workflows.queues import QUEUES

DEFAULT_CONCURRENCY = 10
_LISTS = (list, Sequence)
#: Names that no table of the user's can have as a queue → the service's queue.
_TAKEN = {name: queue.name for queue in QUEUES.values() for name in (queue.name, queue.table)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A queue, its function and its limits. Raises ConfigError for what does not fit together.

    name: the attached table's. concurrency: calls at once in one process. batch_size: rows in one call, None = the
    function takes one job. max_attempts, timeout_s: None = what the live configuration says. results: columns that
    `Done` may write. model: of the rows, None = a mapping of all columns. Set by what the function's signature says:
    model, is_async.
    """

    name: str
    function: Callable[..., Any]
    concurrency: int = DEFAULT_CONCURRENCY
    batch_size: int | None = None
    max_attempts: int | None = None
    timeout_s: float | None = None
    results: tuple[str, ...] = ()
    model: RowModel | None = field(init=False)
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        self._check_limits()
        try:
            model = _model(self.function, is_batch=self.batch_size is not None)
        except ConfigError as error:
            raise ConfigError(f"{self._place}: {error}") from error
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "is_async", _is_async(self.function))

    def limits(self, live: LiveConfig) -> Limits:
        """What the queue may do under a configuration."""
        limits = Limits(
            enabled=live.is_enabled(self.name),
            batch_size=self.batch_size or 1,
            concurrency=self.concurrency,
            max_attempts=self.max_attempts or live.max_attempts,
            timeout_s=live.operation_timeout,
        )
        if self.timeout_s is None:
            return limits
        return replace(limits, timeout_s=self.timeout_s, timeout_by=f"timeout of @queue({self.name!r})")

    def queue(self, attached: Attached) -> Queue:
        """The engine's declaration of the attached table. Raises ConfigError for a column that it does not have."""
        columns = attached.columns if self.model is None else self.model.columns
        problems = [
            f"{self._place}: {self.model.name} asks for {name!r}, which is no column of {attached.table} "
            f"that handlers see; they see {', '.join(attached.columns)}"
            for name in columns
            if self.model is not None and name not in attached.columns
        ]
        problems += [
            f"{self._place}: results={name!r} is no column of {attached.table} that can be written; "
            f"these can: {', '.join(attached.writable)}"
            for name in self.results
            if name not in attached.writable
        ]
        if problems:
            raise ConfigError("\n".join(problems))
        return Queue(
            name=self.name,
            table=attached.table,
            schema=attached.schema,
            ready_word=attached.ready_word,
            done_word=attached.done_word,
            columns=columns,
            results=self.results,
            key=attached.key,
        )

    @property
    def _place(self) -> str:
        return f"@queue({self.name!r}) {getattr(self.function, '__qualname__', self.function)}"

    def _check_limits(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"@queue({self.name!r}): expected the name of an attached table")
        if self.name in _TAKEN:
            raise ConfigError(
                f"@queue({self.name!r}): that is the service's own queue {_TAKEN[self.name]}, which `listener run`"
                " works on; attach a table of your own, and name that"
            )
        for name in ("concurrency", "batch_size", "max_attempts"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigError(f"{self._place}: {name}={value!r}: expected a whole number from 1")
        seconds = self.timeout_s
        if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < math.inf):
            raise ConfigError(f"{self._place}: timeout={seconds!r}: expected a number of seconds above 0")
        if isinstance(self.results, str) or not all(isinstance(name, str) for name in self.results):
            raise ConfigError(
                f"{self._place}: results={self.results!r}: expected names of columns, such as ('sent_at',)"
            )


def _model(function: Callable[..., Any], *, is_batch: bool) -> RowModel | None:
    """Read the signature. Raises ConfigError when the function cannot take what it will be given."""
    if not callable(function):
        raise ConfigError(f"{function!r} is no function")
    body = inspect.unwrap(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise ConfigError("it yields; a handler returns its outcome")
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError as error:
        raise ConfigError(
            f"an annotation cannot be read ({error}); import or define the name at the top of the module, at run time"
        ) from error
    takes = "list[Job], because batch_size is given" if is_batch else "Job, because batch_size is not given"
    try:
        bound = signature.bind(None)
    except TypeError as error:
        raise ConfigError(f"it takes {signature}; expected one parameter: {takes}") from error
    annotation = signature.parameters[next(iter(bound.arguments))].annotation
    if annotation in (inspect.Parameter.empty, Any):
        return None
    item, is_list = annotation, get_origin(annotation) in _LISTS or annotation in _LISTS
    if is_list:
        item = next(iter(get_args(annotation)), Job)
    if is_list != is_batch or (item is not Job and get_origin(item) is not Job):
        raise ConfigError(f"its parameter is {inspect.formatannotation(annotation)}; expected {takes}")
    model = next(iter(get_args(item)), Any)
    return None if model in (Any, dict, Mapping) or get_origin(model) in (dict, Mapping) else RowModel(model)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
