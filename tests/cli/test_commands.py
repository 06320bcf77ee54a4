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


@pytest.mark.parametrize("name", ["config", "migrate", "status", "retry", "rescue", "attach", "detach"])
def test_what_only_asks_the_database_loads_no_service(name: str) -> None:
    loaded = loaded_by(name)
    assert "listener.cli.commands" in loaded
    assert not {"starlette", "httpx2", "uvicorn", "listener.app"} & loaded


def test_the_service_loads_nothing_that_it_may_never_need() -> None:
    """A tenth of a second and 20 MiB, in each replica: what draws on terminals, and what signs for Google."""
    loaded = loaded_by("run")
    assert {"listener.app", "structlog.dev"} <= loaded
    assert not {"rich.console", "pygments", "google.auth", "cryptography", "fastapi"} & loaded


def loaded_by(command: str) -> set[str]:
    """The modules that the command line has loaded when it knows the command's options."""
    code = f"""
import atexit, sys
sys.argv = ["listener", {command!r}, "--help"]
atexit.register(lambda: print("loaded:", *(name for name, module in sys.modules.items() if module is not None)))
from listener.cli import main
main()
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(told.rpartition("loaded:")[2].split())
