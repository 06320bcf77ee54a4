-- Files of orders: what the handler reads of one, and how its orders get into orders_inbox. The statements of one file are
-- one transaction on a connection of its own (listener/db/transaction.py).

-- name: content_slice
-- One piece of what the row holds, and how much there is; a row of 100 MB never stands in memory as a whole.
SELECT octet_length(held.bytes) AS size_bytes, substring(held.bytes FROM %(first)s FOR %(most)s) AS piece
FROM (SELECT coalesce(body, convert_to(content, 'UTF8')) AS bytes FROM import_files WHERE id = %(id)s) AS held;

-- name: find_copy
-- Another row whose orders are there already and whose content was the same, under the same source and order source. It is none
-- when orders of it were rejected, which may do by now, or when a later file has updated orders: who gives an older export again
-- wants it back, and the merge leaves alone what is as it says.
SELECT copy.id, copy.name FROM import_files AS copy
WHERE copy.source = %(source)s AND copy.sha256 = %(sha256)s AND copy.merged_at IS NOT NULL AND copy.id <> %(id)s
  AND coalesce(copy.order_source, %(usual)s) = %(order_source)s AND coalesce(copy.orders_rejected, 0) = 0
  AND NOT EXISTS (SELECT FROM import_files AS later
                  WHERE later.merged_at > copy.merged_at AND later.orders_updated > 0 AND later.id <> %(id)s
                    AND coalesce(later.order_source, %(usual)s) = %(order_source)s)
LIMIT 1;

-- name: forget_copies
-- A row of the same content is not the one that counts any more, because this one is merged after it, in the same transaction.
UPDATE import_files SET merged_at = NULL
WHERE source = %(source)s AND sha256 = %(sha256)s AND merged_at IS NOT NULL AND id <> %(id)s
  AND coalesce(order_source, %(usual)s) = %(order_source)s;

-- name: prepare_merge
-- A place for one batch of orders; it ends with the transaction. written: the payload's JSON, of which the digest is taken here,
-- because the process that reads the file is the slower of the two.
CREATE TEMPORARY TABLE import_orders (place integer, order_number text, version timestamptz, written text) ON COMMIT DROP;

-- name: copy_orders
COPY import_orders FROM STDIN;

-- name: merge_orders
-- Put the batch into orders_inbox. Of an order that is in it twice, the newer version counts, then the later place.
-- The stored order wins when its version is newer; the same minute counts as newer, because shops write minutes.
-- Locks: the rows that it changes, in the order of their numbers, so that files seldom deadlock (then one is done again); an order
-- that the file says nothing new about is neither locked nor written.
-- LATERAL: one look at the index for each order, whatever the planner knows of orders_inbox. Of a table that was empty a moment
-- ago it knows nothing, and joined all orders of the source with all of the batch (measured: 885 ms for 2,000 orders, now 81).
WITH newest AS MATERIALIZED (
    SELECT DISTINCT ON (order_number) order_number, version, written, md5(convert_to(written, 'UTF8'))::uuid AS digest
    FROM import_orders ORDER BY order_number, version DESC NULLS LAST, place DESC
), judged AS MATERIALIZED (
    SELECT newest.*, coalesce(stored.imported_version > newest.version, false) AS is_older,
           coalesce(stored.imported_digest = newest.digest, false) AS is_same
    FROM newest LEFT JOIN LATERAL (
        SELECT imported_version, imported_digest FROM orders_inbox
        WHERE source = %(order_source)s AND order_number = newest.order_number OFFSET 0
    ) AS stored ON true
), merged AS (
    INSERT INTO orders_inbox AS stored (source, order_number, status, payload, imported_version, imported_digest)
    SELECT %(order_source)s, order_number, 'Pending', written::jsonb, version, digest
    FROM judged WHERE NOT is_same AND NOT is_older
    ORDER BY order_number
    ON CONFLICT (source, order_number) DO UPDATE
    SET payload = excluded.payload, imported_version = coalesce(excluded.imported_version, stored.imported_version),
        imported_digest = excluded.imported_digest
    WHERE stored.imported_digest IS DISTINCT FROM excluded.imported_digest
      AND (stored.imported_version > excluded.imported_version) IS NOT TRUE
    RETURNING xmax = 0 AS is_new
)
SELECT (SELECT count(*) FROM import_orders) AS given,
       (SELECT count(*) FROM newest) AS differing,
       (SELECT count(*) FROM merged WHERE is_new) AS inserted,
       (SELECT count(*) FROM merged WHERE NOT is_new) AS updated,
       (SELECT count(*) FROM judged WHERE is_older) AS older;

-- name: touch_versions
-- The same content under a newer version: what is between the two, and comes late, is older from now on.
UPDATE orders_inbox AS stored
SET imported_version = newest.version
FROM (
    SELECT order_number, md5(convert_to(written, 'UTF8'))::uuid AS digest, max(version) AS version
    FROM import_orders GROUP BY order_number, written
) AS newest
WHERE stored.source = %(order_source)s AND stored.order_number = newest.order_number
  AND stored.imported_digest = newest.digest AND stored.imported_version < newest.version;

-- name: lock_holder
-- Which order the row at that place is, and which session has locked it; null when several have. What a session of another
-- role does, and for how long, only a member of pg_monitor sees: then it is left out.
SELECT stored.order_number,
       CASE WHEN a.pid IS NOT NULL THEN format(
           'session %%s (%%s)', a.pid,
           concat_ws(', ', concat_ws(' ', a.usename, nullif(a.application_name, '')),
                     a.state || format(' for %%s s', round(extract(epoch FROM clock_timestamp() - a.xact_start)))))
       END AS session
FROM orders_inbox AS stored LEFT JOIN pg_stat_activity AS a ON a.backend_xid = stored.xmax
WHERE stored.ctid = %(place)s::tid;

-- name: rejected_orders
-- Orders that were refused, of files whose report still stands. A status of another word puts a file aside: somebody has read its
-- report, and wants no more of it.
SELECT count(*) AS files, coalesce(sum(orders_rejected), 0)::bigint AS orders, max(id) AS newest_id
FROM import_files WHERE orders_rejected > 0 AND ((status = 'Imported' AND merged_at IS NOT NULL) OR status = 'Failed');

-- name: clear_orders
TRUNCATE import_orders;

-- name: record_file
-- The report of a file that was claimed, in the transaction of its orders. Fenced: no row = the claim is somebody else's by
-- now, and the transaction must not be committed.
UPDATE import_files
SET sha256 = %(sha256)s, size_bytes = %(size_bytes)s, orders_found = %(found)s, orders_inserted = %(inserted)s,
    orders_updated = %(updated)s, orders_unchanged = %(unchanged)s, orders_ignored = %(ignored)s, orders_rejected = %(rejected)s,
    report = %(report)s::jsonb, merged_at = CASE WHEN %(is_merged)s::boolean THEN clock_timestamp() END
WHERE id = %(id)s AND claim_id = %(claim_id)s AND status = 'Processing'
RETURNING id;

-- name: record_check
-- What the older scripts kept of an import: files that wait, and when it was looked at; on polling_state row 1.
UPDATE polling_state
SET last_file_count = (SELECT count(*) FROM import_files WHERE status = 'Pending' AND scheduled_at <= now()),
    last_upload_check = CURRENT_TIMESTAMP
WHERE id = 1;

-- name: offer_file
-- Tell of a file that a source holds, as work: nothing when its content is imported or waits already; one that failed is tried
-- again, since somebody has put it there again. (Not within 10 s: then it is just being moved away.) So is one that nobody has
-- read, because there was other content under its name when its turn came; and one whose content is imported, but has arrived
-- anew after orders were rejected or updated (as in find_copy).
WITH known AS MATERIALIZED (
    SELECT id FROM import_files AS file WHERE source = %(source)s AND sha256 = %(sha256)s AND merged_at IS NOT NULL
      AND coalesce(orders_rejected, 0) = 0
      AND NOT EXISTS (SELECT FROM import_files AS later WHERE later.merged_at > file.merged_at AND later.orders_updated > 0)
    LIMIT 1
), again AS (
    UPDATE import_files SET status = 'Pending', arrival = %(arrival)s
    WHERE source = %(source)s AND uri = %(uri)s AND sha256 = %(sha256)s AND status NOT IN ('Pending', 'Processing')
      AND (CASE WHEN status = 'Imported' THEN arrival <> %(arrival)s ELSE updated_at < now() - interval '10 seconds' END
           OR report ? 'changed') AND NOT EXISTS (SELECT FROM known)
    RETURNING id
), added AS (
    INSERT INTO import_files (source, uri, name, sha256, size_bytes, arrival)
    SELECT %(source)s, %(uri)s, %(name)s, %(sha256)s, %(size_bytes)s, %(arrival)s WHERE NOT EXISTS (SELECT FROM known)
    ON CONFLICT (source, uri, sha256) DO NOTHING
    RETURNING id
)
SELECT coalesce((SELECT id FROM known), (SELECT id FROM added), (SELECT id FROM again),
                (SELECT id FROM import_files WHERE source = %(source)s AND uri = %(uri)s AND sha256 = %(sha256)s)) AS id;

-- name: file_outcomes
-- Which of these files are done with.
SELECT id, CASE WHEN status = 'Imported' AND merged_at IS NULL AND report ? 'changed' THEN 'Unread' ELSE status END AS status
FROM import_files WHERE id = ANY (%(ids)s::bigint[]) AND status IN ('Imported', 'Failed');

-- name: record_imported
-- The row of a file that was imported by hand, in the transaction of its orders.
INSERT INTO import_files (status, source, order_source, name, sha256, size_bytes, orders_found, orders_inserted, orders_updated,
                          orders_unchanged, orders_ignored, orders_rejected, report, merged_at, finished_at)
VALUES ('Imported', 'inline', %(order_source)s, %(name)s, %(sha256)s, %(size_bytes)s, %(found)s, %(inserted)s, %(updated)s,
        %(unchanged)s, %(ignored)s, %(rejected)s, %(report)s::jsonb, clock_timestamp(), clock_timestamp());
