"""The folder, look by look: what is moved was imported, whatever lay there meanwhile and whoever took its row."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from conftest import Database
from workflows.imports import shop
from workflows.imports.desk import Desk, desk

from listener.clients.folder import Folder
from listener.core.events import Event, Trouble
from listener.workflows.imports.folder_source import FolderSource

pytestmark = pytest.mark.anyio


class Replica:
    """One process with a folder."""

    def __init__(self, d: Desk, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.desk, self.path = d, path
        self.events: list[Event] = []
        self.source = FolderSource(Folder(path), d.handler._pool, self.events.append, settle_s=0.0, poll_s=lambda: 60.0)

    def drop(self, name: str, *numbers: str) -> None:
        (self.path / ".new").write_text(shop.document([shop.order(number) for number in numbers]))
        (self.path / ".new").rename(self.path / name)

    async def work(self) -> None:
        """Take whatever waits, as this process."""
        self.desk.handler._openers = {"folder": self.source}
        await self.desk.work()

    async def round(self) -> None:
        """Offer, import and move."""
        await self.source.look()
        await self.work()
        await self.source.look()

    def names(self, folder: str = ".") -> list[str]:
        path = self.path / folder
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []


@asynccontextmanager
async def replicas(database: Database, *paths: Path) -> AsyncIterator[list[Replica]]:
    async with desk(database) as d:
        yield [Replica(d, path) for path in paths]


async def test_a_file_that_was_replaced_before_its_turn_is_imported_when_it_comes_back(
    database: Database, tmp_path: Path
) -> None:
    async with replicas(database, tmp_path / "in") as [one]:
        one.drop("a.xml", "A-1")
        await one.source.look()
        one.drop("a.xml", "B-1")
        await one.source.look()
        await one.work()
        await one.source.look()
        assert set(one.desk.orders()) == {"B-1"}
        assert (one.names(), one.names("processed")) == ([], ["a.xml"])

        one.drop("a.xml", "A-1")
        await one.source.look()
        assert one.names() == ["a.xml"], "nobody has read it"
        await one.work()
        await one.source.look()
        assert set(one.desk.orders()) == {"A-1", "B-1"}
        assert one.names() == []


async def test_replicas_with_different_folders_move_nothing_unread(database: Database, tmp_path: Path) -> None:
    """A mistake, but no order may be lost by it."""
    async with replicas(database, tmp_path / "one", tmp_path / "two") as [one, two]:
        one.drop("a.xml", "A-1")
        two.drop("a.xml", "B-1")
        one.drop("only.xml", "C-1")
        for each in (one, two):
            await each.source.look()
        await two.work()  # its own, and rows of files that it has not, or not so
        await one.source.look()
        assert one.names() == ["a.xml", "only.xml"]
        assert set(one.desk.orders()) == {"B-1"}

        database.execute("UPDATE import_files SET scheduled_at = now() WHERE status = 'Pending'")
        await one.source.look()
        await one.work()
        await one.source.look()
        assert set(one.desk.orders()) == {"A-1", "B-1", "C-1"}
        assert (one.names(), one.names("failed")) == ([], [])


async def test_a_trouble_that_stays_is_told_once(database: Database, tmp_path: Path) -> None:
    async with replicas(database, tmp_path / "in") as [one]:
        (one.path / "new\nline.xml").write_text("x")
        for _ in range(3):
            await one.source.look()
        assert len([event for event in one.events if isinstance(event, Trouble)]) == 1


async def test_the_same_content_for_another_source_of_orders_is_not_the_same(database: Database) -> None:
    """An order is known by its source and number."""
    content = shop.numbered(2)
    async with desk(database) as d:
        rows = [await d.take(content, order_source=source) for source in (None, "A", "B", "A", "xml")]
        assert [row["counts"] for row in rows] == [{"found": 2, "inserted": 2}] * 3 + [{}] * 2
        assert database.execute("SELECT count(DISTINCT source), count(*) FROM orders_inbox") == [(3, 6)]


async def test_files_of_other_names_stay_and_are_told_of_once(database: Database, tmp_path: Path) -> None:
    async with replicas(database, tmp_path / "in") as [one]:
        for name in ("foo.txt", "processed", "orders.xml.bak"):
            (one.path / name).write_text(shop.numbered(1))
        one.drop("A.XML", "A-1")
        for _ in range(3):
            await one.round()
        assert set(one.desk.orders()) == {"A-1"}
        assert one.names() == ["A.XML", "foo.txt", "orders.xml.bak", "processed"]
        told = [event.error for event in one.events if isinstance(event, Trouble)]
        assert told == [
            "'foo.txt' is left where it is: only files named *.xml are imported; rename it, or take it away",
            "'orders.xml.bak' is left where it is: only files named *.xml are imported; rename it, or take it away",
            "'processed' is left where it is: it is a file, and files that are done with go into a folder of that name;"
            " rename it",
            "A.XML cannot be moved to processed: Not a directory",
        ]
        (one.path / "processed").unlink()
        await one.source.look()
        assert one.names("processed") == ["A.XML"]
