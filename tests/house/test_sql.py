"""SQL lives in sql/: every named query is used and runs on the migrated schema, and no Python file holds any."""

import ast
import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Database
from psycopg import sql
from queues import engine_connection

from listener.db.files import sql_dir
from listener.db.queries import load
from listener.db.queue import _fields
from listener.workflows.queues import UPLOAD

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "listener").rglob("*.py"))
QUERIES = [(path.stem, name) for path in sorted((sql_dir() / "queries").glob("*.sql")) for name in load(path.stem)]

#: Python files that hold SQL, and why.
WITH_SQL = {"db/session.py": "LISTEN takes no parameter: the channel's name is composed"}
#: Queries that the server does not prepare, and why.
UNPREPARED = {
    "result_column": "a part of settle, prepared with it",
    **dict.fromkeys(("prepare_merge", "copy_orders", "clear_orders"), "a command on the merge's own table"),
    **dict.fromkeys(("unblocked", "same_key"), "a part of the claim of a queue with a concurrency key"),
    **dict.fromkeys(("create_database", "drop_database"), "a command, run by listener.testing"),
    **dict.fromkeys(
        ("create_schema", "script_head", "create_books", "drop_index"), "a command, run by `listener migrate`"
    ),
    **dict.fromkeys(("all_priorities", "known_priorities"), "a part of claim"),
    **dict.fromkeys(("is_stranded", "nth_stale_s", "has_bell"), "a part of survey, prepared with it"),
    "survey_all": "made of the surveys of all queues, which tests/engine runs",
    "number_again": "a cure, for a person to run",
    "limit_locks": "a command, run by `listener attach`",
}
#: Values for the fields of templates, where they are not a queue's.
FIELDS: dict[str, sql.Composable] = {
    "schema": sql.Identifier("public"),
    "table": sql.Identifier("configuration_params"),
    **{name: sql.Literal("x") for name in ("name", "kind", "checksum", "key", "value", "order_number")},
    "payload": sql.Literal("{}"),
    "number": sql.Literal(1),
}
STATEMENT = re.compile(
    r"^\s*(SELECT\s|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|WITH\s+\w+\s+AS|CREATE\s+(TABLE|INDEX|SCHEMA|OR)|ALTER\s|DROP\s"
    r"|LISTEN\s|NOTIFY\s|SET\s+\w+\s*=|TRUNCATE|LOCK\s|VACUUM|ANALYZE|COPY\s+\S+\s|(BEGIN|COMMIT)\s*;)",
    re.IGNORECASE,
)


def sql_strings(module: Path) -> list[str]:
    """Texts of the module that begin like a statement; docstrings are none."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
    ]
    return [node.value for node in texts if STATEMENT.match(node.value) and len(node.value.split()) > 1]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_holds_no_sql(module: Path) -> None:
    name = str(module.relative_to(ROOT / "listener"))
    found = sql_strings(module)
    assert bool(found) == (name in WITH_SQL), found


def test_every_named_query_is_used() -> None:
    """By `query`, `template`, or a gateway's own shorthand: its name stands in a Python file of db/ as a text."""
    texts: set[str] = set()
    for module in (ROOT / "listener" / "db").glob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        texts |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    assert [(file, name) for file, name in QUERIES if name not in texts] == []
    assert {file for file, _ in QUERIES} <= texts


@pytest.mark.parametrize(("file", "name"), QUERIES)
def test_every_named_query_is_prepared_on_the_migrated_schema(database: Database, file: str, name: str) -> None:
    """Tables, columns, functions and types exist; the server finds a type for each parameter."""
    if name in UNPREPARED:
        pytest.skip(UNPREPARED[name])
    is_of_a_queue = file == "queue" or name == "stuck"
    fields = {**FIELDS, **_fields(UPLOAD, "bigint"), "key_name": sql.Literal("id")} if is_of_a_queue else FIELDS
    text = sql.SQL(load(file)[name]).format(**fields).as_string(None)
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, parameter in enumerate(names, start=1):
        text = text.replace(f"%({parameter})s", f"${number}")
    conn: Any = engine_connection(database)
    if file == "imports":
        conn.execute("BEGIN")
        conn.execute(load("imports")["prepare_merge"])

    conn.execute(f"PREPARE named AS {text.replace('%%', '%')}".encode())

    (row,) = conn.execute("SELECT parameter_types::text[] AS types FROM pg_prepared_statements WHERE name = 'named'")
    assert len(row["types"]) == len(names)


STYLES = {"datestyle": "ISO", "intervalstyle": "postgres", "quote_all_identifiers": "off"}


def test_who_sets_a_connection_up_says_how_values_are_written() -> None:
    """Whatever a role or a database presets: the driver reads one style, and the doctor compares definitions."""
    makers = [(file, name) for file, name in QUERIES if "set_config('search_path'" in load(file)[name]]
    assert len(makers) == 6
    silent = [
        (*maker, style)
        for maker, style in itertools.product(makers, STYLES.items())
        if f"set_config('{style[0]}', '{style[1]}', " not in load(maker[0])[maker[1]]
    ]
    assert silent == []


def test_a_query_is_named_once_in_its_file() -> None:
    assert len(QUERIES) == len(set(QUERIES)) > 20


def test_tests_do_not_sleep() -> None:
    """They wait for a condition; only measurements may spend time."""
    pattern = re.compile(r"(?<!pg_)\bsleep\(")
    guilty = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if "bench" not in path.parts and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert guilty == []
