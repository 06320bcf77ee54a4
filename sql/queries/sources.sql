-- Sources of order files that are asked now and then: whose turn it is, how far they have been read, and the files found.
-- Their place is a row of polling_state (workflow = the source, account = which one).

-- name: take_turn
-- Whoever gets the row looks now; the others have nothing to do until the interval is over. No lock is held over the look: one
-- that takes longer than the interval may be overtaken, and both find the same. The time is the database's.
INSERT INTO polling_state AS state (workflow, account) VALUES (%(workflow)s, %(account)s)
ON CONFLICT (workflow, account) DO UPDATE SET updated_at = clock_timestamp()
WHERE state.updated_at <= clock_timestamp() - make_interval(secs => %(interval_s)s::float8)
RETURNING watermark, cursor, clock_timestamp() AS now;

-- name: turn_due
-- Seconds until the next turn.
SELECT coalesce(greatest(%(interval_s)s::float8 - extract(epoch FROM clock_timestamp() - max(updated_at)), 0), 0)::float8 AS wait_s
FROM polling_state WHERE workflow = %(workflow)s AND account = %(account)s;

-- name: hurry_turn
-- A look that failed, or has not come to the end: the next turn is due in again_s.
UPDATE polling_state SET updated_at = clock_timestamp() - make_interval(secs => %(interval_s)s::float8 - %(again_s)s::float8)
WHERE workflow = %(workflow)s AND account = %(account)s;

-- name: put_page
-- One page that was fetched, as work; nothing when its content is imported or waits already. A shop that says again what it said
-- before another page has updated orders means it: then it is merged again. Not after a file from elsewhere: looks overlap, so the
-- same page comes again by itself, and would take back what that file corrected.
INSERT INTO import_files (source, uri, name, body, sha256, size_bytes)
SELECT 'http', %(uri)s, %(name)s, %(body)s, %(sha256)s, %(size_bytes)s
WHERE NOT EXISTS (
    SELECT FROM import_files AS file WHERE source = 'http' AND sha256 = %(sha256)s AND merged_at IS NOT NULL
      AND NOT EXISTS (SELECT FROM import_files AS later
                      WHERE later.source = 'http' AND later.merged_at > file.merged_at AND later.orders_updated > 0))
ON CONFLICT (source, uri, sha256) DO UPDATE SET status = 'Pending' WHERE import_files.status = 'Imported';

-- name: put_files
-- Versions of files that a source holds, as work; what is known already stays as it is, unless another version of the file came
-- after it: then it is back. A file with a fault cannot be read at all: its row says why.
INSERT INTO import_files (source, uri, name, version, size_bytes, status, last_error, finished_at)
SELECT DISTINCT ON (f.uri, f.version) %(source)s, f.uri, f.name, f.version, f.size_bytes, CASE WHEN f.fault IS NULL THEN 'Pending' ELSE 'Failed' END,
       f.fault, CASE WHEN f.fault IS NOT NULL THEN now() END
FROM jsonb_to_recordset(%(files)s::jsonb) AS f (uri text, name text, version text, size_bytes bigint, fault text)
ON CONFLICT (source, uri, version) WHERE version IS NOT NULL DO UPDATE SET status = 'Pending'
WHERE import_files.status = 'Imported' AND EXISTS (
    SELECT FROM import_files AS other
    WHERE other.source = import_files.source AND other.uri = import_files.uri AND other.version <> import_files.version
      AND other.status <> 'Failed' AND (other.finished_at > import_files.finished_at) IS NOT FALSE);

-- name: save_place
-- How far the source has been read, in the transaction of what was found. The watermark never goes back: who was overtaken has
-- found no more than who overtook it. A cursor is whole as it is.
UPDATE polling_state
SET watermark = greatest(watermark, %(watermark)s::timestamptz), cursor = coalesce(%(cursor)s::jsonb, cursor)
WHERE workflow = %(workflow)s AND account = %(account)s
RETURNING id;
