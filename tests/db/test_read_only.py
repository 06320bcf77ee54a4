"""A server that takes no writes: said once and at once, and left for one of the list that does."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from conftest import SERVER_SETTINGS, Database, private_server
from e2e.service import Service, clean_environ
from waiting import until

from listener.config.values import Address
from listener.core.errors import Unreachable
from listener.db.embedded import Cluster
from listener.db.migrate import connected, migrate
from listener.db.pool import Pool, connect
from listener.db.queries import query
from listener.db.session import Session, probe

pytestmark = [pytest.mark.anyio, pytest.mark.own_role("servers of the module's own, without roles")]


@dataclass
class Pair:
    """Two servers with the same migrated database."""

    standby: str
    primary: str

    @property
    def both(self) -> str:
        """The standby first."""
        parts = [self.standby, self.primary]
        hosts = ",".join(url.rpartition("@")[2].partition("/")[0] for url in parts)
        return f"postgresql://postgres@{hosts}/postgres"


@pytest.fixture(scope="module")
def pair(server_bin_dir: Path) -> Iterator[Pair]:
    with private_server(server_bin_dir) as primary, tempfile.TemporaryDirectory(prefix="listener-tests-") as folder:
        migrate(primary.url(), "public")
        primary.stop()
        copy = Path(folder) / "data"
        shutil.copytree(primary.data_dir, copy)
        (copy / "standby.signal").touch()
        account = primary.data_dir.stat()
        Path(folder).chmod(0o755)  # the server runs as another account
        for path in (copy, *copy.rglob("*")):
            os.chown(path, account.st_uid, account.st_gid)
        primary.start()
        with Cluster(bin_dir=server_bin_dir, data_dir=copy, settings=SERVER_SETTINGS) as standby:
            yield Pair(standby.url(), primary.url())


async def refusal(url: str) -> str:
    with pytest.raises(Unreachable) as told:
        await connect(url, "test")
    return str(told.value)


async def test_a_standby_is_told_from_a_preset(pair: Pair, database: Database) -> None:
    told = await refusal(Address(pair.standby, "LISTENER_DIRECT_URL"))
    place = pair.standby.rpartition("@")[2]
    assert told == (
        f"the server at {place} is a standby, which takes no writes: name the primary in LISTENER_DIRECT_URL,"
        " or all servers (host1,host2), of which the one that takes writes is used"
    )
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = f"127.0.0.1:{closed.getsockname()[1]}"
    both = f"postgresql://postgres@{gone},{place}"
    assert await refusal(Address(both, "DATABASE_URL")) == (
        f"none of the servers {gone},{place} takes writes now, {place.partition('/')[0]} is a standby:"
        " start the primary or promote one, or correct DATABASE_URL"
    )
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    told = await refusal(database.url)
    assert told.startswith("default_transaction_read_only is on for this role, this database or the whole server")
    assert told.endswith(", or correct DATABASE_URL")


async def test_of_a_list_the_one_that_takes_writes_is_used(pair: Pair) -> None:
    """Whatever the list says itself: nothing of ours can do with less."""
    await probe(pair.both + "?target_session_attrs=any")
    session = await Session.open(pair.both, schema="public")
    await session.close()
    async with Pool(pair.both, schema="public", is_pooled=False, min_size=0, max_size=1) as pool:
        assert await pool.run(query("session", "open"), name="test")
    with connected(pair.both, "public") as conn:
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    with connected(pair.both + "?target_session_attrs=any", "public") as conn:
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    with connected(pair.standby, "public") as conn:  # `listener migrate --status` reads
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)


async def test_the_pool_says_why_and_keeps_quiet_besides(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """psycopg_pool would write a warning for each of its attempts, without end."""
    url = Address(pair.standby, "DATABASE_URL")
    async with Pool(url, schema="public", is_pooled=True, min_size=1, max_size=1, statement_timeout_s=1.0) as pool:
        with pytest.raises(Unreachable, match=r"is a standby, .* name the primary in DATABASE_URL"):
            await pool.run(query("session", "open"), name="test")
        assert pool.stats()["connections_errors"] > 0
    assert caplog.records == []


def test_a_command_says_it_in_one_line(pair: Pair, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "listener", "status"],
        env={**clean_environ(), "DATABASE_URL": pair.standby},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "is a standby, which takes no writes: name the primary in DATABASE_URL" in line


def test_the_service_names_the_address_that_takes_no_writes(pair: Pair, tmp_path: Path) -> None:
    """It waits, as a failover may mend it, and tries no statement before."""
    addresses = {"DATABASE_URL": pair.standby, "LISTENER_DIRECT_URL": pair.primary, "LISTENER_HTTP": "127.0.0.1:0"}
    keys = {"SHIPSTATION_API_KEY": "sandbox-key", "SHIPSTATION_API_SECRET": "sandbox-secret"}
    with closing(Service({**clean_environ(), **addresses, **keys}, tmp_path)) as service:
        lost = until(lambda: service.events("No database session"), what="the word of it")
        assert "is a standby, which takes no writes: name the primary in DATABASE_URL" in lost[0]["reason"]
        assert service.get("/readyz")[0] == 503
        assert not [line for line in service.log() if "psycopg" in str(line)]


def test_a_standby_is_what_it_is_taken_for(pair: Pair) -> None:
    with psycopg.connect(pair.standby) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        conn.execute("CREATE TABLE t ()")
