"""The README says what is true: its tables come from the code, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from docs.generate import ENVIRONMENT, README, generated
from listener.cli.commands import HOMES


@pytest.mark.parametrize("page", [README, ENVIRONMENT], ids=lambda page: page.name)
def test_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text()
    assert text == generated(text), "run `python tests/docs/generate.py`"


def test_every_command_it_names_exists() -> None:
    known = set(HOMES)
    named = set(re.findall(r"(?:^|[`/ ])(?<!from )listener ([a-z]+)(?=[ `\n])", README.read_text(), flags=re.MULTILINE))
    assert named - known <= {"core"}, named - known
    assert known <= named, f"not in the README: {known - named}"


def test_relative_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert all((README.parent / link).exists() for link in links), links


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 400
