"""Files dropped into IMPORT_FOLDER, with the service as it runs."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from waiting import until
from workflows.imports import shop

from e2e.service import Service
from e2e.world import World


class Inbox:
    """The folder as the shop sees it."""

    def __init__(self, town: World, path: Path) -> None:
        self.town = town
        self.path = path
        path.mkdir()

    def start(self, **environ: str) -> Service:
        return self.town.start(IMPORT_FOLDER=str(self.path), IMPORT_SETTLE="0.1", LISTENER_QUEUES="all", **environ)

    def drop(self, name: str, content: str) -> None:
        """As a well-behaved writer does: write, then rename."""
        (self.path / f"{name}.tmp").write_text(content)
        (self.path / f"{name}.tmp").rename(self.path / name)

    def know(self, content: str) -> None:
        """Have it imported before: it is moved without a row."""
        self.town.database.execute(
            "INSERT INTO import_files (status, source, uri, name, sha256, merged_at)"
            " VALUES ('Imported', 'folder', 'known.xml', 'known.xml', %s, now())",
            [hashlib.sha256(content.encode()).hexdigest()],
        )

    def names(self, folder: str = ".") -> list[str]:
        path = self.path / folder
        return sorted(file.name for file in path.iterdir() if file.is_file()) if path.is_dir() else []

    def until_moved(self, *names: str, to: str = "processed") -> None:
        until(
            lambda: set(names) <= set(self.names(to)),
            deadline_s=30,
            what=f"{names} in {to}: {self.names()}, {self.town.listeners.all[-1].log_text[-1500:]}",
        )

    def rows(self) -> list[tuple[Any, ...]]:
        """name, status, orders_inserted of every row of the folder."""
        return self.town.database.execute(
            "SELECT name, status, orders_inserted FROM import_files WHERE source = 'folder' ORDER BY id"
        )


@pytest.fixture
def inbox(town: World, tmp_path: Path) -> Inbox:
    return Inbox(town, tmp_path / "inbox")


def until_polled(service: Service, times: int) -> None:
    """Wait until the upload queue was polled so often from now on."""

    def polls() -> float:
        return service.metric("listener_wakes_total", queue="upload", reason="poll") or 0

    start = polls()
    until(lambda: polls() - start >= times, deadline_s=30, what=f"{times} polls of the upload queue")


def test_a_dropped_file_is_uploaded_and_moved(inbox: Inbox) -> None:
    """Long before the first safety poll: the notice counts."""
    service = inbox.start()
    inbox.town.configure(fast_polling_interval=3600)
    inbox.town.until_heard(service)
    inbox.drop("a.xml", shop.numbered(50))

    inbox.town.orders.wait_uploaded(50)
    inbox.until_moved("a.xml")
    assert inbox.names() == []
    assert inbox.rows() == [("a.xml", "Imported", 50)]


def test_what_lies_there_at_the_start_is_imported(inbox: Inbox) -> None:
    inbox.drop("a.xml", shop.numbered(2))
    inbox.start()
    inbox.until_moved("a.xml")


def test_without_notices_the_next_look_finds_it(inbox: Inbox) -> None:
    """Rolled back to slow polling, notices do not count; a network drive gives none."""
    inbox.town.configure(ENABLE_FAST_XML_POLLING="false", fast_polling_interval=1)
    content = shop.numbered(1)
    inbox.know(content)
    inbox.drop("first.xml", content)
    service = inbox.start()
    inbox.until_moved("first.xml")  # by the looks at the start, with no row to settle: the next one is minutes away
    inbox.drop("a.xml", shop.numbered(2, first=10))
    until_polled(service, 3)  # 2 s or more, where a notice and the settling take 0.3
    assert inbox.rows() == [("known.xml", "Imported", None)]
    inbox.town.configure(ENABLE_FAST_XML_POLLING="true")
    inbox.town.until_heard(service)
    inbox.drop("b.xml", shop.numbered(2, first=20))
    inbox.until_moved("a.xml", "b.xml")


def test_a_file_that_grows_is_left_alone_until_it_is_whole(inbox: Inbox) -> None:
    """Written in place, slower than the settle rule would allow for a pause: cut off it fails, whole it is imported."""
    inbox.start()
    content = shop.numbered(200)
    with (inbox.path / "slow.xml").open("w") as file:
        for start in range(0, len(content), 20_000):
            file.write(content[start : start + 20_000])
            file.flush()
            os.fsync(file.fileno())
    inbox.until_moved("slow.xml")
    assert inbox.rows()[-1] == ("slow.xml", "Imported", 200)
    assert inbox.names("failed") == []


def test_a_bad_file_fails_and_may_be_dropped_again(inbox: Inbox) -> None:
    inbox.start()
    inbox.drop("bad.xml", shop.numbered(2)[:-5])
    inbox.drop("good.xml", shop.numbered(2))
    inbox.until_moved("bad.xml", to="failed")
    inbox.until_moved("good.xml")
    inbox.drop("bad.xml", shop.numbered(3, first=10))
    inbox.until_moved("bad.xml")
    assert sorted(inbox.rows()) == [
        ("bad.xml", "Failed", None),
        ("bad.xml", "Imported", 3),
        ("good.xml", "Imported", 2),
    ]


def test_the_same_content_under_another_name_is_moved_without_a_row(inbox: Inbox) -> None:
    inbox.start()
    inbox.drop("a.xml", shop.numbered(2))
    inbox.until_moved("a.xml")
    inbox.drop("b.xml", shop.numbered(2))
    inbox.until_moved("b.xml")
    assert inbox.rows() == [("a.xml", "Imported", 2)]


def test_a_file_whose_process_died_before_moving_it_is_moved_by_the_next(inbox: Inbox) -> None:
    (inbox.path / "processed").touch()  # it cannot be moved there
    first = inbox.start()
    inbox.drop("a.xml", shop.numbered(2))
    until(lambda: inbox.rows() == [("a.xml", "Imported", 2)], what="the import")
    until(lambda: first.events("Trouble"), what="the trouble with moving it")
    first.kill()
    (inbox.path / "processed").unlink()
    inbox.start()
    inbox.until_moved("a.xml")
    assert inbox.rows() == [("a.xml", "Imported", 2)]


def test_two_processes_import_a_file_once(inbox: Inbox) -> None:
    inbox.start()
    inbox.start()
    for number in range(10):
        inbox.drop(f"{number}.xml", shop.numbered(5, first=10 * number))
    inbox.until_moved(*(f"{number}.xml" for number in range(10)))
    assert sorted(inbox.rows()) == [(f"{number}.xml", "Imported", 5) for number in range(10)]
    inbox.town.orders.wait_uploaded(50)


def test_a_row_that_points_out_of_the_folder_is_refused(inbox: Inbox) -> None:
    inbox.start()
    inbox.town.database.execute("INSERT INTO import_files (source, uri, name) VALUES ('folder', '../secret.xml', 'x')")
    until(lambda: inbox.rows() == [("x", "Failed", None)], what="the refusal")
    [(error,)] = inbox.town.database.execute("SELECT last_error FROM import_files")
    assert error == "x: '../secret.xml' is no file right in the folder"


def test_a_name_that_is_no_text_ends_nothing(inbox: Inbox) -> None:
    """The notice of such a name ends the watch; the looks go on, and so does everything else."""
    inbox.town.configure(fast_polling_interval=1)
    service = inbox.start().wait_ready()
    (Path(os.fsdecode(os.fsencode(inbox.path) + b"/bad\xff.xml"))).write_text("x")
    until(lambda: "cannot be stored" in service.log_text, deadline_s=30, what="the word about it")
    inbox.drop("a.xml", shop.numbered(2))
    inbox.until_moved("a.xml")
    assert service.stop() == 0
