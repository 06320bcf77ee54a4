"""`listener attach` and `listener detach` as a person and a script use them: as the owner of schema and table."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Database
from login import as_role

from e2e.service import Services

DONE, FAILED, WRONG_USAGE = 0, 1, 2
INVOICES = "CREATE TABLE invoices (id bigserial PRIMARY KEY, amount numeric); INSERT INTO invoices DEFAULT VALUES"


def columns(database: Database) -> int:
    own = "attrelid = 'invoices'::regclass AND attnum > 0 AND NOT attisdropped"
    return int(database.execute(f"SELECT count(*) FROM pg_attribute WHERE {own}")[0][0])


def said(done: subprocess.CompletedProcess[str], code: int = DONE) -> list[str]:
    assert (done.returncode, done.stderr if code == DONE else done.stdout) == (code, ""), done
    return (done.stderr if code else done.stdout).splitlines()


def test_attach_and_detach(listeners: Services, database: Database) -> None:
    """Each step is told; a second run has none; after detach the table is as it was."""
    database.execute_as_owner(INVOICES)
    words = ("--done", "Sent", "--ready", "status = 'paid'")
    steps = said(listeners.run("attach", "invoices", *words, "--content", "amount"))
    assert [line.partition(" ")[0] for line in steps].count("CREATE") == 4 + 3
    assert steps[-1] == "queue invoices: rows with status 'paid' are work, completed ones are 'Sent'"
    assert database.execute("SELECT status FROM invoices") == [("Existing",)]

    assert said(listeners.run("attach", "invoices")) == steps[-1:]
    assert said(listeners.run("attach", "invoices", "--no-content"))[0].startswith("INSERT INTO public.listener_queues")
    assert database.execute("SELECT content FROM listener_queues") == [([],)]

    assert said(listeners.run("detach", "invoices"))[-1] == "invoices is no queue any more"
    assert columns(database) == 2


def test_a_script_reads_json(listeners: Services, database: Database) -> None:
    database.execute(f'CREATE SCHEMA shop AUTHORIZATION "{database.owner}"')
    database.execute_as_owner("CREATE TABLE shop.invoices (id int PRIMARY KEY, status text)")
    plan = json.loads("".join(said(listeners.run("attach", "invoices", "--schema", "shop", "--json", "--dry-run"))))
    assert plan.items() >= {"queue": "shop.invoices", "table_schema": "shop", "table_name": "invoices"}.items()
    assert (plan["key_column"], plan["ready_word"], plan["done_word"], plan["content"]) == ("id", "Pending", "Done", [])
    assert [step["alone"] for step in plan["steps"]] == [False] * (len(plan["steps"]) - 4) + [True] * 3 + [False]
    assert plan["notes"][0].startswith("status of shop.invoices has no default")
    assert plan["notes"][1].startswith("status of shop.invoices becomes the queue's, and handlers do not see it: a row")
    assert database.execute("SELECT * FROM listener_queues") == []

    done = json.loads("".join(said(listeners.run("attach", "shop.invoices", "--json"))))
    assert done["steps"] == plan["steps"]
    assert json.loads("".join(said(listeners.run("detach", "shop.invoices", "--json"))))["steps"]
    assert database.execute("SELECT * FROM listener_queues") == []


def test_what_dry_run_prints_does_it(listeners: Services, database: Database, psql: Path, tmp_path: Path) -> None:
    """Pasted into psql, with any search path."""
    database.execute_as_owner(INVOICES)
    done = listeners.run("attach", "invoices", "--dry-run", "--done", "it's \\ sent")
    assert columns(database) == 2
    scripts: list[Callable[[], str]] = [
        lambda: done.stdout,
        lambda: listeners.run("detach", "invoices", "--dry-run").stdout,
    ]
    for script in scripts:
        path = "SET search_path = pg_catalog"
        run = [psql, "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-q", "-c", path, "-f", "-", database.owner_url]
        pasted = subprocess.run(run, input=script(), capture_output=True, text=True)
        assert (pasted.returncode, pasted.stderr) == (0, "")
        if columns(database) > 2:
            again = said(listeners.run("attach", "invoices", "--dry-run"))
            assert again == ["-- invoices is attached already: nothing to do"]
    assert columns(database) == 2
    assert database.execute("SELECT * FROM listener_queues") == []


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("attach", "invoces"), WRONG_USAGE, "there is no table invoces in schema public of "),
        (
            ("attach", "invoices", "--ready", "paid"),
            WRONG_USAGE,
            "--ready 'paid': expected status = 'word', with one word in single",
        ),
        (
            ("attach", "invoices", "--ready", "status = 'a' OR true"),
            WRONG_USAGE,
            "--ready \"status = 'a' OR true\": expected",
        ),
        (
            ("attach", "invoices", "--key", "amount"),
            WRONG_USAGE,
            "column amount of invoices cannot be the key: it must be NOT NULL, ",
        ),
        (
            ("attach", "invoices", "--content", "amount", "--no-content"),
            WRONG_USAGE,
            "--content and --no-content exclude each other; give one",
        ),
        (
            ("attach", "orders_inbox"),
            WRONG_USAGE,
            'orders_inbox is one of the listener\'s own tables; it is the queue "upload" already',
        ),
        (("detach", "invoices"), WRONG_USAGE, "table invoices is not attached; attached are: busy"),
        (("detach", "nosuch"), WRONG_USAGE, "; attached are: busy"),
        (("detach", "busy"), FAILED, "listener: 1 rows of busy are being worked on; stop the listeners of this queue"),
    ],
)
def test_mistakes_are_told_in_one_line(
    listeners: Services, database: Database, arguments: tuple[str, ...], code: int, text: str
) -> None:
    database.execute_as_owner(INVOICES + "; CREATE TABLE busy (id int PRIMARY KEY); SELECT attach_queue('busy')")
    database.execute("INSERT INTO busy (id, status, claim_id) VALUES (1, 'Processing', 1)")
    (line,) = said(listeners.run(*arguments), code)
    assert text in line
    assert columns(database) == 2


def test_force_detaches_while_rows_are_worked_on(listeners: Services, database: Database) -> None:
    database.execute_as_owner("CREATE TABLE invoices (id int PRIMARY KEY); SELECT attach_queue('invoices')")
    database.execute("INSERT INTO invoices (id, status, claim_id) VALUES (1, 'Processing', 1)")
    said(listeners.run("detach", "invoices", "--force"))
    assert (columns(database), database.execute("SELECT id FROM invoices")) == (1, [(1,)])


def test_only_the_owner_may(listeners: Services, database: Database) -> None:
    role, owner = f"{database.name}_other", database.owner
    database.execute_as_owner(INVOICES)
    database.server.execute(f'CREATE ROLE "{role}" LOGIN'.encode())  # type: ignore[arg-type]
    try:
        database.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{role}"')
        url = as_role(database.url, role)
        (line,) = said(listeners.run("attach", "invoices", DATABASE_URL=url), FAILED)
        assert f"only its owner can change table invoices, which is {owner}, not {role}" in line
        assert columns(database) == 2
    finally:
        database.execute(f'DROP OWNED BY "{role}"')
        database.server.execute(f'DROP ROLE "{role}"'.encode())  # type: ignore[arg-type]
