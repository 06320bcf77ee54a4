"""What the tests of `deploy/` share: its files, and programs that may not be installed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))


def program(name: str, package: str) -> str:
    """The path of a program; the test is skipped where it is missing. package: Debian's name of what has it."""
    return shutil.which(name) or pytest.skip(f"no {name} on the PATH: apt-get install {package}")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, **options)


def rules() -> list[dict[str, Any]]:
    """Every recording and alert rule."""
    files = [yaml.safe_load(path.read_text()) for path in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def runbook_anchors() -> set[str]:
    """The sections of deploy/README.md, as links name them."""
    lines = (DEPLOY / "README.md").read_text().splitlines()
    return {line.lstrip("#").strip().lower().replace(" ", "-") for line in lines if line.startswith("#")}


def documents(text: str) -> Iterator[dict[str, Any]]:
    """The YAML documents of a text, without empty ones."""
    yield from (document for document in yaml.safe_load_all(text) if document)
