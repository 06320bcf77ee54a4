"""Source `drive`: nothing missed, nothing twice, and the token never ahead of its rows."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Database
from queues import open_pool
from sandbox.server import AppServer
from station import NoBudget
from workflows.imports import shop
from workflows.imports.desk import Counter, Desk, desk

from listener.clients.drive.account import read_account
from listener.clients.drive.client import Drive
from listener.core.errors import Broken, ConfigError, DatabaseError, Rejected, Unavailable
from listener.core.events import Event, Trouble
from listener.core.outcome import Done, Fail
from listener.db.sources import SourceState
from listener.sandbox.drive import Cloud, DriveSettings, build
from listener.sandbox.exchange import Call
from listener.workflows.imports.drive_source import WORKFLOW, DriveSource

pytestmark = pytest.mark.anyio

FOLDER = "folder-of-orders"


class Office(Counter):
    """A Drive, the source that follows it, and the desk where its files are imported."""

    def __init__(self, cloud: Cloud, d: Desk, source: DriveSource, state: SourceState, budget: NoBudget) -> None:
        super().__init__(d, source, state)
        self.cloud, self.budget = cloud, budget

    def put(
        self, *numbers: int, name: str = "orders.xml", notes: str = "", folder: str = FOLDER, **options: Any
    ) -> str:
        """Upload a file with these orders; its id."""
        content = shop.document(shop.order(f"N-{n}", notes=notes) for n in numbers).encode()
        return self.cloud.put(name, content, folder=folder, **options)

    def token(self) -> Any:
        [(cursor,)] = self.desk.database.execute("SELECT cursor FROM polling_state WHERE workflow = %s", [WORKFLOW])
        return None if cursor is None else cursor["token"]

    def files(self) -> list[tuple[str, str]]:
        return self.desk.database.execute("SELECT uri, status FROM import_files ORDER BY id")

    def calls(self, path: str) -> int:
        return sum(path in call["path"] for call in self.cloud.traffic.last(2_000))


@asynccontextmanager
async def office(database: Database, folder: Path, **settings: Any) -> AsyncIterator[Office]:
    app = build(DriveSettings(**{"page_size": 3, **settings}))
    cloud: Cloud = app.state.sandbox
    events: list[Event] = []
    budget = NoBudget()
    with AppServer(app) as server:
        key_file = folder / "key.json"
        key_file.write_text(json.dumps(cloud.keys.key_file(server.url)))
        client = Drive(
            server.url,
            account=read_account(key_file),
            name=FOLDER,
            timeout_s=5.0,
            budget=budget,
            publish=events.append,
        )
        async with open_pool(database) as pool, client:
            state = SourceState(pool, source="drive", workflow=WORKFLOW, account=FOLDER)
            source = DriveSource(client, FOLDER, state, events.append, most_bytes=1_000_000, most_s=10.0)
            async with desk(database, openers={"drive": source}) as d:
                built = Office(cloud, d, source, state, budget)
                built.events = events
                yield built
                cloud.close()


async def test_what_lies_there_and_what_comes_is_imported_once(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        for n in range(8):
            o.put(n, name="same name.xml")
        o.put(100, folder="another folder")
        await o.look()
        assert await o.numbers() == {f"N-{n}" for n in range(8)}
        listings = o.calls("/drive/v3/files")
        for n in range(8, 16):
            o.put(n)
        await o.look()
        await o.look()
        assert await o.numbers() == {f"N-{n}" for n in range(16)}
        assert [status for _, status in o.files()] == ["Imported"] * 16
        assert o.calls("/drive/v3/files") == listings + 8, "no listing again: only the downloads"
        assert o.token() == str(o.cloud.newest_token)


async def test_what_comes_between_token_and_listing_is_not_missed(database: Database, tmp_path: Path) -> None:
    """And what comes while the listing's pages are read, behind or before where it is."""
    async with office(database, tmp_path) as o:
        for n in range(7):
            o.put(n)
        count = iter(range(50, 60))

        def come(call: Call) -> None:
            if call.path.endswith(("startPageToken", "files")) and (n := next(count, None)) is not None:
                o.put(n)

        o.cloud.answered = come
        await o.look()
        o.cloud.answered = lambda _call: None
        await o.look()
        assert await o.numbers() == {f"N-{n}" for n in range(7)} | {f"N-{n}" for n in range(50, 60)} - {
            f"N-{n}" for n in count
        }


async def test_a_file_that_is_made_empty_is_imported_when_it_is_filled(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = o.cloud.put("a.xml", b"", folder=FOLDER)
        await o.look()
        assert o.files() == []
        o.put(1, id_=id_)
        await o.look()
        assert await o.numbers() == {"N-1"}


async def test_a_new_version_updates_its_orders(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = o.put(1, 2)
        await o.look()
        await o.numbers()
        o.put(1, 2, id_=id_, notes="changed")
        await o.look()
        await o.numbers()
        assert {order["payload"].get("customer_notes") for order in o.desk.orders().values()} == {"changed"}
        assert o.files() == [(id_, "Imported"), (id_, "Imported")]


async def test_only_files_of_the_folder_that_may_be_orders_count(database: Database, tmp_path: Path) -> None:
    """Trashed, removed, moved away, another kind: none; moved in: one."""
    async with office(database, tmp_path) as o:
        o.put(0)
        await o.look()
        o.cloud.trash(o.put(1))
        o.cloud.remove(o.put(2))
        o.cloud.move(o.put(3), "elsewhere")
        o.cloud.put("photo.png", b"\x89PNG", folder=FOLDER, kind="image/png")
        o.cloud.put("sub", None, folder=FOLDER, kind="application/vnd.google-apps.folder")
        moved = o.put(4, folder="elsewhere", name="no ending", kind="application/octet-stream")
        o.cloud.move(moved, FOLDER)
        await o.look()
        assert await o.numbers() == {"N-0", "N-4"}
        o.cloud.touch(moved)
        await o.look()
        assert len(o.files()) == 2, "a file that was only touched is no other version"


async def test_a_description_that_cannot_be_true_hides_no_other(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.put(1, id_="a\x00b")
        o.put(2, id_="../changes")
        o.put(3, name="a\x00b.xml")
        await o.look()
        assert await o.numbers() == {"N-3"}


async def test_trashed_files_are_not_listed(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.cloud.trash(o.put(1))
        o.put(2)
        await o.look()
        assert await o.numbers() == {"N-2"}


async def test_a_google_document_says_why_it_cannot_be_imported(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        kind = "application/vnd.google-apps.document"
        o.cloud.put("orders", None, folder=FOLDER, kind=kind)
        await o.look()
        [(status, error)] = database.execute("SELECT status, last_error FROM import_files")
        assert status == "Failed"
        assert error == f"orders is a Google document ({kind}), which has no file to download; put the XML itself there"
        database.execute("UPDATE import_files SET status = 'Pending'")
        await o.desk.work()
        [(error,)] = database.execute("SELECT last_error FROM import_files WHERE status = 'Failed'")
        assert "fileNotDownloadable" in error


async def test_the_same_content_under_two_ids_is_imported_once(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.put(1)
        o.put(1, name="copy.xml")
        await o.look()
        await o.numbers()
        rows = database.execute(
            "SELECT orders_inserted, report ->> 'copy_of' IS NOT NULL FROM import_files ORDER BY id"
        )
        assert [(count, bool(is_copy)) for count, is_copy in rows] == [(1, False), (0, True)]


async def test_an_old_token_is_answered_by_a_new_listing(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.put(1)
        await o.look()
        o.put(2)
        o.cloud.forget_changes()
        await o.look()
        assert await o.numbers() == {"N-1", "N-2"}
        assert any(isinstance(e, Trouble) and "listing the folder" in e.error for e in o.events)
        o.put(3)
        await o.look()
        assert await o.numbers() == {"N-1", "N-2", "N-3"}
        assert len(o.files()) == 3


@pytest.mark.parametrize("table", ["import_files", "polling_state"])
async def test_rows_and_token_are_one_transaction(database: Database, tmp_path: Path, table: str) -> None:
    async with office(database, tmp_path) as o:
        o.put(1)
        await o.look()
        before = o.token()
        o.put(2)
        turn = await o.state.take_turn(0.0)
        assert turn is not None
        what = "INSERT" if table == "import_files" else "UPDATE OF cursor"
        database.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;"
            f" CREATE TRIGGER refuse BEFORE {what} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
        )
        with pytest.raises(DatabaseError, match="not now"):
            await o.source.look(turn)
        assert (o.token(), len(o.files())) == (before, 1)
        database.execute(f"DROP TRIGGER refuse ON {table}")
        await o.look()
        assert await o.numbers() == {"N-1", "N-2"}


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 403, "message": "userRateLimitExceeded", "path": "/drive/*"},
        {"status": 403, "message": "dailyLimitExceeded", "path": "/drive/*"},
        {"status": 429, "path": "/drive/*"},
        {"status": 503, "path": "/drive/*"},
        {"status": 500, "path": "/token"},
        {"reset_before": True},
        {"reset_after": "mid", "path": "/drive/*"},
        {"reset_after": True, "path": "/drive/v3/files"},
        {"html200": True, "path": "/drive/*"},
        {"cut_json": True, "path": "/drive/*"},
    ],
    ids=str,
)
async def test_a_look_that_fails_moves_nothing(database: Database, tmp_path: Path, fault: dict[str, Any]) -> None:
    async with office(database, tmp_path) as o:
        for n in range(7):
            o.put(n)
        o.cloud.plan.replace({**fault, "count": 1})
        with pytest.raises(Unavailable):
            await o.look()
        assert o.token() is None
        assert o.budget.told[-1] in ("outage", "throttled")
        await o.look()
        assert await o.numbers() == {f"N-{n}" for n in range(7)}


async def test_a_token_that_is_refused_is_renewed_once(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.put(1)
        await o.look()
        o.cloud.keys.revoke()
        await o.look()
        assert o.calls("/token") == 2
        o.cloud.plan.replace({"status": 401, "path": "/drive/*"})
        with pytest.raises(Unavailable) as refused:
            await o.look()
        assert refused.value.reason == "credentials"
        assert o.calls("/token") == 3


async def test_a_token_is_renewed_before_its_end(database: Database, tmp_path: Path) -> None:
    """Google's own library does so minutes before; one that is good for less is used once."""
    async with office(database, tmp_path, token_s=200) as o:
        await o.look()
        assert o.calls("/token") == o.calls("/drive/v3") > 1


async def test_a_clock_that_is_off_is_named(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.cloud.clock.offset_s = 3_600
        with pytest.raises(Unavailable, match=r"reasonable timeframe.*this machine's clock") as refused:
            await o.look()
        assert refused.value.reason == "credentials"


async def test_a_refusal_of_one_file_is_that_file_s(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = o.put(1)
        o.put(2)
        await o.look()
        path = f"/drive/v3/files/{id_}"
        o.cloud.plan.replace({"status": 403, "message": "insufficientFilePermissions", "path": path})
        assert await o.numbers() == {"N-2"}
        [(error,)] = database.execute("SELECT last_error FROM import_files WHERE status = 'Failed'")
        assert error.startswith(
            "orders.xml: cannot be downloaded: Google Drive answered 403 insufficientFilePermissions"
        )


async def test_too_much_asked_is_not_the_file_s_fault(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = o.put(1)
        await o.look()
        o.cloud.plan.replace(
            {"status": 403, "message": "userRateLimitExceeded", "path": f"/drive/v3/files/{id_}", "count": 1}
        )
        job = await o.desk.claim()
        with pytest.raises(Unavailable) as later:
            await o.desk.handler([job])
        assert later.value.reason == "throttled"
        assert isinstance((await o.desk.handler([job]))[0], Done)


async def test_a_removed_file_fails_by_name(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = o.put(2)
        await o.look()
        o.cloud.remove(id_)
        [outcome] = await o.desk.handler([await o.desk.claim()])
        assert isinstance(outcome, Fail)
        assert "404 notFound" in outcome.error


async def test_a_damaged_download_is_not_imported(database: Database, tmp_path: Path) -> None:
    """Cut in half, it would not even be well-formed; with its end it might be, so the md5 decides."""
    async with office(database, tmp_path) as o:
        id_ = o.put(1)
        await o.look()
        o.cloud.plan.replace({"cut_json": True, "path": f"/drive/v3/files/{id_}", "count": 1})
        job = await o.desk.claim()
        with pytest.raises(Broken, match="md5"):
            await o.desk.handler([job])
        assert o.desk.orders() == {}
        assert isinstance((await o.desk.handler([job]))[0], Done)
        assert set(o.desk.orders()) == {"N-1"}


async def test_a_file_that_is_written_to_before_its_download_gets_its_own_row(
    database: Database, tmp_path: Path
) -> None:
    """The old version is gone: its row is done without an order, the new one's is there at once."""
    async with office(database, tmp_path) as o:
        id_ = o.put(1)
        await o.look()
        o.put(2, id_=id_)
        assert await o.numbers() == {"N-2"}
        rows = database.execute("SELECT status, orders_inserted, report ->> 'changed' FROM import_files ORDER BY id")
        assert rows == [
            ("Imported", 0, "the file has other content by now, which has its own row"),
            ("Imported", 1, None),
        ]
        await o.look()
        assert len(o.files()) == 2


async def test_a_row_that_names_no_file_is_refused(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        database.execute("INSERT INTO import_files (source, uri, name) VALUES ('drive', '../../changes', 'x')")
        [outcome] = await o.desk.handler([await o.desk.claim()])
        assert outcome == Fail("x: '../../changes' is no id of a file")


async def test_a_file_over_the_limit_fails_with_it(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        o.cloud.put("big.xml", b" " * 1_000_001, folder=FOLDER)
        await o.look()
        [outcome] = await o.desk.handler([await o.desk.claim()])
        assert isinstance(outcome, Fail)
        assert "larger than 1,000,000 bytes" in outcome.error


@pytest.mark.parametrize("content", ["", "{}", '{"client_email": "a", "token_uri": "b", "private_key": "PRIVATE"}'])
def test_what_is_no_key_file_is_refused_without_its_content(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(ConfigError, match="it is no key file of a service account") as refused:
        read_account(tmp_path / "key.json")
    assert "PRIVATE" not in str(refused.value)


async def test_another_refusal_than_of_the_token_is_not_hidden(database: Database, tmp_path: Path) -> None:
    """A folder that is not there, say: no listing mends that."""
    async with office(database, tmp_path) as o:
        o.cloud.plan.replace({"status": 404, "message": "notFound", "path": "/drive/v3/files"})
        with pytest.raises(Rejected, match="notFound"):
            await o.look()
        assert o.token() is None
