"""What a database error means to a person, and whether waiting can cure it.

No I/O. Called wherever an error of the driver leaves `listener.db`. SQLSTATE decides where there is one; libpq gives
none for a failed connection attempt, so those are told apart by the English text of the server's message.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

from listener.config.values import Address
from listener.core.errors import ConfigError, DatabaseError, ListenerError, Unreachable


@dataclass(frozen=True, slots=True)
class _Trouble:
    """One kind of error: how it is recognised, and what is said about it."""

    sqlstates: tuple[str, ...]
    #: Searched in the text when there is no SQLSTATE.
    pattern: str
    #: What happened and what to do; ``{where}`` = host/database, ``{text}`` = the server's own words,
    #: ``{variable}`` = where the address was read.
    sentence: str
    #: True when the same call fails again until a person changes something.
    is_permanent: bool


#: In the order of the search: of several attempts (several hosts, or addresses of one), a server's answer says more
#: than a closed port.
_TROUBLES = (
    _Trouble(
        (),
        r"unsupported startup parameter",
        "a connection pooler at {where} refuses our settings ({text}): set LISTENER_DIRECT_URL to the server itself, or"
        " name the parameter in the pooler's ignore_startup_parameters",
        is_permanent=True,
    ),
    _Trouble(
        ("28P01", "28000"),
        r"authentication failed|no password supplied|no pg_hba\.conf entry|role \".*\" does not exist"
        r"|not permitted to log in",
        "the database at {where} refuses the login ({text}): correct user and password in {variable}",
        is_permanent=True,
    ),
    _Trouble(
        ("3D000",),
        r"database \".*\" does not exist",
        "the database {where} does not exist: create it (createdb), or correct {variable}",
        is_permanent=True,
    ),
    _Trouble(
        ("42501",),
        r"permission denied",
        "not permitted in {where} ({text}): grant the right to the user of {variable} (deploy/roles.sql grants each"
        " role what it needs), or use the owner's account",
        is_permanent=True,
    ),
    _Trouble(
        ("53300",),
        r"too many clients|too many connections|remaining connection slots|max_client_conn|no more connections",
        "the database at {where} has no free connection: close some, raise max_connections, or lower LISTENER_POOL_MAX",
        is_permanent=False,
    ),
    _Trouble(
        ("57P03",),
        r"database system is (starting up|shutting down|in recovery mode|not yet accepting)|not accepting connections",
        "the database at {where} is starting or stopping ({text}): wait, then look into its log",
        is_permanent=False,
    ),
    _Trouble(
        ("25006",),
        r"read-only transaction|session is read-only|server is in hot standby",
        "the database at {where} is read-only: connect to the primary, which {variable} is to name, alone or in a"
        " list of hosts",
        is_permanent=False,  # a failover ends it
    ),
    _Trouble(
        ("55P03",),
        r"canceling statement due to lock timeout",
        "another session holds a lock in {where} ({text}): find it in pg_stat_activity, then try again",
        is_permanent=False,
    ),
    _Trouble(
        ("57014",),
        r"canceling statement due to",
        "a statement took too long in {where} ({text}), as when another session holds a lock: see who holds what, a"
        " recipe of deploy/README.md",
        is_permanent=False,
    ),
    _Trouble(
        ("42P05",),
        r"prepared statement \".*\" already exists",
        "a transaction pooler mixes up our connections to {where} ({text}): set LISTENER_DIRECT_URL to an address that"
        " is not a transaction pooler",
        is_permanent=True,
    ),
    _Trouble(
        (),
        r"timeout expired|timed out|no route to host|network is unreachable",
        "no answer from the database at {where}: check the address, the network and the firewall",
        is_permanent=False,
    ),
    _Trouble(
        (),
        r"failed to resolve host|could not translate host name|name or service not known|nodename nor servname"
        r"|getaddrinfo failed",
        "unknown host in the database address {where}: correct {variable}, or the name service",
        is_permanent=False,  # name services fail for a while, too
    ),
    _Trouble(
        (),
        r"connection refused|no such file or directory",
        "nothing accepts connections at {where}: start PostgreSQL there, or correct {variable}",
        is_permanent=False,
    ),
)

#: Said by libpq, and by the resolver, about the address itself.
_BAD_VALUE = re.compile(r"connection is bad: invalid |ai_socktype|unrecognized service|failed to resolve host '[^']+@")
#: Characters of a password that no text of the server has by chance: the holes would tell a shorter one.
_LONG = 8
_UNREADABLE = "(an address that cannot be read)"


def explain(error: BaseException, url: str | None = None) -> str:
    """Say in one line what happened, where, and what to do; no password appears in it.

    Args:
        error: of the driver, or our own (whose message is that line already).
        url: the address that was used; without it, the place comes from the error, as far as that knows it.
    """
    if isinstance(error, ListenerError):
        return str(error)
    variable = url.variable if isinstance(url, Address) else "DATABASE_URL"
    place = where(url) if url is not None else _where_it_failed(error)
    text = _text(error, url)
    trouble = _trouble(error)
    if _is_bad_address(error) or (place == _UNREADABLE and trouble is not None and not trouble.sqlstates):
        # What the driver quotes, took for a host or for an option, may be a part of a password: only a name it knows.
        return (
            f"{variable} is no PostgreSQL address{_option(error)}: write postgresql://user:password@host:5432/database,"
            " with @ : / % in the password as %40 %3A %2F %25"
        )
    if trouble is not None:
        return trouble.sentence.format(where=place, text=text, variable=variable)
    code = f", SQLSTATE {error.sqlstate}" if isinstance(error, psycopg.Error) and error.sqlstate else ""
    return f"the database at {place} answered: {text} ({type(error).__name__}{code})"


def is_permanent(error: BaseException) -> bool:
    """Return True when only a person can cure it, False when waiting can; an unknown error counts as transient."""
    if isinstance(error, DatabaseError) and isinstance(error.__cause__, psycopg.Error):
        return is_permanent(error.__cause__)
    if isinstance(error, ListenerError):
        return isinstance(error, ConfigError | DatabaseError)
    trouble = _trouble(error)
    return _is_bad_address(error) or (trouble is not None and trouble.is_permanent)


def is_final(error: ListenerError) -> bool:
    """Tell what no waiting mends: a setting, the server's no to the login or to a statement, not its silence."""
    if isinstance(error, ConfigError):
        return True
    if not isinstance(error, DatabaseError):
        return False
    return not isinstance(error, Unreachable) or (error.__cause__ is not None and is_permanent(error.__cause__))


def is_read_only(error: BaseException | None) -> bool:
    """Tell an error of the driver that says: no server of the address takes writes."""
    trouble = None if error is None else _trouble(error)
    return trouble is not None and "25006" in trouble.sqlstates


def explain_read_only(url: str, server: str, *, is_standby: bool, is_preset: bool) -> str:
    """Say why no server of *url* takes writes, and what to do; server: host and port of the one that was looked at."""
    variable = url.variable if isinstance(url, Address) else "DATABASE_URL"
    if is_standby and "," in where(url):
        return (
            f"none of the servers {where(url)} takes writes now, {server} is a standby: start the primary or promote"
            f" one, or correct {variable}"
        )
    if is_standby:
        return (
            f"the server at {where(url)} is a standby, which takes no writes: name the primary in {variable}, or all"
            " servers (host1,host2), of which the one that takes writes is used"
        )
    if is_preset:
        return (
            "default_transaction_read_only is on for this role, this database or the whole server, so nothing can be"
            f" claimed: ALTER ROLE (or DATABASE, SYSTEM) … RESET default_transaction_read_only for {where(url)}, or"
            f" correct {variable}"
        )
    return f"the database at {where(url)} is read-only: name one in {variable} that takes writes"


def has_advice(error: ListenerError) -> bool:
    """Tell whether what follows the last colon of its message says what to do; in the server's own words it may not."""
    cause = error.__cause__
    return not isinstance(cause, psycopg.Error) or _trouble(cause) is not None or _is_bad_address(cause)


def where(url: str) -> str:
    """Return ``host:port/database`` of an address, never its password."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.Error:
        return _UNREADABLE
    return _place(parts.get("host") or parts.get("hostaddr"), parts.get("port"), parts.get("dbname"))


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn the driver's errors into DatabaseError with the line of `explain`."""
    try:
        yield
    except psycopg.Error as error:
        raise DatabaseError(explain(error, url)) from error


def _trouble(error: BaseException) -> _Trouble | None:
    if not isinstance(error, psycopg.Error):
        return None
    if error.sqlstate is not None:
        known = next((t for t in _TROUBLES if error.sqlstate in t.sqlstates), None)
        # 08P01, protocol violation: what poolers answer, with a text that names the parameter.
        if known is not None or error.sqlstate != "08P01":
            return known
    if not isinstance(error, psycopg.OperationalError):
        return None
    return next((t for t in _TROUBLES if re.search(t.pattern, str(error), re.IGNORECASE)), None)


def _is_bad_address(error: BaseException) -> bool:
    if not isinstance(error, psycopg.Error) or error.sqlstate is not None:
        return False
    return isinstance(error, psycopg.ProgrammingError) or (
        isinstance(error, psycopg.OperationalError) and _BAD_VALUE.search(str(error)) is not None
    )


def _option(error: BaseException) -> str:
    """Name the option of libpq whose value is bad, where it is one; the value itself may be a secret."""
    options = "|".join(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())
    found = re.search(rf'invalid ({options}) value|option "({options})"', str(error))
    return f" (see {found[1] or found[2]})" if found else ""


def _text(error: BaseException, url: str | None) -> str:
    """Return the server's own words in one line, without the password of *url*."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (primary or str(error)).strip().splitlines() or [type(error).__name__]
    # libpq: 'connection to server at "h", port 1 failed: FATAL:  reason'; several attempts: the first '- host: …' line.
    line = next((line for line in lines if "FATAL:" in line), lines[0])
    text = line.rpartition("FATAL:")[2].strip()
    password = _password(url)
    return _masked(text, password) if password else text


def _masked(text: str, password: str) -> str:
    """Take the password out: a short one, as it may be a usual word or a part of one, only where it is quoted."""
    if len(password) >= _LONG:
        return text.replace(password, "…")
    return re.sub(rf"(?<=[\"'`:=/@]){re.escape(password)}(?=[\"'`@])", "…", text)


def _password(url: str | None) -> str | None:
    try:
        value = conninfo_to_dict(url).get("password") if url else None
    except psycopg.Error:
        # The address cannot be read: take whatever stands between ':' and '@'.
        found = re.search(r"://[^:/]*:(?P<password>[^/]+)@", url or "")
        return found["password"] if found else None
    return str(value) if value else None


def _where_it_failed(error: BaseException) -> str:
    pgconn = error.pgconn if isinstance(error, psycopg.Error) else None
    if pgconn is None:
        return "the configured address"
    return _place(pgconn.host.decode(), pgconn.port.decode(), pgconn.db.decode())


def _place(host: object, port: object, database: object) -> str:
    hosts, ports = str(host or "localhost").split(","), str(port or "").split(",")
    # An unquoted @, : or / in a password shifts what follows it into the other parts.
    if "@" in str(host or "")[1:] or "@" in str(database or "") or any(p and not p.isdecimal() for p in ports):
        return _UNREADABLE
    numbers = ports if len(ports) == len(hosts) else ports * len(hosts)
    addresses = ",".join(f"{name}:{number}" if number else name for name, number in zip(hosts, numbers, strict=False))
    return f"{addresses}/{database or '(default database)'}"
