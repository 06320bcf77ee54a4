"""What a file does to orders_inbox: new, changed, unchanged, older, rejected; as a whole or not at all."""

import io
import re
from hashlib import md5
from typing import Any

import pytest
from conftest import Database
from workflows.imports import shop
from workflows.imports.desk import RULES, desk

from listener.core.errors import Unreachable
from listener.core.outcome import Done
from listener.db import transaction
from listener.db.queries import query
from listener.workflows.imports import reader

pytestmark = pytest.mark.anyio


async def test_new_orders_are_inserted_pending(database: Database) -> None:
    async with desk(database) as d:
        row = await d.take(shop.numbered(3))
        orders = d.orders()
    assert (row["status"], row["counts"], row["last_error"]) == ("Imported", {"found": 3, "inserted": 3}, None)
    assert row["size_bytes"] == len(shop.numbered(3).encode())
    assert [(o["status"], o["source"], o["order_key"]) for o in orders.values()] == [
        ("Pending", "xml", f"xml-N-{n}") for n in (1, 2, 3)
    ]


async def test_the_digest_is_that_of_the_bytes_that_were_read(database: Database) -> None:
    """The server takes it, of the JSON as the reader writes it: what earlier versions stored is unchanged."""
    content = shop.document([shop.order("N-1", notes='K\u00f6ln \\n "C:\\x" \u20ac')])
    (batch,) = reader.Reader(io.BytesIO(content.encode()), RULES).batches()
    written = batch.rows.split(b"\t")[3].rstrip(b"\n").replace(b"\\\\", b"\\")
    async with desk(database) as d:
        await d.take(content)
    rows = database.execute("SELECT replace(imported_digest::text, '-', '') AS digest FROM orders_inbox")
    assert [tuple(row) for row in rows] == [(md5(written, usedforsecurity=False).hexdigest(),)]


async def test_a_changed_order_uploads_again_and_the_rest_stays(database: Database) -> None:
    """Only the changed row gets a new revision; a claim that is under way sees it."""
    async with desk(database) as d:
        await d.take(shop.numbered(3))
        database.execute("UPDATE orders_inbox SET status = 'Uploaded'")
        row = await d.take(
            shop.document([shop.order("N-1"), shop.order("N-2", notes="Changed", modified="11/20/2026 16:00")])
        )
        orders = d.orders()
    assert row["counts"] == {"found": 2, "updated": 1, "unchanged": 1}
    assert {number: o["status"] for number, o in orders.items()} == {
        "N-1": "Uploaded",
        "N-2": "Pending",
        "N-3": "Uploaded",
    }
    assert orders["N-2"]["payload"]["customer_notes"] == "Changed"


async def test_an_unchanged_order_is_not_written(database: Database) -> None:
    """Neither locked nor a new row version: an hourly export of everything costs the table nothing."""
    async with desk(database) as d:
        await d.take(shop.numbered(3))
        before = database.execute("SELECT ctid, xmin, xmax FROM orders_inbox ORDER BY id")
        row = await d.take(shop.numbered(3) + "<!-- another file -->")
        after = database.execute("SELECT ctid, xmin, xmax FROM orders_inbox ORDER BY id")
    assert row["counts"] == {"found": 3, "unchanged": 3}
    assert after == before


async def test_an_older_version_changes_nothing(database: Database) -> None:
    async with desk(database) as d:
        await d.take(shop.document([shop.order("N-1", notes="new", modified="11/20/2026 16:00")]))
        row = await d.take(shop.document([shop.order("N-1", notes="old", modified="11/20/2026 15:59")]))
        assert row["counts"] == {"found": 1, "ignored": 1}
        assert d.orders()["N-1"]["payload"]["customer_notes"] == "new"


async def test_within_one_minute_the_later_file_counts(database: Database) -> None:
    """Shops write minutes, and a minute holds many edits."""
    async with desk(database) as d:
        await d.take(shop.document([shop.order("N-1", notes="first")]))
        row = await d.take(shop.document([shop.order("N-1", notes="second")]))
        assert row["counts"] == {"found": 1, "updated": 1}
        assert d.orders()["N-1"]["payload"]["customer_notes"] == "second"


async def test_the_same_content_again_makes_what_is_between_older(database: Database) -> None:
    """A at 15:00, A again at 17:00, and then late B of 16:00: A stays."""
    async with desk(database) as d:
        await d.take(shop.document([shop.order("N-1", notes="A", modified="11/20/2026 15:00")]))
        row = await d.take(shop.document([shop.order("N-1", notes="A", modified="11/20/2026 17:00")]))
        late = await d.take(shop.document([shop.order("N-1", notes="B", modified="11/20/2026 16:00")]))
        assert row["counts"] == {"found": 1, "unchanged": 1}
        assert late["counts"] == {"found": 1, "ignored": 1}
        assert d.orders()["N-1"]["payload"]["customer_notes"] == "A"
        assert d.orders()["N-1"]["revision"] == 0


async def test_a_correction_by_hand_survives_the_same_order_again(database: Database) -> None:
    async with desk(database) as d:
        await d.take(shop.numbered(1))
        database.execute("UPDATE orders_inbox SET payload = jsonb_set(payload, '{customer_notes}', '\"by hand\"')")
        row = await d.take(shop.numbered(1) + "\n")
        assert row["counts"] == {"found": 1, "unchanged": 1}
        assert d.orders()["N-1"]["payload"]["customer_notes"] == "by hand"


async def test_an_order_twice_in_a_file_is_one_order(database: Database) -> None:
    """The newer version counts, wherever it stands; of equal ones the later."""
    twice = [
        shop.order("N-1", notes="new", modified="11/20/2026 16:00"),
        shop.order("N-1", notes="old"),
        shop.order("N-2", notes="first"),
        shop.order("N-2", notes="second"),
    ]
    async with desk(database) as d:
        row = await d.take(shop.document(twice))
        assert row["counts"] == {"found": 4, "inserted": 2, "ignored": 2}
        assert {n: o["payload"]["customer_notes"] for n, o in d.orders().items()} == {"N-1": "new", "N-2": "second"}


async def test_counts_add_up_over_batches(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BATCH_ORDERS", 7)
    orders = [shop.order(f"N-{n % 40}", status=("paid", "shipped", "mystery")[n % 3]) for n in range(100)]
    async with desk(database) as d:
        row = await d.take(shop.document(orders))
        counts = row["counts"]
        assert counts["found"] == 100
        assert sum(counts.values()) == 200
        assert counts["rejected"] == 33
        assert len(d.orders()) == counts["inserted"] == 34


async def test_a_bad_order_is_named_and_blocks_nothing(database: Database) -> None:
    bad = shop.order("N-2", country="Austria", quantity="1.5")
    async with desk(database) as d:
        row = await d.take(
            shop.document([shop.order("N-1"), bad, shop.order("N-3", status="Quarantined"), shop.order("N-4")])
        )
        assert sorted(d.orders()) == ["N-1", "N-4"]
    assert (row["status"], row["counts"]) == ("Imported", {"found": 4, "inserted": 2, "rejected": 2})
    first, second = row["report"]["rejected"]
    line = 3 + shop.order("N-1").count("\n")
    assert (first["position"], first["line"], first["order_number"]) == (2, line, "N-2")
    assert "ship_to.country = 'Austria': expected exactly 2 letters" in first["reason"]
    assert "items[0].quantity = '1.5': expected a whole number" in first["reason"]
    assert (second["position"], second["reason"]) == (
        3,
        "OrderStatus 'Quarantined' is not known; name it in IMPORT_STATUS_WORDS",
    )


async def test_a_file_of_bad_orders_fails_and_may_be_tried_again(database: Database) -> None:
    """After the cure, a person's retry of the very same row imports it."""
    content = shop.numbered(2, status="Zu versenden")
    async with desk(database) as d:
        row = await d.take(content)
        assert (row["status"], row["counts"]) == ("Failed", {"found": 2, "rejected": 2})
        assert "all 2 orders were rejected; the first, in line 3: OrderStatus 'Zu versenden'" in row["last_error"]
    async with desk(database, words="xml: zu versenden=awaiting_shipment") as d:
        database.execute("UPDATE import_files SET status = 'Pending'")
        await d.work()
        assert d.row(row["id"])["counts"] == {"found": 2, "inserted": 2}


async def test_status_words_are_those_of_the_source(database: Database) -> None:
    async with desk(database, words="berlin: bereit=awaiting_shipment; storniert=cancelled") as d:
        here = await d.take(
            shop.document([shop.order(1, status="bereit"), shop.order(2, status="STORNIERT")]), order_source="berlin"
        )
        there = await d.take(shop.document([shop.order(1, status="bereit"), shop.order(2, status="storniert")]))
        assert here["counts"] == {"found": 2, "inserted": 2}
        assert there["counts"] == {"found": 2, "inserted": 1, "rejected": 1}


async def test_shipped_orders_are_no_work(database: Database) -> None:
    async with desk(database) as d:
        row = await d.take(shop.document([shop.order(1, status="Shipped"), shop.order(2)]))
        assert row["counts"] == {"found": 2, "inserted": 1, "ignored": 1}


async def test_the_same_content_is_imported_once_in_a_source(database: Database) -> None:
    """Renamed it is a copy; under another source it is looked at, and found to say nothing new."""
    content = shop.numbered(3)
    async with desk(database) as d:
        first = await d.take(content)
        renamed = await d.take(content, name="renamed.xml")
        elsewhere = await d.take(content.encode())
    assert renamed["report"] == {"copy_of": first["id"], "name": "orders.xml"}
    assert (renamed["status"], renamed["counts"]) == ("Imported", {})
    assert elsewhere["counts"] == {"found": 3, "unchanged": 3}


async def test_a_retry_by_hand_imports_again(database: Database) -> None:
    async with desk(database) as d:
        row = await d.take(shop.numbered(3))
        database.execute("DELETE FROM orders_inbox WHERE order_number = 'N-2'")
        database.execute("UPDATE import_files SET status = 'Pending'")
        await d.work()
        assert d.row(row["id"])["counts"] == {"found": 3, "inserted": 1, "unchanged": 2}


async def test_other_content_in_the_row_is_imported(database: Database) -> None:
    async with desk(database) as d:
        row = await d.take(shop.numbered(3))
        database.execute("UPDATE import_files SET content = %s", [shop.numbered(4)])
        await d.work()
        assert d.row(row["id"])["counts"] == {"found": 4, "inserted": 1, "unchanged": 3}


async def test_what_a_dead_process_committed_is_not_done_again(database: Database) -> None:
    """It died between the commit and the settle: the counts stay those of the orders that were inserted."""
    async with desk(database) as d:
        id_ = d.insert(shop.numbered(3))
        job = await d.claim()
        assert await d.handler([job]) == [Done()]
        assert d.row(id_)["status"] == "Processing"
        await d.table.rescue(stale_s=300)  # nobody holds the session's lease
        await d.work()
        row = d.row(id_)
    assert (row["status"], row["counts"]) == ("Imported", {"found": 3, "inserted": 3})


async def test_a_lost_claim_commits_nothing(database: Database) -> None:
    async with desk(database) as d:
        d.insert(shop.numbered(3))
        job = await d.claim()
        await d.table.rescue(stale_s=300)
        await d.claim()
        await d.handler([job])
        assert d.orders() == {}


async def test_a_broken_file_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off after a hundred good orders, many of them merged already."""
    monkeypatch.setattr(reader, "BATCH_ORDERS", 10)
    async with desk(database) as d:
        row = await d.take(shop.numbered(100).removesuffix("</Orders>\n"))
        assert d.orders() == {}
    assert row["status"] == "Failed"
    assert row["last_error"].startswith("orders.xml: not well-formed XML: ")


async def test_the_older_scripts_figures_are_kept(database: Database) -> None:
    """polling_state row 1: how many files waited, and when it was looked at."""
    database.execute("UPDATE polling_state SET last_upload_check = '2020-01-01', last_file_count = 7 WHERE id = 1")
    async with desk(database) as d:
        d.insert(shop.numbered(1))
        d.insert(shop.numbered(2))
        job = await d.claim()
        await d.handler([job])
        [(count, at)] = database.execute("SELECT last_file_count, last_upload_check FROM polling_state WHERE id = 1")
        assert (count, at.year > 2020) == (1, True)


async def test_a_batch_reads_no_more_of_the_orders_than_it_has(database: Database) -> None:
    """The planner knows nothing of the batch; by itself it reads the whole table for each."""
    database.execute(
        "INSERT INTO orders_inbox (source, order_number, status, payload)"
        " SELECT 'xml', 'X-' || n, 'Uploaded', '{}' FROM generate_series(1, 50000) AS n"
    )
    database.execute("ANALYZE orders_inbox")
    async with desk(database) as d:
        await d.take(shop.numbered(300))
        await d.take(shop.numbered(300, modified="11/20/2026 16:00"))
    [(scans, read)] = database.execute(
        "SELECT seq_scan, seq_tup_read FROM pg_stat_user_tables WHERE relname = 'orders_inbox'"
    )
    assert read < 1_000, f"{scans} scans"


async def test_who_has_locked_an_order_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction, "LOCK_LIMIT_S", 0.1)
    async with desk(database) as d:
        await d.take(shop.numbered(3))
        with database.connect(application_name="a person") as conn, conn.transaction():
            conn.execute("SELECT FROM orders_inbox WHERE order_number = 'N-2' FOR UPDATE")
            d.insert(shop.numbered(3, notes="changed"))
            job = await d.claim()
            with pytest.raises(Unreachable) as told:
                await d.handler([job])
            # how long it has been at it, the runtime role does not see
            who = rf"session {conn.info.backend_pid} \(\w+ a person(, idle in transaction for 0 s)?\)"
            assert re.match(rf"order 'N-2' in orders_inbox is locked by {who}: commit or end it; ", str(told.value))
            assert {order["payload"]["customer_notes"] for order in d.orders().values()} != {"changed"}
        assert await d.handler([job]) == [Done()]
        assert {order["payload"]["customer_notes"] for order in d.orders().values()} == {"changed"}


def test_each_order_is_looked_up_by_itself_however_little_the_planner_knows(database: Database) -> None:
    """Without statistics, as in a new table's first minutes: else 2,000 orders beside 2,000 are 4,000,000 pairs."""
    files = (shop.numbered(300, first=first).encode() for first in (1, 301))
    settings = {"statement_timeout_ms": "10000", "lock_timeout_ms": "0", "search_path": "public"}
    with database.connect() as conn, conn.transaction():
        conn.execute("ALTER TABLE orders_inbox SET (autovacuum_enabled = off)")
        conn.execute(query("session", "long_transaction_settings"), settings)
        conn.execute(query("imports", "prepare_merge"))
        for file in files:
            conn.execute(query("imports", "clear_orders"))
            [batch] = reader.Reader(io.BytesIO(file), RULES).batches()
            with conn.cursor().copy(query("imports", "copy_orders")) as copy:
                copy.write(batch.rows)
            explain = b"EXPLAIN (ANALYZE, FORMAT JSON) " + query("imports", "merge_orders").as_bytes(conn)
            [(plan,)] = conn.execute(explain, {"order_source": "xml"}).fetchall()
        assert conn.execute("SELECT count(*) FROM orders_inbox").fetchone() == (600,)
    assert _removed_by_join(plan[0]["Plan"]) == 0


def _removed_by_join(node: dict[str, Any]) -> float:
    """Pairs of rows that were compared for nothing, in a plan."""
    below = sum(_removed_by_join(child) for child in node.get("Plans", ()))
    return below + node.get("Rows Removed by Join Filter", 0) * node.get("Actual Loops", 1)
