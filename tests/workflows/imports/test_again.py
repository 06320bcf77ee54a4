"""What arrives again: nothing happens twice, and who gives an older export again after a newer one gets it back."""

from hashlib import sha256
from pathlib import Path

import pytest
from conftest import Database
from workflows.imports import shop
from workflows.imports.desk import Desk, desk
from workflows.imports.test_drive_source import office
from workflows.imports.test_folder_source import replicas
from workflows.imports.test_shop_source import street

from listener.db.sources import Page

pytestmark = pytest.mark.anyio


def export(notes: str) -> str:
    """The same two orders, one of them as it was at some time."""
    return shop.document([shop.order("N-1", notes=notes), shop.order("N-2")])


def notes(d: Desk) -> str:
    return str(d.orders()["N-1"]["payload"]["customer_notes"])


async def test_former_content_counts_again_after_another_has_updated_its_orders(database: Database) -> None:
    async with desk(database) as d:
        rows = [await d.take(export(text)) for text in ("A", "A", "B", "A", "A", "B")]
        assert [row["counts"] for row in rows] == [
            {"found": 2, "inserted": 2},
            {},
            {"found": 2, "updated": 1, "unchanged": 1},
            {"found": 2, "updated": 1, "unchanged": 1},
            {},
            {"found": 2, "updated": 1, "unchanged": 1},
        ]
        assert [row["status"] for row in rows] == ["Imported"] * 6
        assert notes(d) == "B"
        assert rows[4]["report"]["copy_of"] == rows[3]["id"]


async def test_a_newer_version_is_not_taken_back(database: Database) -> None:
    """The merge's own rule: what the shop changed later wins over an older export that is given again."""
    older = shop.document([shop.order("N-1", notes="A", modified="11/20/2026 15:00")])
    async with desk(database) as d:
        await d.take(older)
        await d.take(shop.document([shop.order("N-1", notes="B", modified="11/20/2026 16:00")]))
        row = await d.take(older)
        assert (row["counts"], notes(d)) == ({"found": 1, "ignored": 1}, "B")


async def test_files_in_between_that_update_nothing_do_not_count(database: Database) -> None:
    async with desk(database) as d:
        await d.take(export("A"))
        await d.take(shop.numbered(1, first=9))
        assert (await d.take(export("A")))["counts"] == {}


async def test_rejected_orders_get_another_chance_with_the_same_file(database: Database) -> None:
    """The setting that was missing is there now; the good orders of the file are as they were."""
    content = shop.document([shop.order("N-1"), shop.order("N-2", status="versandfertig")])
    async with desk(database) as d:
        row = await d.take(content)
        assert row["counts"] == {"found": 2, "inserted": 1, "rejected": 1}
        assert row["report"]["again"] == f"listener retry import --id {row['id']}"
    async with desk(database, words="versandfertig=awaiting_shipment") as d:
        again = await d.take(content)
        assert again["counts"] == {"found": 2, "inserted": 1, "unchanged": 1}
        assert (await d.take(content))["counts"] == {}


async def test_a_file_put_back_into_the_folder_counts_again(database: Database, tmp_path: Path) -> None:
    async with replicas(database, tmp_path / "in") as [one]:
        for text in ("A", "B"):
            (one.path / "orders.xml").write_text(export(text))
            await one.round()
        assert notes(one.desk) == "B"
        (one.path / "processed" / "orders.xml").rename(one.path / "orders.xml")
        await one.round()
        assert notes(one.desk) == "A"
        assert (one.names(), len(one.names("processed"))) == ([], 2)


async def test_a_file_that_could_not_be_moved_does_not_count_again(database: Database, tmp_path: Path) -> None:
    """Another process finds it where it lay, after other files have updated its orders: it has not come anew."""
    async with replicas(database, tmp_path / "in", tmp_path / "in") as [one, two]:
        (one.path / "orders.xml").write_text(export("A"))
        await one.source.look()
        await one.work()
        await one.desk.take(export("B"))
        await two.round()
        assert notes(one.desk) == "B"
        assert (two.names(), two.names("processed")) == ([], ["orders.xml"])


async def test_a_version_of_a_drive_file_that_is_back_counts_again(database: Database, tmp_path: Path) -> None:
    async with office(database, tmp_path) as o:
        id_ = None
        for text in ("A", "B", "A"):
            id_ = o.put(1, notes=text, id_=id_)
            await o.look()
            await o.numbers()
            assert notes(o.desk) == text
        before = database.execute("SELECT id, merged_at FROM import_files ORDER BY id")
        o.cloud.touch(id_ or "")
        await o.look()
        await o.numbers()
        assert database.execute("SELECT id, merged_at FROM import_files ORDER BY id") == before


async def test_a_page_that_the_shop_says_again_counts_again(database: Database) -> None:
    async with street(database) as s:
        mark = (await s.state.take_turn(0.0)).now  # type: ignore[union-attr]
        for text, merged in (("A", 1), ("A", 1), ("B", 2), ("A", 2), ("A", 2)):
            await s.state.put_pages([_page(text)], watermark=mark)
            await s.numbers()
            assert notes(s.desk) == text
            [(count,)] = database.execute("SELECT count(*) FROM import_files WHERE merged_at IS NOT NULL")
            assert count == merged
        await s.desk.take(export("corrected by hand"))
        await s.state.put_pages([_page("A")], watermark=mark)
        await s.numbers()
        assert notes(s.desk) == "corrected by hand", "looks overlap: the shop has said nothing new"


def _page(text: str) -> Page:
    body = export(text).encode()
    return Page(uri="shop", name="page 1", body=body, sha256=sha256(body).hexdigest())
