"""The doctor on who owns the schema, and on what the roles of deploy/roles.sql have besides their grants."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Server
from login import RuntimeLogin

from cli.ward import SCHEMA, Ward, ward

pytestmark = pytest.mark.own_role("the doctor judges the role it is given: the runtime role of its own installation")

PREFIX = f"family_{os.getpid()}"


@pytest.fixture(scope="module")
def family(server: Server, psql: Path) -> Iterator[Ward]:
    """An installation with a role for each purpose, which the doctor visits as the runtime role."""
    login = RuntimeLogin(psql=psql, prefix=PREFIX, monitor=True)
    with ward(server, login) as here:
        yield here
        assert here.trouble() == {}, "a test has left something broken"
    server.execute(f"DROP ROLE IF EXISTS {PREFIX}_between")
    server.execute(f"DROP ROLE {', '.join(f'{PREFIX}_{role}' for role in ('owner', 'runtime', 'writer', 'reader'))}")


def cures(advice: str) -> str:
    return advice.removeprefix("as an administrator: ").partition("; or run deploy/roles.sql")[0]


def test_a_superuser_has_nothing_to_compare(patient: Ward) -> None:
    (found,) = [each for each in patient.examine(DATABASE_URL=patient.database.url).findings if each.check == "roles"]
    assert found.verdict == "ok"
    assert "is a superuser: no roles to compare" in found.seen


def test_a_table_and_a_function_of_somebody_else(family: Ward) -> None:
    """As after a restore by another role: a migration may not change them, and the function runs as that role."""
    execute = family.database.execute
    execute(f"CREATE ROLE {PREFIX}_other")
    execute(f"ALTER TABLE api_budgets OWNER TO {PREFIX}_other")
    execute(f"ALTER FUNCTION config_restore(timestamptz) OWNER TO {PREFIX}_other")
    found = family.only("owners")
    assert found.verdict == "fail"
    named = f"function config_restore ({PREFIX}_other), table api_budgets ({PREFIX}_other): the next `listener migrate`"
    assert f"most of the schema belongs to {PREFIX}_owner, but not {named}" in found.seen

    execute(f"GRANT {PREFIX}_other TO {PREFIX}_owner")
    assert family.trouble() == {}, "who is in that role may do all that it may"
    execute(f"REVOKE {PREFIX}_other FROM {PREFIX}_owner")
    family.cured_by(cures(found.advice))
    execute(f"DROP ROLE {PREFIX}_other")


def test_the_owner_may_make_nothing_in_the_schema(family: Ward) -> None:
    family.database.execute(f'ALTER SCHEMA "{SCHEMA}" OWNER TO pg_database_owner')
    family.database.execute(f'REVOKE CREATE ON SCHEMA "{SCHEMA}" FROM {PREFIX}_owner')
    found = family.only("owners")
    assert found.verdict == "fail"
    assert f"{PREFIX}_owner, whose tables these are, may make none in schema {SCHEMA}" in found.seen
    family.cured_by(cures(found.advice))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("GRANT pg_read_all_data TO {0}_runtime", "role {0}_runtime is a member of pg_read_all_data,"),
        ("GRANT {0}_owner TO {0}_runtime", "role {0}_runtime is a member of {0}_owner,"),
        ("CREATE ROLE {0}_between; GRANT pg_write_all_data TO {0}_between; GRANT {0}_between TO {0}_writer",
         "role {0}_writer is a member of pg_write_all_data,"),
        ("GRANT {0}_runtime TO {0}_reader", "role {0}_reader is a member of {0}_runtime,"),
        ("ALTER ROLE {0}_owner BYPASSRLS", "role {0}_owner is BYPASSRLS,"),
        ("ALTER ROLE {0}_writer NOLOGIN", "role {0}_writer may not log in"),
    ],
)  # fmt: skip
def test_a_role_has_more_than_it_may_have(family: Ward, given: str, said: str) -> None:
    """What deploy/roles.sql refuses."""
    family.database.execute(given.format(PREFIX))
    found = family.trouble()["roles"]
    for each in found:
        family.paste(cures(each.advice))
    assert found[0].seen.startswith(said.format(PREFIX))
    assert found[0].verdict == ("fail" if "NOLOGIN" in given else "warn")
    assert family.trouble() == {}


def test_a_role_at_the_pools_address_is_judged_where_the_session_is_a_superusers(family: Ward) -> None:
    family.database.execute(f"GRANT pg_read_all_data TO {PREFIX}_runtime")
    (found,) = family.trouble(LISTENER_DIRECT_URL=family.database.url)["roles"]
    family.paste(cures(found.advice))
    assert found.seen.startswith(f"role {PREFIX}_runtime is a member of pg_read_all_data,")
    roles = [each for each in family.examine(LISTENER_DIRECT_URL=family.database.url).findings if each.check == "roles"]
    assert [each.verdict for each in roles] == ["ok"]
    assert "is a superuser: no roles to compare" in roles[0].seen
    assert f"{PREFIX}_runtime is in no role that may more" in roles[0].seen


def test_a_role_that_may_have_one_connection(family: Ward) -> None:
    """The session finds no room; the check that says why is made all the same."""
    family.database.execute(f"ALTER ROLE {PREFIX}_runtime CONNECTION LIMIT 1")
    found = family.trouble()
    family.database.execute(f"ALTER ROLE {PREFIX}_runtime CONNECTION LIMIT -1")
    assert {name: each[0].verdict for name, each in found.items()} == {"pooler": "unknown", "connections": "fail"}
    assert "the role allows 1 connections" in found["connections"][0].seen
