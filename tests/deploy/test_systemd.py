"""The systemd unit: valid, confined, and in step with the service's own limits."""

import configparser
import re
import shlex
from pathlib import Path

import pytest

from deploy.tools import DEPLOY, program, run
from listener.config.environment import Environment, load_environment

UNIT = DEPLOY / "systemd" / "order-listener.service"
GENERATOR = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")
#: systemd's rating, in tenths: 0 is confined, 10 is not. A new option may not make it worse.
MOST_EXPOSURE = 1.2


def service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser["Service"]


def test_it_is_ready_and_alive_by_its_own_word() -> None:
    unit = service()
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == ("notify", "main", "always")
    assert 10 <= int(unit["WatchdogSec"]) <= 60
    assert unit["RestartPreventExitStatus"] == "2"


def test_it_waits_longer_than_the_service_takes_to_stop() -> None:
    default = Environment.model_fields["shutdown_timeout_s"].default
    assert int(service()["TimeoutStopSec"]) >= default + 5 + 5


def test_the_environment_template_is_valid() -> None:
    """Also with every line that is commented out; no name that the service would refuse."""
    text = (UNIT.parent / "environment.example").read_text()
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE)
    values = {name: value for name, value in lines if name != "IMPORT_FOLDER"}
    assert len(lines) >= 8
    environment = load_environment(values, env_file=None)
    assert environment.http == "127.0.0.1:8080"
    # the role of deploy/roles.sql that the service comes as, at both addresses
    for url in (environment.database_url, environment.direct_url):
        assert url.get_secret_value().startswith("postgresql://listener_runtime:")


def quoted(value: str) -> str:
    """As the template says."""
    if "'" not in value:
        return f"'{value}'"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


#: What passwords and secrets are made of. Without $: systemd reads environment.d, which this goes by, with $variables.
VALUES = [
    "plain",
    "two words",
    " edges ",
    "a#b",
    "#all",
    'say "x"',
    "it's",
    'it\'s "x" \\ y',
    "back\\slash",
    "50%",
    "%40%n%%",
    "a;b",
    "ä=ü",
    "!~*",
]


def test_values_reach_the_service_as_the_template_says(tmp_path: Path) -> None:
    """Read by systemd's own reader of such files."""
    if not GENERATOR.exists():
        pytest.skip(f"no {GENERATOR}: apt-get install systemd")
    folder = tmp_path / "environment.d"
    folder.mkdir()
    lines = [f"VALUE_{number}={quoted(value)}" for number, value in enumerate(VALUES)]
    template = (UNIT.parent / "environment.example").read_text()
    (folder / "a.conf").write_text("\n".join([template, *lines, "BARE=a\\b#c %40"]))
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    done = run(GENERATOR, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    found = dict(pair.split("=", 1) for line in done.stdout.splitlines() for pair in shlex.split(line))
    assert [found[f"VALUE_{number}"] for number in range(len(VALUES))] == VALUES
    assert found["BARE"] == "ab#c %40", "a bare backslash vanishes, # and % do not"
    assert found["LISTENER_HTTP"] == "127.0.0.1:8080", "the template itself is read"


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """With the program where it is here: that it stands in /opt is the installation's affair."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/order-listener/bin/listener", "/bin/true"))
    done = run(program("systemd-analyze", "systemd"), "verify", "--man=no", copy)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_rates_it_as_confined() -> None:
    done = run(program("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", UNIT)
    if "offline" in done.stderr:
        pytest.skip(f"this systemd rates no files: {done.stderr.strip()}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSURE
