"""A folder that files are dropped into: what is seen, what is opened, and what moving may not do."""

import os
from pathlib import Path
from typing import Literal

import pytest

from listener.clients.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.xml").write_text("secret")
    return Folder(tmp_path / "in")


def test_only_finished_plain_files_are_seen(folder: Folder) -> None:
    for name in ("b.xml", "a.XML", "c.xml.tmp", "d.part", ".hidden.xml", "e.xml~"):
        (folder.path / name).write_text("x")
    (folder.path / "link.xml").symlink_to(folder.path.parent / "secret.xml")
    (folder.path / "processed").mkdir()
    os.mkfifo(folder.path / "pipe.xml")
    assert [(file.name, file.size_bytes) for file in folder.look()] == [("a.XML", 1), ("b.xml", 1)]


@pytest.mark.parametrize("name", ["../secret.xml", "/etc/passwd", "..", ".", "", "processed/a.xml", "a\0b"])
def test_a_name_that_leaves_the_folder_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(ValueError, match="is no file right in the folder"):
        folder.open(name)


def test_a_link_is_not_followed(folder: Folder) -> None:
    (folder.path / "link.xml").symlink_to(folder.path.parent / "secret.xml")
    with pytest.raises(OSError, match="symbolic links"):
        folder.open("link.xml")


def test_a_pipe_does_not_keep_us_waiting(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe.xml")
    with pytest.raises(ValueError, match="is no plain file"):
        folder.open("pipe.xml")


def test_moving_overwrites_nothing(folder: Folder) -> None:
    (folder.path / "processed").mkdir()
    (folder.path / "processed" / "a.xml").write_text("first")
    (folder.path / "a.xml").write_text("second")
    folder.move("a.xml", "processed", 17)
    moved = {path.name: path.read_text() for path in (folder.path / "processed").iterdir()}
    assert moved == {"a.xml": "first", "a.17.xml": "second"}
    assert folder.look() == []


@pytest.mark.parametrize("to", ["processed", "failed"])
def test_nothing_is_moved_through_a_link_or_over_a_file(folder: Folder, to: Literal["processed", "failed"]) -> None:
    outside = folder.path.parent / "outside"
    outside.mkdir()
    (folder.path / "a.xml").write_text("x")
    (folder.path / to).symlink_to(outside)
    with pytest.raises(OSError, match="Not a directory"):
        folder.move("a.xml", to, 17)
    (folder.path / to).unlink()
    (folder.path / to).write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        folder.move("a.xml", to, 17)
    assert ((folder.path / "a.xml").read_text(), list(outside.iterdir())) == ("x", [])


def test_what_somebody_else_has_moved_is_well(folder: Folder) -> None:
    folder.move("a.xml", "failed", 17)
    assert folder.look() == []


def test_a_rewritten_file_is_another_one(folder: Folder) -> None:
    """Also with the same size and time: the inode tells."""
    path = folder.path / "a.xml"
    path.write_text("one")
    os.utime(path, ns=(0, 0))
    before = folder.look()
    (folder.path / "new.tmp").write_text("two")
    os.utime(folder.path / "new.tmp", ns=(0, 0))
    (folder.path / "new.tmp").rename(path)
    assert folder.look() != before
