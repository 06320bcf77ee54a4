"""Errors of the database, said to a person: what, where, what to do; never a password."""

import socket
from collections.abc import Iterator

import psycopg
import pytest
from conftest import Database
from psycopg import sql

from listener.config.values import Address
from listener.core.errors import ConfigError, DatabaseError, SessionLost, Unmigrated, Unreachable
from listener.db.embedded import Cluster
from listener.db.session import probe
from listener.db.trouble import explain, explained, has_advice, is_permanent, where


def failure(url: str, query: str = "SELECT 1", **options: str) -> psycopg.Error:
    """Return the error of connecting to *url* and running *query*."""
    with pytest.raises(psycopg.Error) as caught, psycopg.connect(url, **options) as conn:
        conn.execute(query)
    return caught.value


@pytest.fixture
def guest(own_cluster: Cluster) -> str:
    """An address whose user needs a password, and has given the wrong one."""
    rules = own_cluster.data_dir / "pg_hba.conf"
    rules.write_text("host all guest 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n")
    with psycopg.connect(own_cluster.url(), autocommit=True) as conn:
        conn.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        conn.execute("SELECT pg_reload_conf()")
    return own_cluster.url().replace("postgres@", "guest:seCret@")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody else takes, and that accepts no connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_nothing_listens(closed_port: int) -> None:
    """Transient: the server may be starting."""
    url = f"postgresql://me:seCret@127.0.0.1:{closed_port}/shop"

    error = failure(url)

    assert explain(error, url).startswith(f"nothing accepts connections at 127.0.0.1:{closed_port}/shop: start")
    assert explain(error).startswith(f"nothing accepts connections at 127.0.0.1:{closed_port}/shop: start")
    assert not is_permanent(error)


@pytest.mark.parametrize("order", ["{open},{closed}", "{closed},{open}"])
def test_answer_of_one_host_says_more_than_a_closed_port(guest: str, closed_port: int, order: str) -> None:
    """localhost alone is often two addresses, of which the server uses one."""
    hosts = {"open": where(guest).partition("/")[0], "closed": f"127.0.0.1:{closed_port}"}
    url = f"postgresql://guest:seCret@{order.format(**hosts)}/postgres"

    error = failure(url)

    assert "refuses the login" in explain(error, url)
    assert is_permanent(error)


@pytest.mark.anyio
async def test_unknown_host() -> None:
    """The sync and the async driver say it differently; we say it once."""
    url = "postgresql://me:seCret@no-such-host.invalid/shop"

    with pytest.raises(psycopg.OperationalError) as caught:
        await psycopg.AsyncConnection.connect(url)

    for error in (failure(url), caught.value):
        assert explain(error, url).startswith("unknown host in the database address no-such-host.invalid/shop: correct")
        assert not is_permanent(error)


def test_wrong_password(guest: str) -> None:
    """Permanent, and it does not repeat the password."""
    error = failure(guest)

    line = explain(error, guest)

    assert line.startswith(f"the database at {where(guest)} refuses the login (password authentication failed")
    assert "seCret" not in line
    assert "\n" not in line
    assert is_permanent(error)


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("guest", "no password supplied"),
        ("stranger", "no pg_hba.conf entry"),
    ],
)
def test_login_that_cannot_work(guest: str, user: str, text: str) -> None:
    """Permanent, whatever the server's reason."""
    url = guest.replace("guest:seCret", user)
    error = failure(url)

    assert "refuses the login" in explain(error, url)
    assert text in explain(error, url)
    assert is_permanent(error)


def test_unknown_role_and_database(empty_database: Database) -> None:
    """Permanent: only a person can make them."""
    url = psycopg.conninfo.make_conninfo(empty_database.url, dbname="no such shop")

    error = failure(url)

    assert explain(error, url).endswith("/no such shop does not exist: create it (createdb), or correct DATABASE_URL")
    assert is_permanent(error)


def test_missing_right(empty_database: Database) -> None:
    """SQLSTATE decides, the server's words say on what."""
    role = sql.Identifier(f"{empty_database.name}_guest")
    empty_database.server.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        with empty_database.connect() as conn:
            conn.execute("CREATE TABLE mine ()")
            conn.execute(sql.SQL("SET ROLE {}").format(role))
            with pytest.raises(psycopg.Error) as caught:
                conn.execute("TABLE mine")
    finally:
        empty_database.server.execute(sql.SQL("DROP ROLE {}").format(role))

    line = explain(caught.value, empty_database.url)

    assert line.startswith(f"not permitted in {where(empty_database.url)} (permission denied for table mine): grant")
    assert is_permanent(caught.value)


def test_too_many_connections(empty_database: Database) -> None:
    """Transient: others leave."""
    role = f"{empty_database.name}_guest"
    statement = "CREATE ROLE {} LOGIN PASSWORD 'x' CONNECTION LIMIT 0"
    empty_database.server.execute(sql.SQL(statement).format(sql.Identifier(role)))
    try:
        error = failure(empty_database.url, user=role, password="x")
    finally:
        empty_database.server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    assert "has no free connection" in explain(error, empty_database.url)
    assert not is_permanent(error)


def test_a_statement_that_was_cut(empty_database: Database) -> None:
    error = failure(empty_database.url, "SELECT pg_sleep(60)", options="-c statement_timeout=10")

    assert explain(error).endswith("another session holds a lock: see who holds what, a recipe of deploy/README.md")
    assert not is_permanent(error)


def test_connections_that_a_pooler_mixes_up(empty_database: Database) -> None:
    """One transaction's server connection is the next one's, with what that has prepared."""
    with psycopg.connect(empty_database.url) as conn:
        conn.execute("PREPARE _pg3_0 AS SELECT 1")
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("SELECT 2", prepare=True)

    assert "set LISTENER_DIRECT_URL to an address that is not a transaction pooler" in explain(caught.value)
    assert is_permanent(caught.value)


def test_read_only_server(empty_database: Database) -> None:
    """Transient: a failover is under way."""
    error = failure(empty_database.url, "CREATE TABLE t ()", options="-c default_transaction_read_only=on")

    assert explain(error, empty_database.url).startswith(f"the database at {where(empty_database.url)} is read-only:")
    assert not is_permanent(error)


@pytest.mark.parametrize(
    ("text", "start", "permanent"),
    [
        ("FATAL:  the database system is starting up", "the database at the configured address is starting", False),
        ("FATAL:  the database system is shutting down", "the database at the configured address is starting", False),
        ("FATAL:  sorry, too many clients already", "the database at the configured address has no free", False),
        ("FATAL:  remaining connection slots are reserved for roles", "the database at the configured", False),
        ("FATAL:  unsupported startup parameter: tcp_user_timeout", "a connection pooler at the configured", True),
        ("FATAL:  unsupported startup parameter in options: work_mem", "a connection pooler at the conf", True),
        ("connection timeout expired", "no answer from the database at the configured address: check", False),
        ("server closed the connection unexpectedly\n\tThis probably means", "the database at the config", False),
    ],
)
def test_refused_connection_attempts(text: str, start: str, permanent: bool) -> None:
    """libpq gives no SQLSTATE for an attempt, only the server's words."""
    error = psycopg.OperationalError(f'connection failed: connection to server at "h", port 5 failed: {text}')

    line = explain(error)

    assert line.startswith(start)
    assert "\n" not in line
    assert is_permanent(error) is permanent


def test_starting_server_has_a_code() -> None:
    """The same by SQLSTATE, where there is one."""
    assert "is starting or stopping" in explain(psycopg.errors.CannotConnectNow("nach dem Neustart"))
    assert not is_permanent(psycopg.errors.CannotConnectNow())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:seCret@127.0.0.1:port/shop",
        "postgresql://me:seCret@127.0.0.1:99999/shop",
        "postgresql://me:seCret@127.0.0.1/shop?sslmode=none",
        "postgresql://me:seCret@127.0.0.1/shop?colour=red",
        "postgresql://me:se%zzCret@127.0.0.1/shop",
        "postgresql://me:x@seCret@127.0.0.1/shop",
        "postgresql://me:x/seCret@127.0.0.1/shop",
        "mysql://me:seCret@127.0.0.1/shop",
        "host=127.0.0.1 password=se Cret",
    ],
)
def test_address_that_cannot_be_read(url: str) -> None:
    """Permanent, and safe to print: also what an unquoted @ or / of a password puts into other places."""
    with pytest.raises(DatabaseError, match=r"^DATABASE_URL is no PostgreSQL address") as caught, explained(url):
        psycopg.connect(url)

    assert "Cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert is_permanent(caught.value)


@pytest.mark.parametrize("part", ["pa%ss-seCret", "a%2", "%"])
def test_a_part_of_an_address_is_never_quoted(part: str) -> None:
    """Nor where the address that was used is not at hand."""
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(f"postgresql://me:{part}@127.0.0.1/shop")

    line = explain(caught.value)

    assert line.startswith("DATABASE_URL is no PostgreSQL address: write ")
    assert f'"{part}"' in str(caught.value)


def test_the_option_that_is_wrong_is_named() -> None:
    url = "postgresql://me:seCret@127.0.0.1/shop?sslmode=seCret"
    assert explain(failure(url), url).startswith("DATABASE_URL is no PostgreSQL address (see sslmode): write ")


@pytest.mark.anyio
async def test_the_variable_and_the_place_of_the_address(closed_port: int) -> None:
    """Whichever of the two addresses was used is the one to correct."""
    url = Address(f"postgresql://me:seCret@127.0.0.1:{closed_port}/shop", "LISTENER_DIRECT_URL")
    with pytest.raises(Unreachable) as caught:
        await probe(url)
    assert str(caught.value).endswith(
        f"at 127.0.0.1:{closed_port}/shop: start PostgreSQL there, or correct {url.variable}"
    )
    with pytest.raises(
        Unreachable, match=r"unknown host in the database address no-such-host\.invalid/shop: correct LIS"
    ):
        await probe(Address("postgresql://me:seCret@no-such-host.invalid/shop", "LISTENER_DIRECT_URL"))
    with pytest.raises(DatabaseError, match=r"^LISTENER_DIRECT_URL is no PostgreSQL address: write "):
        await probe(Address("postgresql://me:se%zz@h/shop", "LISTENER_DIRECT_URL"))


def test_fault_of_a_statement_is_ours() -> None:
    """A missing table is neither cured by waiting nor a wrong address; it keeps its code."""
    error = psycopg.errors.UndefinedTable('relation "orders_inbox" does not exist')

    assert explain(error).endswith('relation "orders_inbox" does not exist (UndefinedTable, SQLSTATE 42P01)')
    assert not is_permanent(error)


@pytest.mark.parametrize(
    ("password", "marked"),
    [
        ("o", "permission denied for table orders"),
        ("table", "permission denied for table orders"),
        ("o", 'no entry for user "<o>"'),
        ("table", "no host in postgresql://me:<table>@h/table"),
        ("seCretest", "a word with <seCretest>, and x<seCretest>y"),
    ],
)
def test_a_short_password_does_not_riddle_the_text(password: str, marked: str) -> None:
    """It would be unreadable, and the holes would tell the password. Between < and >: what is not to be seen."""
    text = marked.replace("<", "").replace(">", "")
    line = explain(psycopg.errors.DataException(text), f"postgresql://me:{password}@h/shop")
    shown = marked.replace(f"<{password}>", "…")
    assert line == f"the database at h/shop answered: {shown} (DataException, SQLSTATE 22000)"


def test_only_a_known_trouble_has_advice(closed_port: int) -> None:
    """What follows the last colon of the server's own words is no advice."""
    url = f"postgresql://me@127.0.0.1:{closed_port}/shop"
    with pytest.raises(DatabaseError) as known, explained(url):
        psycopg.connect(url)
    with pytest.raises(DatabaseError) as strange, explained(url):
        raise psycopg.OperationalError("received invalid response to SSL negotiation: H")
    assert (has_advice(known.value), has_advice(strange.value)) == (True, False)
    assert has_advice(Unmigrated("schema public was never migrated: run `listener migrate`"))


def test_own_errors_speak_for_themselves() -> None:
    """Their message is the line already."""
    assert explain(Unmigrated("run it")) == "run it"
    assert is_permanent(Unmigrated("run it"))
    assert is_permanent(ConfigError("correct it"))
    assert not is_permanent(SessionLost("wait"))
    with pytest.raises(DatabaseError) as caught, explained("host=h dbname=d"):
        raise psycopg.errors.ReadOnlySqlTransaction
    assert not is_permanent(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://me:seCret@db.example.org:6000/shop", "db.example.org:6000/shop"),
        ("postgresql://me:seCret@a,b/shop?target_session_attrs=read-write", "a,b/shop"),
        ("postgresql://me:seCret@a:1,b:2/shop", "a:1,b:2/shop"),
        ("host=/var/run/postgresql dbname=shop password=seCret", "/var/run/postgresql/shop"),
        ("postgresql://", "localhost/(default database)"),
        ("postgresql://me:seCret@h:p/shop", "(an address that cannot be read)"),
    ],
)
def test_place_of_an_address(url: str, place: str) -> None:
    """Host, port and database."""
    assert where(url) == place
