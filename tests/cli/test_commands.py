"""A command is built from its own module alone, and that changes nothing but the time it takes."""

import subprocess
import sys

import pytest
from typer.main import get_command

from listener.cli.commands import HOMES, build


def test_every_command_has_its_home() -> None:
    assert set(get_command(build(None)).commands) == set(HOMES)


@pytest.mark.parametrize("name", HOMES)
def test_a_command_is_in_its_home(name: str) -> None:
    assert name in get_command(build(name)).commands


@pytest.mark.parametrize("name", ["config", "migrate", "status", "retry", "attach", "detach"])
def test_what_only_asks_the_database_loads_no_service(name: str) -> None:
    code = f"import sys; from listener.cli.commands import build; build({name!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "listener.cli.commands" in loaded
    assert not {"fastapi", "httpx2", "uvicorn", "listener.app"} & set(loaded)
