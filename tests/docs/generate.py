"""Makes from the code what stands elsewhere too: the tables of README and docs, and the rules of the live configuration
that the database enforces. `python tests/docs/generate.py` writes them, the tests compare them."""

import json
import re
from pathlib import Path

from listener.config.environment import Environment
from listener.config.live import ALIASES, KEYS
from listener.db.files import sql_dir
from listener.obs.metrics import Metrics

README = Path(__file__).parents[2] / "README.md"
ENVIRONMENT = README.parent / "docs" / "environment.md"
RULES = sql_dir() / "functions" / "listener_configuration_rules.sql"
_RULES_FUNCTION = """-- What each key of configuration_params takes: spelling in lower case → rule.
-- Never edited: made from LiveConfig (listener/config/live.py) by `python tests/docs/generate.py`.
CREATE OR REPLACE FUNCTION listener_configuration_rules() RETURNS jsonb
LANGUAGE sql IMMUTABLE
AS $$ SELECT '{{
{rules}
}}'::jsonb $$;
"""


def environment() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    # the class of the imports' settings is a base, whose fields come first
    fields = {**dict.fromkeys(Environment.__annotations__), **Environment.model_fields}
    for field in filter(None, (Environment.model_fields.get(name) for name in fields)):
        default = "required" if field.is_required() else "" if field.default_factory else field.default
        rows.append(f"| `{field.alias}` | {_shown(default)} | {field.description} |")
    return "\n".join(rows)


def live() -> str:
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in KEYS.values():
        allowed = "true, false" if key.kind == "boolean" else key.expected
        rows.append(f"| `{key.name}` | {key.default} | {allowed} | {key.description} |")
    return "\n".join(rows)


def metrics() -> str:
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for family in Metrics(["upload"]).registry.collect():
        if not family.name.startswith("listener_"):
            continue
        suffix = "_total" if family.type == "counter" else ""
        rows.append(f"| `{family.name}{suffix}` | {family.type} | {family.documentation} |")
    return "\n".join(rows)


def rules() -> str:
    """Return the file of the rules' function."""
    spellings = {**{name: name for name in KEYS}, **ALIASES}
    lines = []
    for spelling, name in spellings.items():
        key = KEYS[name]
        rule = {"field": name, "key": key.name, "kind": key.kind, "expected": key.expected, "default": key.default}
        limits = {"minimum": key.minimum, "maximum": key.maximum} if key.kind == "integer" else {"words": key.words}
        lines.append(f"{json.dumps(spelling)}: {json.dumps(rule | limits)}")
    return _RULES_FUNCTION.format(rules=",\n".join(lines).replace("'", "''"))


TABLES = {"environment": environment, "live": live, "metrics": metrics}


def generated(text: str) -> str:
    """Return a page with fresh tables."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, m=make, b=begin, e=end: f"{b}\n{m()}\n{e}", text, flags=re.DOTALL)
    return text


def _shown(value: object) -> str:
    return "" if value is None else str(value)


if __name__ == "__main__":
    for page in (README, ENVIRONMENT):
        page.write_text(generated(page.read_text()))
    RULES.write_text(rules())
