"""The doctor on the server: addresses, release, clock, connections, and the way there."""

import time
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from conftest import Server, fresh_database, private_server
from e2e.proxy import Proxy
from e2e.test_pgbouncer import PROGRAM, running
from waiting import until

from cli.ward import SCHEMA, Ward
from listener.cli.doctor import examination
from listener.cli.doctor.examination import CHECKS, Examination, _unmade
from listener.cli.doctor.finding import Case, Finding, Verdict
from listener.cli.doctor.server import judge_version
from listener.core.errors import DatabaseError
from listener.db.migrate import migrate, status
from listener.db.trouble import explained

with_its_own_role = pytest.mark.own_role("the doctor comes as a role that the test has made, with other rights")


def test_a_healthy_database_is_told_so(patient: Ward) -> None:
    found = patient.examine()

    assert found.is_well
    assert {finding.verdict for finding in found.findings if finding.check != "listeners"} == {"ok"}
    assert found.statements < 40


def test_the_call_of_the_doctor_changes_nothing(patient: Ward) -> None:
    """Nothing but the account's own budget and a number out of a sequence."""
    counts = (
        "SELECT (SELECT count(*) FROM orders_inbox), (SELECT count(*) FROM sync_runs),"
        " (SELECT count(*) FROM configuration_history), (SELECT count(*) FROM polling_metrics)"
    )
    before = patient.database.execute(counts)
    patient.examine()

    assert patient.database.execute(counts) == before
    assert patient.api.held() == {}


@pytest.mark.parametrize(("verdict", "is_well"), [("ok", True), ("warn", True), ("fail", False), ("unknown", False)])
def test_what_could_not_be_looked_at_is_not_well(verdict: Verdict, is_well: bool) -> None:
    assert Examination([Finding("ok", ""), Finding(verdict, "")], 1, 0.1).is_well is is_well


def test_nobody_answers(patient: Ward) -> None:
    parts = urlsplit(patient.url)
    url = urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:9"))
    found = patient.examine(DATABASE_URL=url)

    first, *others = found.findings
    assert (first.check, first.verdict) == ("reachable", "fail")
    assert "nothing accepts connections at 127.0.0.1:9" in first.seen
    assert first.advice == "start PostgreSQL there, or correct DATABASE_URL"
    assert {(each.verdict, each.seen) for each in others} == {("unknown", "not made: no connection; see reachable")}
    assert not found.is_well


@pytest.mark.parametrize("text", ["H", "session is read-only: H"], ids=["strange", "known"])
def test_the_server_s_own_words_are_no_advice(text: str) -> None:
    """What the server said stays one sentence, and whole."""
    answer = psycopg.OperationalError(f"received invalid response to SSL negotiation: {text}")
    with pytest.raises(DatabaseError) as caught, explained("postgresql://me@h/shop"):
        raise answer
    found = _unmade("reachable", caught.value)
    if text == "H":
        assert (found.seen, found.advice) == (str(caught.value), "")
    else:
        assert found.seen == "the database at h/shop is read-only"
        assert found.advice.startswith("connect to the primary")


def test_the_pool_is_asked_for_as_well(patient: Ward) -> None:
    """The session's address answers, the pool's does not."""
    parts = urlsplit(patient.url)
    url = urlunsplit(parts._replace(path="/nowhere"))
    (first, *_) = patient.examine(DATABASE_URL=url, LISTENER_DIRECT_URL=patient.url).findings
    assert (first.check, first.verdict) == ("reachable", "fail")
    assert first.advice == "create it (createdb), or correct DATABASE_URL"


def test_two_addresses_of_two_databases(patient: Ward, server: Server) -> None:
    """What the service's start would call a pooler is told as it is, and by `listener run` too."""
    with fresh_database(server) as other:
        patient.login.install(other.url, SCHEMA)
        found = patient.trouble(DATABASE_URL=patient.login.url(other.url), LISTENER_DIRECT_URL=patient.url)
    assert list(found) == ["addresses", "pooler"]
    for check in found.values():
        assert [each.verdict for each in check] == ["fail"]
        assert f"lead to two databases ({other.name} on " in check[0].seen
        assert f" and {patient.database.name} on " in check[0].seen
        assert check[0].advice == "set both to the same database"


@with_its_own_role
def test_a_role_that_only_reads_is_told_once(patient: Ward) -> None:
    """Not each privilege that it lacks, and not each refusal."""
    role = f"reader_of_{patient.database.name}"
    patient.database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT pg_monitor TO {role}; GRANT USAGE ON SCHEMA "{SCHEMA}" TO {role};'
        f' GRANT SELECT ON ALL TABLES IN SCHEMA "{SCHEMA}" TO {role}'
    )
    try:
        parts = urlsplit(patient.database.url)
        found = patient.trouble(
            DATABASE_URL=urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        )
    finally:
        patient.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert {check: [each.verdict for each in several] for check, several in found.items()} == {
        "grants": ["fail"],
        **{check: ["unknown"] for check in ("sequences", "pooler", "work", "credentials")},
    }
    assert found["work"][0].seen == "not made: it takes a role that may write; see grants"


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("lock_timeout = '50ms'", "lock_timeout is 50 ms for {who}: an outcome that waits"),
        ("idle_session_timeout = '30s'", "idle_session_timeout is 30000 ms for {who}: idle connections"),
        ("row_security = off", "row_security is off for {who}: a statement on a table with a policy"),
        ("synchronous_commit = off", "synchronous_commit is off for {who}: an outcome"),
    ],
)
@pytest.mark.parametrize("scope", ["ROLE {role}", "DATABASE {name}", "ROLE {role} IN DATABASE {name}"])
def test_a_preset_setting_harms(patient: Ward, preset: str, said: str, scope: str) -> None:
    name, role = patient.database.name, patient.role
    patient.database.execute(f"ALTER {scope.format(name=name, role=role)} SET {preset}")
    found = patient.only("settings")
    who = scope.format(name=name, role=role).lower()
    assert found.verdict == "warn"
    assert found.seen.startswith(said.format(who=who))
    patient.cured_by(found.advice.removesuffix("; then restart the service"))


@pytest.mark.own_role("a server of the test's own has no other role than its administrator")
def test_the_server_s_own_setting_is_overruled(server_bin_dir: Path, patient: Ward) -> None:
    """It may stand in postgresql.conf, out of which ALTER SYSTEM RESET takes nothing."""
    with private_server(server_bin_dir) as cluster, closing(Server(cluster.url())) as server:
        with (cluster.data_dir / "postgresql.conf").open("a") as file:
            file.write("lock_timeout = 50\n")
        server.execute("SELECT pg_reload_conf()")
        with fresh_database(server) as database:
            migrate(database.url, SCHEMA)
            until(lambda: "settings" in patient.trouble(DATABASE_URL=database.url), what="the server's new setting")
            found = patient.only("settings", DATABASE_URL=database.url)
            database.execute(found.advice.partition(";")[0])
            assert patient.trouble(DATABASE_URL=database.url) == {}
    assert found.seen.startswith("lock_timeout is 50 ms for the server: ")


def test_an_option_of_the_address_harms(patient: Ward) -> None:
    found = patient.only("settings", DATABASE_URL=f"{patient.url}?options=-c%20lock_timeout%3D50")
    assert found.seen.startswith("lock_timeout is 50 ms for the address: ")
    assert found.advice == "take lock_timeout out of its options; then restart the service"


@pytest.mark.parametrize(
    "preset",
    ["statement_timeout = '1ms'", "idle_in_transaction_session_timeout = '1ms'", "search_path = pg_catalog",
     "default_transaction_isolation = 'serializable'", "datestyle = 'German'"
     "; ALTER DATABASE {name} SET intervalstyle = 'sql_standard'"
     "; ALTER DATABASE {name} SET quote_all_identifiers = on"],
)  # fmt: skip
def test_a_preset_that_we_override_is_no_trouble(patient: Ward, preset: str) -> None:
    """Each connection of ours sets its own: the whole examination runs under it, and so does a migration."""
    name = patient.database.name
    patient.database.execute(f"ALTER DATABASE {name} SET {preset.format(name=name)}")
    found = patient.trouble()
    files = status(patient.database.url, SCHEMA)
    patient.database.execute(f"ALTER DATABASE {name} RESET ALL")
    assert found == {}
    assert all(isinstance(file.applied_at, datetime) for file in files)


def test_a_check_that_breaks_takes_no_other_along(patient: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(_case: Case) -> list[Finding]:
        raise ZeroDivisionError("by nought")

    usual = patient.examine()
    monkeypatch.setattr(examination, "CHECKS", {**CHECKS, "sequences": breaks})
    found = patient.examine()
    assert found.findings[8].verdict == "unknown"
    assert found.findings[8].seen == "the check itself broke: ZeroDivisionError: by nought"
    assert [each.check for each in found.findings] == [each.check for each in usual.findings]
    assert not found.is_well


def test_a_database_that_is_preset_read_only(patient: Ward) -> None:
    name = patient.database.name
    patient.database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        first = patient.examine().findings[0]
    finally:
        patient.database.execute(
            f"SET default_transaction_read_only = off; ALTER DATABASE {name} RESET default_transaction_read_only"
        )
    assert (first.check, first.verdict) == ("reachable", "fail")
    assert "default_transaction_read_only is on for this role, this database or the whole server" in first.seen


def test_a_sequence_is_behind(patient: Ward) -> None:
    patient.database.execute("INSERT INTO sync_runs (id, account, status) VALUES (1000, 'loaded', 'Succeeded')")
    found = patient.only("sequences")
    assert found.verdict == "fail"
    assert "sync_runs.id goes up to 1000, its sequence only to " in found.seen
    patient.cured_by(found.advice.removeprefix("as the owner: "))
    assert patient.database.execute("INSERT INTO sync_runs (account) VALUES ('next') RETURNING id") == [(1001,)]
    patient.database.execute("DELETE FROM sync_runs")


@with_its_own_role
def test_two_addresses_with_two_roles(patient: Ward, server: Server) -> None:
    """The role of the pool has its own privileges, and those are what claims and settles need."""
    role, name = f"poor_of_{patient.database.name}", patient.role
    patient.database.execute(
        f'CREATE ROLE {role} LOGIN; GRANT pg_monitor TO {role}; GRANT USAGE ON SCHEMA "{SCHEMA}" TO {role}'
    )
    try:
        parts = urlsplit(patient.database.url)
        url = urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        found = patient.trouble(DATABASE_URL=url, LISTENER_DIRECT_URL=patient.url)
    finally:
        patient.database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert [each.verdict for each in found["addresses"]] == ["warn"]
    assert f"the pool comes as {role}, the session as {name}" in found["addresses"][0].seen
    assert [each.verdict for each in found["grants"]] == ["fail"]
    assert found["grants"][0].seen.startswith(f"{role} may change neither orders nor syncs")
    assert "run deploy/roles.sql" in found["grants"][0].advice


@pytest.mark.parametrize(
    ("number", "verdict", "advice"),
    [
        (140022, "fail", "upgrade to PostgreSQL 15 or later"),
        (150015, "warn", "https://www.postgresql.org/docs/release/15.16/"),
        (150016, "ok", ""),
        (170007, "warn", "update to 17.8 or later"),
        (180001, "warn", "update to 18.2 or later"),
        (180002, "ok", ""),
        (190000, "ok", ""),
    ],
)
def test_releases_with_faults_of_notify_are_known(number: int, verdict: str, advice: str) -> None:
    found = judge_version(number)
    assert found.verdict == verdict
    assert advice in found.advice


@pytest.mark.parametrize(("ahead_s", "verdict"), [(10.0, "warn"), (-300.0, "fail")])
def test_the_clocks_differ(patient: Ward, ahead_s: float, verdict: str) -> None:
    found = patient.only("clock", clock=lambda: time.time() + ahead_s)

    assert found.verdict == verdict
    assert f"differ by {abs(ahead_s):.1f} s" in found.seen
    assert "run a time service" in found.advice


def test_a_database_that_allows_too_few_connections(patient: Ward) -> None:
    patient.database.execute(f"ALTER DATABASE {patient.database.name} CONNECTION LIMIT 7")
    found = patient.only("connections")

    assert found.verdict == "fail"
    assert "the database allows 7 connections" in found.seen
    assert "lower LISTENER_POOL_MAX (4) or import_concurrency (2), or run fewer" in found.advice
    patient.cured_by(found.advice.partition("; ")[0])


def test_a_server_that_allows_too_few_for_all_processes(patient: Ward) -> None:
    found = patient.only("connections", replicas=30, LISTENER_POOL_MAX="10", LISTENER_POOL_MIN="2")
    assert "processes × connections, 30 × 14, need 420" in found.seen
    assert found.advice.startswith("raise max_connections; ")


def test_files_that_are_imported_take_connections_too(patient: Ward) -> None:
    change = "UPDATE configuration_params SET param_value = '{}' WHERE param_key = 'import_concurrency'"
    patient.database.execute(change.format(100))
    found = patient.only("connections", replicas=2)
    patient.database.execute(change.format(2))
    assert "processes × connections, 2 × 106, need 212" in found.seen
    assert "import_concurrency (100)" in found.advice


def test_a_role_that_may_have_too_few(patient: Ward) -> None:
    patient.database.execute(f"ALTER ROLE {patient.role} CONNECTION LIMIT 7")
    found = patient.only("connections")
    assert "the role allows 7 connections" in found.seen
    patient.cured_by(found.advice.partition("; ")[0])


def test_a_proxy_is_in_between(patient: Ward) -> None:
    with Proxy(patient.url) as proxy:
        found = patient.only("keepalives", DATABASE_URL=proxy.url)
        session = patient.only("keepalives", LISTENER_DIRECT_URL=proxy.url)
        assert patient.trouble(DATABASE_URL=proxy.url, LISTENER_DIRECT_URL=patient.url) == {}
    assert found.verdict == session.verdict == "warn"
    assert "the server sees 127.0.0.1:" in found.seen
    assert "LISTENER_DIRECT_URL" in found.advice


@pytest.mark.skipif(not PROGRAM.exists(), reason=f"no {PROGRAM}: apt-get install pgbouncer")
def test_a_transaction_pooler_in_place_of_the_session(patient: Ward, server: Server) -> None:
    with fresh_database(server) as copy, running(copy) as bouncer:
        copy.install(SCHEMA)
        found = patient.trouble(DATABASE_URL=bouncer.url)["pooler"]
        through = patient.trouble(DATABASE_URL=bouncer.url, LISTENER_DIRECT_URL=copy.service_url)

    assert [each.verdict for each in found] == ["fail"]
    assert found[0].advice == "set LISTENER_DIRECT_URL to an address that is not a transaction pooler"
    assert "pooler" not in through
