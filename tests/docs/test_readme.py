"""The README says what is true: its tables come from the code, its commands exist, its links lead somewhere."""

import re

from typer.main import get_command

from docs.generate import README, generated
from listener.cli.commands import cli


def test_tables_are_those_of_the_code() -> None:
    text = README.read_text()
    assert text == generated(text), "run `python tests/docs/generate.py`"


def test_every_command_it_names_exists() -> None:
    known = set(get_command(cli).commands)
    named = set(re.findall(r"(?:^|[`/ ])(?<!from )listener ([a-z]+)(?=[ `\n])", README.read_text(), flags=re.MULTILINE))
    assert named - known <= {"core"}, named - known
    assert known <= named, f"not in the README: {known - named}"


def test_relative_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert all((README.parent / link).exists() for link in links), links


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 400
