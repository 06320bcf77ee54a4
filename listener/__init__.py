"""INSERT a row and the work happens within milliseconds: the library's names, each imported when it is first used.

`Listener` runs a program's handlers on tables that `listener attach` has made queues. A handler takes a `Job` and
returns nothing or `Done`, `Retry`, `Snooze` or `Fail`. Every error is a `ListenerError`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from listener.core.errors import ConfigError, DatabaseError, ListenerError, Pooled, Unmigrated, Unreachable
    from listener.core.job import Job
    from listener.core.outcome import Done, Fail, Retry, Snooze
    from listener.library.listener import Listener

__all__ = [
    "ConfigError",
    "DatabaseError",
    "Done",
    "Fail",
    "Job",
    "Listener",
    "ListenerError",
    "Pooled",
    "Retry",
    "Snooze",
    "Unmigrated",
    "Unreachable",
]

_HOMES = {
    **dict.fromkeys(("Done", "Fail", "Retry", "Snooze"), "listener.core.outcome"),
    "Job": "listener.core.job",
    "Listener": "listener.library.listener",
}


def __getattr__(name: str) -> object:
    # lazily: `import listener.core` must stay cheap, and the lower layers import nothing above them
    if name not in __all__:
        raise AttributeError(f"module 'listener' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "listener.core.errors")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
