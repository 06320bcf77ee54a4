"""Every error this program raises on purpose.

ListenerError
├── ConfigError        the environment, a flag or a configuration value is wrong
├── DatabaseError      the database answered, and the answer means we cannot go on
│   ├── Unmigrated     its schema is older or newer than this code
│   ├── Ungranted      our role lacks what the schema's objects need: an administrator grants it
│   ├── Pooled         the direct address leads through a transaction pooler, or to another database
│   └── Unreachable    no connection, a cut one, or a server that takes no writes: try again later
├── SessionLost        our Postgres session ended: the lease is gone
├── ClaimLost          the row that we work on is somebody else's by now
└── ClientError        an outside API
    ├── Unavailable    the API as a whole: down, throttled, refuses the credentials (no order's fault)
    ├── Rejected       the API refused this very call (4xx): the content is at fault
    ├── TooLarge       its reply is larger than what we take
    └── Broken         the API answered 500: either of the two, one more call tells which

Each message says what, where, which value, and what to do.
"""


class ListenerError(Exception):
    """The root; a message for a person, no traceback needed."""


class ConfigError(ListenerError):
    """A setting is missing or wrong."""


class DatabaseError(ListenerError):
    """The database is reachable, but cannot be used as it is."""


class Unmigrated(DatabaseError):  # noqa: N818 - reads as a state, like psycopg's own names
    """The schema and this code do not fit together."""


class Ungranted(DatabaseError):  # noqa: N818
    """The server refuses our role something, or would: grants are missing, perhaps not yet made."""


class Pooled(DatabaseError):  # noqa: N818
    """Notifications do not arrive: the direct address is a transaction pooler, or another database."""


class Unreachable(DatabaseError):  # noqa: N818
    """The database does not answer now. Whether the last statement took effect is unknown."""


class SessionLost(ListenerError):  # noqa: N818
    """The session that is our lease is gone: assume that our rows are being taken."""


class ClaimLost(ListenerError):  # noqa: N818
    """The claim under which we work is gone: nothing more may be written."""


class ClientError(ListenerError):
    """An outside API did not do what was asked."""


class Unavailable(ClientError):  # noqa: N818
    """The API as a whole cannot be used now.

    reason: one word for metrics and the pause: ``outage``, ``throttled``, ``credentials``.
    wait_s: what the API asked for, in seconds; None = it did not say.
    """

    def __init__(self, message: str, *, reason: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.wait_s = wait_s


class Rejected(ClientError):  # noqa: N818
    """The API refused the content of this call; `status` is the HTTP status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class TooLarge(ClientError):  # noqa: N818
    """The reply is larger than the limit for it."""


class Broken(ClientError):  # noqa: N818
    """HTTP 500: the API as a whole, or one record in the call. A second, smaller call tells."""


def last_words(error: ListenerError) -> tuple[str, int]:
    """What a process says when an error ends it, and its exit code: 2 = wrong usage or settings, 1 = failed."""
    return "\n".join(f"listener: {problem}" for problem in str(error).splitlines()), 1 + isinstance(error, ConfigError)


def most_telling(group: BaseExceptionGroup[ListenerError]) -> ListenerError:
    """Pick the error that explains most: what no waiting mends before a lost session."""
    leaves: list[ListenerError] = []
    todo: list[BaseException] = [group]
    while todo:
        error = todo.pop()
        if isinstance(error, BaseExceptionGroup):
            todo.extend(error.exceptions)
        elif isinstance(error, ListenerError):
            leaves.append(error)
    final = ConfigError | Pooled | Ungranted | Unmigrated
    return min(leaves, key=lambda error: (not isinstance(error, final), isinstance(error, SessionLost)))
