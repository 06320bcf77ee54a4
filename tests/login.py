"""Who the service under test is in the database: the tests' own administrator or, with ``--as-runtime-role``, the
runtime role of deploy/roles.sql.

With the option the owner role migrates, and the service, the library and the commands beside them connect as the
runtime role, while the tests prepare and look as the administrator.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from listener.db.migrate import migrate

SCRIPT = Path(__file__).parents[1] / "deploy" / "roles.sql"
ROLES = ("owner", "runtime", "writer", "reader")
#: What the product calls its connections, those of the owner's commands (`listener migrate`, `listener attach`) apart.
CONNECTED = re.compile(r"connection authorized: user=(\S+) database=(\S+) application_name=(order-listener.*)")


def as_role(url: str, role: str) -> str:
    """The same address for another role, with the same password if there is one."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    password = login.partition(":")[1:]
    return urlunsplit(parts._replace(netloc=f"{quote(role)}{''.join(password)}@{host}"))


def run_script(
    psql: Path, url: str, *arguments: str, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run deploy/roles.sql as who the address says."""
    return subprocess.run(
        [str(psql), "--no-psqlrc", "--quiet", url, *arguments, "-f", str(SCRIPT)],
        env=environ or {},
        capture_output=True,
        text=True,
        timeout=60,
    )


@dataclass
class Login:
    """The tests' administrator, in all it is asked for; `RuntimeLogin` is the other."""

    #: What a server that is started for the tests needs besides.
    settings: Mapping[str, str] = field(default_factory=dict)

    def url(self, url: str) -> str:
        """The address that the service is given for the database that *url* is the administrator's address of."""
        return url

    def owner_url(self, url: str) -> str:
        """The address that `listener migrate`, `listener attach` and `listener detach` are given for that database."""
        return url

    def install(self, url: str, schema: str = "public") -> None:
        """Migrate, and let the service in."""
        migrate(url, schema)

    def grant(self, url: str, schema: str = "public") -> None:
        """Let the service at what was made or attached since; `listener attach` asks an administrator to."""

    def watch(self, log: Path) -> None:
        """From now on see who connects to the server that writes this log."""

    @property
    def watches(self) -> bool:
        """Whether there is a log to see it in."""
        return False

    def look(self) -> None:
        """Read the logs; `strangers` does, and whoever is about to delete one."""

    def strangers(self) -> list[str]:
        """Connections of the product as anybody else than it should be, since the last call."""
        return []

    def apart(self) -> "Login":
        """The same with roles of its own, which may see the sessions of others."""
        return self

    def drop(self, admin: psycopg.Connection) -> None:
        """Drop the roles, which nothing may need any more."""


@dataclass
class RuntimeLogin(Login):
    """The runtime role. prefix: of the role names, another one for each worker: roles belong to the whole server.

    monitor: may see the sessions of other roles, which `listener doctor` is better with.
    """

    psql: Path = Path("psql")
    prefix: str = f"listener_test_{os.getpid()}"
    monitor: bool = False
    settings: Mapping[str, str] = field(default_factory=lambda: {"log_connections": "on"})
    _read: dict[Path, int] = field(default_factory=dict)
    _found: list[str] = field(default_factory=list)

    def url(self, url: str) -> str:
        return as_role(url, f"{self.prefix}_runtime")

    def owner_url(self, url: str) -> str:
        return as_role(url, f"{self.prefix}_owner")

    def install(self, url: str, schema: str = "public") -> None:
        self.grant(url, schema)
        migrate(self.owner_url(url), schema)
        self.grant(url, schema)

    def grant(self, url: str, schema: str = "public") -> None:
        monitor = ["-v", "monitor=on"] if self.monitor else []
        done = run_script(self.psql, url, "-v", f"prefix={self.prefix}", "-v", f"schema={schema}", *monitor)
        assert done.returncode == 0, done.stderr
        password = urlsplit(url).password
        with psycopg.connect(url, autocommit=True, application_name="listener tests") as conn:
            for role in ("owner", "runtime") if password else ():
                text = sql.SQL("ALTER ROLE {} PASSWORD {}")
                conn.execute(text.format(sql.Identifier(f"{self.prefix}_{role}"), sql.Literal(password)))

    def watch(self, log: Path) -> None:
        self._read[log] = log.stat().st_size

    @property
    def watches(self) -> bool:
        return bool(self._read)

    def look(self) -> None:
        for log, start in list(self._read.items()):
            if not log.exists():
                del self._read[log]
                continue
            with log.open("rb") as file:
                file.seek(start if start <= log.stat().st_size else 0)  # a server that starts again writes anew
                text = file.read()
                self._read[log] = file.tell()
            for user, database, name in CONNECTED.findall(text.decode(errors="replace")):
                if not (user.startswith(self.prefix) and user.endswith("_runtime")):
                    self._found.append(f"{name} as {user} in {database}")

    def strangers(self) -> list[str]:
        self.look()
        found, self._found = self._found, []
        return found

    def apart(self) -> "RuntimeLogin":
        return RuntimeLogin(psql=self.psql, prefix=f"{self.prefix}_apart", monitor=True)

    def drop(self, admin: psycopg.Connection) -> None:
        for role in ROLES:
            admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{self.prefix}_{role}")))
