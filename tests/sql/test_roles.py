"""Least privilege: what deploy/roles.sql grants is enough for the service, and nothing of it can be left out."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from conftest import Database, Server, fresh_database
from login import ROLES, SCRIPT, as_role
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from roles import Roles, roles

from listener.cli.doctor.examination import examine
from listener.cli.doctor.finding import Finding
from listener.config.environment import load_environment
from listener.core.errors import DatabaseError
from listener.db.attach import Wish, attach, detach
from listener.db.migrate import migrate
from listener.db.queries import load, query, template
from listener.db.queue import _fields
from listener.workflows.queues import IMPORT, SYNC, UPLOAD

pytestmark = pytest.mark.own_role("makes the four roles itself, under names of its own")

#: Named queries that are not the service's: the owner's, the demo's, the tests'.
OTHERS = {
    "books": {"read_books"},
    "attached": {"attached"},
    "samples": set(),
    "scratch": set(),
}
#: Parts of statements, and commands that cannot be planned.
PARTS = {"all_priorities", "known_priorities", "unblocked", "same_key", "result_column", "undo_update",
         "undo_insert", "copy_orders", "clear_orders", "prepare_merge", "statuses", "number_again", "is_stranded",
         "nth_stale_s", "has_bell", "survey_all"}  # fmt: skip
#: What a plan does not show: sequences, what functions and triggers do, and the commands' own words. Rolled back.
DEEDS = (
    "SELECT nextval('listener_session_key')",
    "SELECT nextval('listener_claim_id')",
    "INSERT INTO polling_metrics (workflow_name, record_count, action_taken) VALUES ('x', 1, 'processed')",
    "SELECT cleanup_old_metrics(7, 10)",
    "SELECT config_set('log_level', 'debug')",
    "SELECT config_set('log_level', 'error'); SELECT config_restore(clock_timestamp())",
    "UPDATE configuration_params SET param_value = 'false' WHERE param_key = 'fast_polling_enabled'",
    "DELETE FROM configuration_params WHERE param_key = 'log_level'",
    "UPDATE sync_runs SET status = 'Pending' WHERE status = 'Failed'",
    "CREATE TEMPORARY TABLE of_an_import (a integer) ON COMMIT DROP",
    "LISTEN listener_wake; NOTIFY listener_wake; SELECT pg_try_advisory_xact_lock(1, 2)",
)


@pytest.fixture(scope="module")
def made(server: Server, psql: Path) -> Iterator[Roles]:
    with roles(server, psql) as made:
        yield made


@pytest.fixture(scope="module")
def runtime(made: Roles) -> Iterator[psycopg.Connection[Any]]:
    """The service's role, with every named query of the service prepared."""
    with made.connect("runtime") as conn:
        conn.execute(query("imports", "prepare_merge").as_string(None).replace("ON COMMIT DROP", ""))
        for number, text in enumerate(statements()):
            conn.execute(f"PREPARE q{number} AS {text}".encode())
        yield conn


def statements() -> list[str]:
    """Every statement that the service sends, with $1, $2 for its parameters."""
    texts = []
    for path in sorted(Path(__file__).parents[2].glob("sql/queries/*.sql")):
        for name in load(path.stem).keys() - PARTS:
            if name not in OTHERS.get(path.stem, {name}):
                continue
            for queue in (UPLOAD, IMPORT, SYNC) if path.stem == "queue" or name == "stuck" else (UPLOAD,):
                more = {"schema": sql.Identifier("public"), "key_name": sql.Literal("id"), "number": sql.Literal(1)}
                fields = _fields(queue, "bigint") | more
                fields["name"] = sql.Identifier("id")
                texts.append(numbered(template(path.stem, name, fields).as_string(None)))
    return texts


def numbered(text: str) -> str:
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, name in enumerate(names, start=1):
        text = text.replace(f"%({name})s", f"${number}")
    return text.replace("%%", "%")


def refused(conn: psycopg.Connection[Any]) -> list[str]:
    """What the service may not do: planning a statement for execution checks every privilege on its tables."""
    found = []
    for name, parameters in conn.execute(
        "SELECT name, cardinality(parameter_types) FROM pg_prepared_statements"
    ).fetchall():
        nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
        try:
            conn.execute(f"EXPLAIN EXECUTE {name}{nulls}".encode())
        except InsufficientPrivilege as error:
            found.append(f"{name}: {error}")
    looks = conn.execute(
        "SELECT format('SELECT last_value FROM %s', d.objid::regclass) FROM pg_depend AS d JOIN pg_class AS c"
        " ON c.oid = d.refobjid AND c.relnamespace = 'public'::regnamespace WHERE d.deptype = 'i'"
        " AND d.classid = d.refclassid AND d.objid IN (SELECT seqrelid FROM pg_sequence)"
    ).fetchall()
    for deed in (*DEEDS, *(look for (look,) in looks)):
        try:
            with conn.transaction(force_rollback=True):
                conn.execute(deed.encode())
        except InsufficientPrivilege as error:
            found.append(f"{deed}: {error}")
    return found


def test_the_service_may_do_all_it_does(runtime: psycopg.Connection[Any]) -> None:
    assert refused(runtime) == []
    assert runtime.execute("SELECT count(*) > 90 FROM pg_prepared_statements").fetchone() == (True,)


def test_nothing_of_it_can_be_left_out(made: Roles, runtime: psycopg.Connection[Any]) -> None:
    """Take each privilege away: something is refused. Give it back: nothing is."""
    wanted = made.database.execute(
        "SELECT kind, relation::text, privilege FROM listener_privileges() WHERE role = 'runtime' ORDER BY 2, 3"
    )
    superfluous = []
    for kind, relation, privilege in wanted:
        made.database.execute(f"REVOKE {privilege} ON {kind} {relation} FROM {made.name('runtime')}")
        if not refused(runtime):
            superfluous.append(f"{privilege} on {relation}")
        made.database.execute(f"GRANT {privilege} ON {kind} {relation} TO {made.name('runtime')}")
    assert superfluous == []
    assert len(wanted) > 40
    assert refused(runtime) == []


def test_every_table_of_the_schema_is_on_the_list(made: Roles) -> None:
    """A new table is nobody's until listener_privileges() names it."""
    forgotten = made.database.execute(
        "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace"
        " AND c.relkind IN ('r', 'p', 'v')"
        " AND c.oid NOT IN (SELECT relation FROM listener_privileges() WHERE relation IS NOT NULL)"
    )
    assert forgotten == []


def test_the_roles_have_exactly_what_is_on_the_list(made: Roles) -> None:
    """Nothing beside it, not by PUBLIC either; running the script again takes back what somebody added."""
    extra = f"GRANT DELETE, TRUNCATE ON orders_inbox TO {made.name('runtime')}; GRANT SELECT ON orders_inbox TO PUBLIC"
    made.database.execute(extra)
    made.apply()
    given = set(
        made.database.execute(
            "SELECT r.rolname, c.relname::text, a.privilege_type FROM pg_class AS c"
            " CROSS JOIN LATERAL aclexplode(c.relacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee"
            " WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner"
        )
    )
    listed = set(
        made.database.execute(
            "SELECT concat(%s::text, '_', role), relation::text, privilege FROM listener_privileges()"
            " WHERE columns IS NULL",
            [made.prefix],
        )
    )
    assert given == listed


def test_no_role_is_more_than_it_seems(made: Roles) -> None:
    rows = made.database.execute(
        "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls, rolreplication FROM pg_roles"
        " WHERE rolname LIKE %s ORDER BY 1",
        [f"{made.prefix}%"],
    )
    assert [row[1:] for row in rows] == [(False,) * 5] * 4
    owners = made.database.execute(
        "SELECT DISTINCT r.rolname FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner"
        " WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef"
    )
    assert owners == [(made.name("owner"),)], "functions that run as their owner must not run as an administrator"


@pytest.fixture(scope="module")
def writer(made: Roles) -> Iterator[psycopg.Connection[Any]]:
    with made.connect("writer") as conn:
        yield conn


def test_a_writer_inserts_orders_and_reads_their_state(made: Roles, writer: psycopg.Connection[Any]) -> None:
    (key,) = writer.execute(
        "INSERT INTO orders_inbox (source, order_number, payload, priority, scheduled_at)"
        " VALUES ('shop', 'w1', '{}', 50, now()) ON CONFLICT (source, order_number) DO NOTHING RETURNING id"
    ).fetchone() or (None,)
    assert key is not None
    state = writer.execute("SELECT status, tracking_number, shipped_at FROM orders_inbox WHERE order_number = 'w1'")
    assert state.fetchall() == [("Pending", None, None)]
    assert made.database.execute("SELECT order_key FROM orders_inbox") == [("shop-w1",)], "the triggers work for it"


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT payload FROM orders_inbox",
        "SELECT * FROM orders_inbox",
        "SELECT last_error FROM orders_inbox",
        "SELECT id FROM orders_inbox WHERE payload IS NOT NULL",
        "INSERT INTO orders_inbox (order_number) VALUES ('w2') RETURNING payload",
        "INSERT INTO orders_inbox (order_number, claim_id) VALUES ('w2', 1)",
        "INSERT INTO orders_inbox (order_number, status) VALUES ('w2', 'Uploaded')",
        "INSERT INTO orders_inbox (source, order_number) VALUES ('shop', 'w1')"
        " ON CONFLICT (source, order_number) DO UPDATE SET payload = excluded.payload",
        "UPDATE orders_inbox SET status = 'Uploaded'",
        "UPDATE orders_inbox SET payload = '{}'",
        "DELETE FROM orders_inbox",
        "TRUNCATE orders_inbox",
        "SELECT FROM import_files",
        "SELECT FROM sync_runs",
        "SELECT FROM configuration_params",
        "UPDATE configuration_params SET param_value = 'false'",
        "SELECT config_set('upload_enabled', 'false')",
        "SELECT nextval('listener_claim_id')",
        "CREATE TABLE mine (id integer)",
        "ALTER TABLE orders_inbox DISABLE TRIGGER ALL",
    ],
)
def test_a_writer_may_do_no_more(writer: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        writer.execute(statement.encode())


def test_a_reader_sees_every_table_and_no_payload(made: Roles) -> None:
    with made.connect("reader") as conn:
        for (name,) in made.database.execute(
            "SELECT DISTINCT relation::text FROM listener_privileges() WHERE role = 'reader'"
        ):
            (columns,) = made.database.execute(
                "SELECT DISTINCT columns FROM listener_privileges() WHERE role = 'reader' AND relation = %s::regclass",
                [name],
            )
            conn.execute(f"SELECT {', '.join(map(_quoted, columns[0] or ['*']))} FROM {name}".encode())
        for refused_statement in (
            "SELECT payload FROM orders_inbox",
            "SELECT last_error FROM orders_inbox",
            "SELECT content FROM import_files",
            "SELECT report FROM import_files",
            "SELECT body FROM webhook_events",
            "SELECT row FROM sync_quarantine",
            "UPDATE orders_inbox SET priority = 1",
            "INSERT INTO sync_runs (account) VALUES ('x')",
        ):
            with pytest.raises(InsufficientPrivilege):
                conn.execute(refused_statement.encode())
        seen = conn.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND state IS NOT NULL")
        assert (seen.fetchone() or (0,))[0] > 0, "it sees the sessions of other roles"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO configuration_history (param_key, action) VALUES ('x', 'insert')",
        "DELETE FROM configuration_history",
        "DELETE FROM orders_inbox",
        "TRUNCATE orders_inbox",
        "ALTER TABLE orders_inbox DISABLE TRIGGER orders_inbox_inserted",
        "CREATE TABLE mine (id integer)",
        "CREATE FUNCTION listener_who() RETURNS text LANGUAGE sql AS 'SELECT 1'",
        "SET session_replication_role = replica",
    ],
)
def test_the_service_may_do_no_more(runtime: psycopg.Connection[Any], statement: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        runtime.execute(statement.encode())


def test_another_schema_and_attached_tables(server: Server, psql: Path) -> None:
    """Names that need quotes, a schema from the environment, and a table of somebody else that is a queue."""
    with roles(server, psql, schema="Shop 1") as made:
        execute = made.database.execute
        execute('CREATE TABLE public."Bills" (id bigint PRIMARY KEY); SET search_path = "Shop 1"')
        execute("SELECT attach_queue('public.\"Bills\"'::regclass)")
        execute('GRANT INSERT ON public."Bills" TO ' + made.name("runtime"))
        made.apply()
        made.apply()
        with psycopg.connect(made.url("runtime"), autocommit=True) as conn:
            conn.execute('UPDATE public."Bills" SET status = status')
            conn.execute('INSERT INTO public."Bills" (id) VALUES (1)')  # what its owner gave is not taken away
            conn.execute('SELECT FROM "Shop 1".orders_inbox')
        assert execute("SELECT tableowner FROM pg_tables WHERE tablename = 'Bills'") == [("postgres",)]
        assert execute("SELECT tableowner FROM pg_tables WHERE tablename = 'orders_inbox'") == [(made.name("owner"),)]


def test_an_installation_of_an_administrator_is_taken_over(server: Server, psql: Path) -> None:
    """Migrated as a superuser: owner and grants are right after one run, and the owner can migrate on."""
    with roles(server, psql) as made:
        execute = made.database.execute
        for (name,) in execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            execute(f"ALTER TABLE {name} OWNER TO CURRENT_USER")
        execute("ALTER FUNCTION listener_configuration_changed() OWNER TO CURRENT_USER")
        made.apply()
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert execute(owners) == [(made.name("owner"),)]
        execute("DELETE FROM listener_migrations WHERE kind <> 'migration'")
        assert len(migrate(made.url("owner"), "public").applied) > 50


def test_the_programs_of_a_former_owner_go_on(empty_database: Database, psql: Path) -> None:
    """The older scripts work beside the service, and after a roll back: their role keeps the rows of its tables."""
    shop = f"shop_of_{empty_database.name}"
    made = Roles(empty_database, f"of_{empty_database.name}", "public", psql)
    execute = empty_database.execute
    execute(f"CREATE ROLE {shop} LOGIN")
    try:
        execute("CREATE TABLE orders_inbox (id bigserial PRIMARY KEY, order_number text, payload jsonb)")
        execute("CREATE TABLE configuration_params (param_key text PRIMARY KEY, param_value text)")
        for table in ("orders_inbox", "configuration_params"):
            execute(f"ALTER TABLE {table} OWNER TO {shop}")
        made.apply()
        migrate(empty_database.url, "public")
        made.apply()
        made.apply()
        owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        assert execute(owners) == [(made.name("owner"),)]
        with psycopg.connect(as_role(empty_database.url, shop), autocommit=True) as conn:
            conn.execute("INSERT INTO orders_inbox (order_number, payload) VALUES ('1', '{}')")
            conn.execute("UPDATE orders_inbox SET status = 'Held' RETURNING payload")
            conn.execute("UPDATE configuration_params SET param_value = '300' WHERE param_key = 'sync_interval'")
            conn.execute("DELETE FROM orders_inbox")
            for statement in ("TABLE import_files", "DELETE FROM configuration_history", "TRUNCATE orders_inbox"):
                with pytest.raises(InsufficientPrivilege):
                    conn.execute(statement.encode())
    finally:
        for role in (*(made.name(role) for role in ROLES), shop):
            execute(f"DROP OWNED BY {role} CASCADE")
            execute(f"DROP ROLE {role}")


@pytest.fixture
def admin(empty_database: Database) -> Iterator[Roles]:
    """An administrator who is no superuser, as managed services give one: it may make roles, and owns the database."""
    name = f"admin_of_{empty_database.name}"
    conn = empty_database.connect()
    conn.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
    conn.execute(f"ALTER DATABASE {empty_database.name} OWNER TO {name}")
    made = Roles(empty_database, f"of_{empty_database.name}", "public", Path("psql"))
    try:
        yield made
    finally:
        conn.execute(f"ALTER DATABASE {empty_database.name} OWNER TO CURRENT_USER")
        for role in (*(made.name(role) for role in ROLES), name):
            if conn.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).rowcount:
                conn.execute(f"DROP OWNED BY {role} CASCADE")
        for role in (*(made.name(role) for role in ROLES), name):
            conn.execute(f"DROP ROLE IF EXISTS {role}")


def test_an_administrator_without_superuser_runs_it_again_and_again(admin: Roles, psql: Path) -> None:
    parts = conninfo_to_dict(admin.database.url)
    url = f"postgresql://admin_of_{admin.database.name}@{parts['host']}:{parts['port']}/{parts['dbname']}"

    def apply() -> None:
        done = subprocess.run(
            [psql, "--no-psqlrc", "--quiet", url, "-v", f"prefix={admin.prefix}", "-f", SCRIPT],
            env={"LISTENER_SCHEMA": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr

    apply()
    migrate(admin.url("owner"), "public")
    apply()
    apply()
    with admin.connect("runtime") as conn:
        conn.execute("SELECT FROM orders_inbox FOR UPDATE")


def test_what_could_not_be_granted_is_an_error(admin: Roles, psql: Path) -> None:
    """An attached table of somebody else: the server only warns, and the service would be refused later."""
    migrate(admin.database.url, "public")
    made = replace(admin, psql=psql)
    made.database.execute("CREATE TABLE bills (id bigint PRIMARY KEY)")
    made.database.execute("SELECT attach_queue('bills'::regclass)")
    assert made.run("-v", f"prefix={made.prefix}").returncode == 0
    made.database.execute(f"REVOKE ALL ON bills FROM {made.name('runtime')}")
    made.database.execute(f"GRANT SELECT, UPDATE ON bills TO admin_of_{admin.database.name}")
    parts = conninfo_to_dict(admin.database.url)
    url = f"postgresql://admin_of_{admin.database.name}@{parts['host']}:{parts['port']}/{parts['dbname']}"
    made.database.execute(f"GRANT {made.name('owner')} TO admin_of_{admin.database.name} WITH ADMIN OPTION")
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", url, "-v", f"prefix={made.prefix}", "-f", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 3
    assert f"not granted, because admin_of_{admin.database.name} may not: " in done.stderr
    assert f"SELECT on public.bills for {made.name('runtime')}" in done.stderr


@pytest.mark.parametrize("prefix", ["p" * 56, "ä" * 28])
def test_a_prefix_that_is_too_long_is_refused(empty_database: Database, psql: Path, prefix: str) -> None:
    """56 bytes and "_runtime" are 64: cut off, all four would be one role."""
    done = Roles(empty_database, prefix, "public", psql).run("-v", f"prefix={prefix}")
    assert done.returncode == 3
    assert f"too long for a name: prefix {prefix}" in done.stderr
    assert empty_database.execute("SELECT FROM pg_roles WHERE rolname LIKE %s", [f"{prefix[:20]}%"]) == []


def test_the_doctor_may_be_given_a_look_at_others(server: Server, psql: Path) -> None:
    with roles(server, psql) as made:
        seen = "SELECT pg_has_role(%s, 'pg_monitor', 'USAGE')"
        assert made.database.execute(seen, [made.name("runtime")]) == [(False,)]
        assert made.run("-v", f"prefix={made.prefix}", "-v", "monitor=on").returncode == 0
        assert made.database.execute(seen, [made.name("runtime")]) == [(True,)]


def test_a_role_that_is_a_superuser_is_refused(server: Server, psql: Path) -> None:
    with roles(server, psql) as made:
        made.database.execute(f"ALTER ROLE {made.name('runtime')} SUPERUSER")
        done = made.run("-v", f"prefix={made.prefix}")
        assert done.returncode == 3
        assert f"role {made.name('runtime')} has more than it may have" in done.stderr
        assert "NOSUPERUSER" in done.stderr
        made.database.execute(f"ALTER ROLE {made.name('runtime')} NOSUPERUSER")


def test_another_installation_is_not_taken_over_by_mistake(server: Server, psql: Path) -> None:
    """A forgotten -v prefix= would hand every object to other roles, and its own owner could migrate no more."""
    owner = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with roles(server, psql) as made:
        other = replace(made, prefix=f"{made.prefix}_other")
        done = other.run("-v", f"prefix={other.prefix}")
        assert done.returncode == 3, done.stderr
        assert f"belongs to {made.name('owner')}, not to {other.name('owner')}" in done.stderr
        assert f"give -v prefix={made.prefix}; or, to take it over from those roles: -v takeover=on" in done.stderr
        assert made.database.execute(owner) == [(made.name("owner"),)]
        assert made.database.execute("SELECT FROM pg_roles WHERE rolname = %s", [other.name("owner")]) == []
        done = other.run("-v", f"prefix={other.prefix}", "-v", "takeover=on")
        assert (done.returncode, done.stderr) == (0, "")
        assert made.database.execute(owner) == [(other.name("owner"),)]
        for role in ROLES:
            made.database.execute(f"DROP OWNED BY {other.name(role)} CASCADE; DROP ROLE {other.name(role)}")


@pytest.mark.parametrize("option", ["monitor", "takeover"])
def test_an_option_that_means_nothing_is_refused(empty_database: Database, psql: Path, option: str) -> None:
    done = Roles(empty_database, "none", "public", psql).run("-v", "prefix=none", "-v", f"{option}=banana")
    assert done.returncode == 3
    assert f"-v {option}=banana means nothing" in done.stderr
    assert f"write -v {option}=on, or leave it out" in done.stderr


def test_a_role_that_may_more_by_others_is_refused(server: Server, psql: Path) -> None:
    with roles(server, psql) as made:
        runtime, between = made.name("runtime"), f"between_{made.prefix}"
        made.database.execute(f"CREATE ROLE {between}")
        try:
            for of, to in ((made.name("owner"), runtime), ("pg_read_all_data", between), ("postgres", between)):
                made.database.execute(f"GRANT {of} TO {to}; GRANT {between} TO {runtime}")
                done = made.run("-v", f"prefix={made.prefix}")
                made.database.execute(f"REVOKE {of} FROM {to}; REVOKE {between} FROM {runtime}")
                assert done.returncode == 3
                assert f"role {runtime} is a member of {of}, and so has more than it may have" in done.stderr
                assert f"REVOKE {of} FROM {runtime} (or from the role between them)" in done.stderr
            made.database.execute(f"ALTER ROLE {runtime} NOLOGIN")
            done = made.run("-v", f"prefix={made.prefix}")
            assert done.returncode == 3
            assert f"role {runtime} may not log in" in done.stderr
            made.database.execute(f"ALTER ROLE {runtime} LOGIN")
            made.apply()
        finally:
            made.database.execute(f"DROP ROLE {between}")


def test_a_table_in_a_schema_of_its_own(server: Server, psql: Path) -> None:
    """The service enters the schema of an attached table; until it may, the doctor says that, and sees all else."""
    with roles(server, psql) as made:
        execute = made.database.execute
        execute("CREATE SCHEMA yard; CREATE TABLE yard.bills (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY)")
        execute("SELECT attach_queue('yard.bills'::regclass)")
        found = {each.check: each for each in examined(made) if each.verdict not in ("ok", "warn")}
        assert list(found) == ["grants"], found
        assert "lacks USAGE on schema yard, SELECT on yard.bills, UPDATE on yard.bills" in found["grants"].seen
        made.apply()
        with made.connect("runtime") as conn:
            conn.execute("UPDATE yard.bills SET status = status")
        assert [each for each in examined(made) if each.verdict not in ("ok", "warn")] == []


#: What each role does in the installation's schema, and the service in that of an attached table.
ENTERED = {
    "runtime": "SELECT FROM shop.orders_inbox; UPDATE yard.bills SET status = status",
    "writer": "SELECT status FROM shop.orders_inbox",
    "reader": "SELECT FROM shop.polling_metrics",
}


def test_schemas_are_entered_by_grants_of_the_script(server: Server, psql: Path) -> None:
    """Not of public, which everybody enters: taken away, each role is refused, and the script gives it back."""
    with roles(server, psql, schema="shop") as made:
        execute = made.database.execute
        execute("CREATE SCHEMA yard; CREATE TABLE yard.bills (id bigint PRIMARY KEY); SET search_path = shop")
        execute("SELECT attach_queue('yard.bills'::regclass)")
        made.apply()
        for role, statements in ENTERED.items():
            for statement in statements.split("; "):
                schema = "yard" if "yard" in statement else "shop"
                with made.connect(role) as conn:
                    conn.execute(statement.encode())
                    execute(f"REVOKE USAGE ON SCHEMA {schema} FROM {made.name(role)}")
                    with pytest.raises(InsufficientPrivilege, match=f"permission denied for schema {schema}"):
                        conn.execute(statement.encode())
                    made.apply()
                    conn.execute(statement.encode())


def test_the_owner_attaches_a_table_of_somebody_else_as_a_member_of_that_role(server: Server, psql: Path) -> None:
    """For as long as it takes: the table stays his, and the service works on it."""
    with roles(server, psql, schema="shop") as made:
        execute, keeper, owner = made.database.execute, f"keeper_of_{made.prefix}", made.name("owner")
        execute(f"CREATE ROLE {keeper} LOGIN; CREATE SCHEMA yard AUTHORIZATION {keeper}; SET search_path = shop")
        try:
            execute(f"CREATE TABLE yard.bills (id bigint PRIMARY KEY); ALTER TABLE yard.bills OWNER TO {keeper}")
            with pytest.raises(DatabaseError, match=f"only its owner can change table yard.bills, which is {keeper}"):
                attach(made.url("owner"), "shop", Wish(table="yard.bills"))
            execute(f"GRANT {keeper} TO {owner}")
            attach(made.url("owner"), "shop", Wish(table="yard.bills"))
            execute(f"REVOKE {keeper} FROM {owner}")
            made.apply()
            assert execute("SELECT tableowner FROM pg_tables WHERE tablename = 'bills'") == [(keeper,)]
            with psycopg.connect(as_role(made.database.url, keeper), autocommit=True) as conn:
                conn.execute("INSERT INTO yard.bills (id) VALUES (1)")
            with made.connect("runtime") as conn:
                assert conn.execute("UPDATE yard.bills SET status = 'Done'").rowcount == 1
            execute(f"GRANT {keeper} TO {owner}")
            detach(made.url("owner"), "shop", "yard.bills")
        finally:
            execute(f"DROP OWNED BY {keeper}; DROP ROLE {keeper}")


def test_who_is_in_the_way_is_named_without_a_look_at_others(made: Roles) -> None:
    """What another role's session does, and since when, is left out; nothing is left dangling."""
    execute = made.database.execute
    execute("INSERT INTO orders_inbox (source, order_number) VALUES ('shop', 'locked')")
    with made.connect("runtime") as conn, made.database.connect(autocommit=False) as holder:
        place = holder.execute("SELECT ctid FROM orders_inbox WHERE order_number = 'locked' FOR UPDATE").fetchone()
        assert place is not None
        pid = holder.info.backend_pid
        [found] = conn.execute(query("imports", "lock_holder"), {"place": place[0]}).fetchall()
        assert found == ("locked", f"session {pid} (postgres listener tests)")
        holder.execute("UPDATE configuration_params SET param_value = '9' WHERE param_key = 'max_attempts'")
        with pytest.raises(LockNotAvailable) as refused:
            conn.execute("SELECT listener_configuration_lock('configuration_params'::regclass, 50)")
        told = str(refused.value.diag.message_primary)
        assert told.endswith(f" is still open: pid {pid}, user postgres, listener tests")
        assert refused.value.diag.message_hint == f"Commit it, or end it with SELECT pg_terminate_backend({pid})."
        holder.rollback()
    execute("DELETE FROM orders_inbox WHERE order_number = 'locked'")


def test_functions_that_not_everybody_may_call(server: Server, psql: Path) -> None:
    """As hardened databases have it: EXECUTE is taken from PUBLIC for every new function."""
    with fresh_database(server) as database:
        made = Roles(database, f"of_{database.name}", "public", psql)
        try:
            made.apply()
            database.execute(
                f"ALTER DEFAULT PRIVILEGES FOR ROLE {made.name('owner')} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC"
            )
            migrate(made.url("owner"), "public")
            made.apply()
            with made.connect("runtime") as conn:
                conn.execute("SELECT config_set('upload_batch_size', '5')")
                assert conn.execute("SELECT count(*) > 0 FROM listener_privileges()").fetchone() == (True,)
            with made.connect("writer") as conn:
                conn.execute("INSERT INTO orders_inbox (source, order_number, payload) VALUES ('shop', 'f1', '{}')")
            database.execute(f"REVOKE EXECUTE ON FUNCTION config_set FROM {made.name('runtime')}")
            [finding] = [each for each in examined(made) if each.check == "grants"]
            assert f"{made.name('runtime')} lacks EXECUTE on config_set" in finding.seen
            [cure] = [each for each in finding.advice.split(": ", 1)[1].split("; ") if each.startswith("GRANT")]
            database.execute(cure)
            assert [each.verdict for each in examined(made) if each.check == "grants"] == ["ok"]
        finally:
            for role in ROLES:
                database.execute(f"DROP OWNED BY {made.name(role)} CASCADE; DROP ROLE {made.name(role)}")


def test_the_doctor_sees_every_sequence(made: Roles) -> None:
    """As the runtime role: a sequence that is behind refuses the next INSERT."""
    made.database.execute("INSERT INTO sync_runs (id, connector, account) VALUES (77, 'shipstation', 'x')")
    [finding] = [each for each in examined(made) if each.check == "sequences"]
    assert finding.verdict == "fail"
    assert finding.seen.startswith("sync_runs.id goes up to 77, its sequence only to ")
    made.database.execute(finding.advice.partition("as the owner: ")[2])
    [finding] = [each for each in examined(made) if each.check == "sequences"]
    assert (finding.verdict, finding.seen.partition("; ")[2]) == ("ok", "")
    made.database.execute("DELETE FROM sync_runs")


def examined(made: Roles) -> list[Finding]:
    environ = {"DATABASE_URL": made.url("runtime"), "LISTENER_QUEUES": "import", "LISTENER_SCHEMA": made.schema}
    return anyio.run(examine, load_environment(environ, None)).findings


def _quoted(name: str) -> str:
    return name if name == "*" else f'"{name}"'
