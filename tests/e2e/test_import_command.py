"""`listener import`: at once, without a running service."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import Database
from workflows.imports import shop

from e2e.service import Orders, Services


def test_files_folders_and_stdin(listeners: Services, orders: Orders, tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "a.xml").write_text(shop.numbered(2))
    (tmp_path / "drop" / "b.XML").write_text(shop.numbered(2, first=10))
    (tmp_path / "drop" / "notes.txt").write_text("no orders")
    (tmp_path / "c.xml").write_text(shop.numbered(3))
    done = subprocess.run(
        [sys.executable, "-m", "listener", "import", "drop", "c.xml", "-"],
        env=listeners.environ,
        cwd=tmp_path,
        input=shop.numbered(1, first=20),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "drop/a.xml: 2 orders: 2 inserted, 0 updated, 0 unchanged, 0 ignored, 0 rejected",
        "drop/b.XML: 2 orders: 2 inserted, 0 updated, 0 unchanged, 0 ignored, 0 rejected",
        "c.xml: 3 orders: 1 inserted, 0 updated, 2 unchanged, 0 ignored, 0 rejected",
        "-: 1 orders: 1 inserted, 0 updated, 0 unchanged, 0 ignored, 0 rejected",
    ]
    assert orders.counts() == {"Pending": 6}


def test_refused_files_and_orders_are_told_and_the_rest_is_imported(
    database: Database, listeners: Services, orders: Orders, tmp_path: Path
) -> None:
    (tmp_path / "cut.xml").write_text(shop.numbered(2)[:-5])
    (tmp_path / "mixed.xml").write_text(shop.document([shop.order("N-1"), shop.order("N-2", country="Austria")]))
    done = listeners.run("import", "cut.xml", "mixed.xml", "--order-source", "berlin")
    assert done.returncode == 1
    cut, mixed = done.stderr.splitlines()
    assert cut.startswith("listener: cut.xml: not well-formed XML: ")
    assert mixed.startswith(
        "listener: mixed.xml: order 2 (N-2), line 60: ship_to.country = 'Austria': expected exactly 2"
    )
    assert done.stdout == "mixed.xml: 2 orders: 1 inserted, 0 updated, 0 unchanged, 0 ignored, 1 rejected\n"
    assert orders.counts() == {"Pending": 1}
    status = listeners.run("status").stdout
    assert "rejected by import: 1 orders in 1 files; why, and what to do: column report of import_files" in status
    assert json.loads(listeners.run("status", "--json").stdout)["rejected"] == {"files": 1, "orders": 1, "newest_id": 1}
    database.execute("UPDATE import_files SET status = 'Seen'")  # somebody has read the report
    assert "rejected by import" not in listeners.run("status").stdout


def test_the_same_file_again_is_known(listeners: Services, tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(shop.numbered(2))
    listeners.run("import", "a.xml")
    done = listeners.run("import", "a.xml", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == [{"file": "a.xml", "status": "known", "copy_of": 1}]


def test_what_is_no_file_is_wrong_usage(listeners: Services, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = listeners.run("import", "nowhere.xml")
    assert (missing.returncode, missing.stderr) == (2, "listener: nowhere.xml: no such file or folder\n")
    empty = listeners.run("import", "empty")
    assert (empty.returncode, empty.stderr) == (2, "listener: empty: no *.xml in this folder\n")
