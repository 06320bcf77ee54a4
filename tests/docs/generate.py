"""Makes the README's tables from the code: `python tests/docs/generate.py` writes them, the test compares them."""

import re
from pathlib import Path

from listener.config.environment import Environment
from listener.config.live import KEYS
from listener.obs.metrics import Metrics

#: Keys that change what the service does today; the rest belong to workflows that are still to come.
IN_FORCE = {
    "fast_polling_enabled",
    "ENABLE_FAST_UPLOAD_POLLING",
    "fast_polling_interval",
    "upload_enabled",
    "upload_batch_size",
    "upload_concurrency",
    "max_attempts",
    "operation_timeout",
    "max_concurrent_operations",
}
README = Path(__file__).parents[2] / "README.md"


def environment() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for field in Environment.model_fields.values():
        default = "required" if field.is_required() else "" if field.default_factory else field.default
        rows.append(f"| `{field.alias}` | {_shown(default)} | {field.description} |")
    return "\n".join(rows)


def live() -> str:
    rows = ["| key | default | allowed | meaning |", "|---|---|---|---|"]
    for key in KEYS.values():
        if key.name in IN_FORCE:
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


TABLES = {"environment": environment, "live": live, "metrics": metrics}


def generated(text: str) -> str:
    """Return the README with fresh tables."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        text = re.sub(f"{begin}.*?{end}", lambda _, m=make, b=begin, e=end: f"{b}\n{m()}\n{e}", text, flags=re.DOTALL)
    return text


def _shown(value: object) -> str:
    return "" if value is None else str(value)


if __name__ == "__main__":
    README.write_text(generated(README.read_text()))
