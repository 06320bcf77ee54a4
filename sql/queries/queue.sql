-- Every statement that touches a queue table. Templates: {table}, {key}, {done}, {columns}, {results} are composed
-- with psycopg.sql once at start (listener/db/queue.py).

-- name: claim
-- Take at most %(limit)s due rows for our session, and say in the same round trip when the next row comes due.
-- Returns at least one row; key is null when nothing was claimed.
-- MATERIALIZED: under a nested loop the IN (SELECT … LIMIT …) form claimed 2,000 rows for LIMIT 10 (measured).
-- synchronous_commit = off for this transaction only: a claim lost in a server crash is an open row again.
-- The recursive part hops from one priority to the next, so that a million rows due later cost a few index descents.
WITH RECURSIVE due AS MATERIALIZED (
    SELECT {key} AS due_key
    FROM {table}
    WHERE status = 'Pending' AND scheduled_at <= now()
    ORDER BY priority, scheduled_at, {key}
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE {table} AS q
    SET status = 'Processing', attempts = q.attempts + 1, claim_id = (SELECT nextval({claim_sequence})),
        claimed_by = %(session_key)s, claimed_at = clock_timestamp()
    FROM due
    WHERE q.{key} = due.due_key
    RETURNING q.priority AS job_priority, q.scheduled_at AS job_scheduled_at, q.{key} AS job_key, q.claim_id,
              q.attempts, q.revision,
              extract(epoch FROM clock_timestamp() - greatest(q.scheduled_at, q.updated_at))::float8 AS due_for_s,
              (SELECT set_config('synchronous_commit', 'off', true)) AS unflushed, {columns}
), priorities AS (
    (SELECT priority FROM {table} WHERE status = 'Pending' ORDER BY status, priority LIMIT 1)
    UNION ALL
    SELECT (SELECT later.priority FROM {table} AS later
            WHERE later.status = 'Pending' AND later.priority > priorities.priority
            ORDER BY later.status, later.priority LIMIT 1)
    FROM priorities WHERE priorities.priority IS NOT NULL
), next AS (
    SELECT min((SELECT scheduled_at FROM {table} AS later
                WHERE later.status = 'Pending' AND later.priority = priorities.priority AND later.scheduled_at > now()
                ORDER BY later.status, later.priority, later.scheduled_at LIMIT 1)) AS at
    FROM priorities WHERE priorities.priority IS NOT NULL
)
SELECT extract(epoch FROM next.at - clock_timestamp())::float8 AS next_due_s, claimed.*
FROM next LEFT JOIN claimed ON true
ORDER BY job_priority, job_scheduled_at, job_key;

-- name: settle
-- Write the outcomes of many jobs at once. Fenced: a row is touched only while it still holds the very claim.
-- Returns the rows that were written; a job that is missing there lost its claim and its result is dropped.
-- Another revision than the one we read = edited in flight: back to work with the new content, whatever came out.
WITH outcome AS (
    SELECT * FROM unnest(
        %(keys)s::{key_type}[], %(claims)s::bigint[], %(kinds)s::text[], %(revisions)s::integer[],
        %(delays)s::float8[], %(errors)s::text[], %(values)s::jsonb[]
    ) AS o (row_key, claim_id, kind, revision, delay_s, error, result)
)
UPDATE {table} AS q
SET status = CASE
        WHEN q.revision <> o.revision THEN 'Pending'
        WHEN o.kind = 'complete' THEN {done}
        WHEN o.kind = 'fail' THEN 'Failed'
        ELSE 'Pending' END,
    attempts = CASE
        WHEN q.revision <> o.revision THEN 0
        WHEN o.kind IN ('snooze', 'release') THEN greatest(q.attempts - 1, 0)
        ELSE q.attempts END,
    scheduled_at = CASE
        WHEN q.revision <> o.revision THEN least(q.scheduled_at, now())
        WHEN o.kind IN ('retry', 'snooze') THEN now() + make_interval(secs => o.delay_s)
        ELSE q.scheduled_at END,
    last_error = CASE WHEN o.kind = 'complete' THEN NULL WHEN o.kind = 'release' THEN q.last_error
                      ELSE coalesce(o.error, q.last_error) END,
    finished_at = CASE WHEN q.revision = o.revision AND o.kind IN ('complete', 'fail') THEN clock_timestamp() END,
    claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(){results}
FROM outcome AS o
WHERE q.{key} = o.row_key AND q.claim_id = o.claim_id AND q.status = 'Processing'
RETURNING q.{key} AS job_key, q.status;

-- name: result_column
-- Not a statement: one member of settle's SET list, for each column that the queue lets `Done` write.
, {column} = CASE WHEN o.kind = 'complete' AND o.result ? {name} THEN (o.result ->> {name})::{type} ELSE q.{column} END

-- name: rescue
-- Give back the rows whose session is gone (its advisory lock is not in pg_locks), counting no attempt, or whose time
-- ran out although the session lives (a stopped process): that attempt counts. Rings once when there was any.
-- Locks: the rescued rows, passing over those that somebody is just settling.
WITH stranded AS MATERIALIZED (
    SELECT {key} AS row_key, (q.claimed_by IS NULL OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
          AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
          AND l.classid = %(lock_class)s::bigint::oid AND l.objid = q.claimed_by::oid)) AS is_orphan
    FROM {table} AS q
    WHERE q.status = 'Processing' AND q.claim_id IS NOT NULL
), freed AS MATERIALIZED (
    SELECT q.{key} AS row_key, stranded.is_orphan
    FROM {table} AS q JOIN stranded ON stranded.row_key = q.{key}
    WHERE q.status = 'Processing' AND q.claim_id IS NOT NULL
      AND (stranded.is_orphan AND q.claimed_at < statement_timestamp()
           OR q.claimed_at < now() - make_interval(secs => %(stale_s)s))
    FOR UPDATE OF q SKIP LOCKED
), rescued AS (
    UPDATE {table} AS q
    SET status = 'Pending', claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(),
        attempts = CASE WHEN freed.is_orphan THEN greatest(q.attempts - 1, 0) ELSE q.attempts END,
        last_error = CASE WHEN freed.is_orphan THEN q.last_error
                          ELSE 'The handler did not end within the operation timeout; the row was given back.' END
    FROM freed
    WHERE q.{key} = freed.row_key
    RETURNING 1
), counted AS (
    SELECT count(*) AS rows FROM rescued
)
SELECT rows, CASE WHEN rows > 0 THEN pg_notify('listener_wake', {table_name}) IS NULL END AS rung FROM counted;

-- name: release_strays
-- Give back rows that our own session holds but that nobody in this process works on: the reply to their claim was
-- lost, or their settle could not be written. Only called while no claim of this queue is under way here.
WITH released AS (
    UPDATE {table} AS q
    SET status = 'Pending', claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(),
        attempts = greatest(q.attempts - 1, 0)
    WHERE q.status = 'Processing' AND q.claimed_by = %(session_key)s AND NOT q.claim_id = ANY (%(held)s::bigint[])
    RETURNING 1
)
SELECT count(*) AS rows FROM released;

-- name: ring
-- Tell the other listeners that there is work which no trigger announced (released rows).
SELECT pg_notify('listener_wake', {table_name});

-- name: waiting
-- Due rows, counted up to %(most)s: enough for a person, and bounded for the database.
SELECT count(*) AS waiting FROM (
    SELECT FROM {table} WHERE status = 'Pending' AND scheduled_at <= now() LIMIT %(most)s
) AS due;

-- name: depth
-- The queue's figures for metrics and `listener status`. Each part reads a partial index.
SELECT (SELECT count(*) FROM {table} WHERE status = 'Pending') AS pending,
       (SELECT count(*) FROM {table} WHERE status = 'Processing') AS processing,
       (SELECT count(*) FROM {table} WHERE status = 'Failed') AS failed,
       (SELECT coalesce(extract(epoch FROM now() - min(scheduled_at)), 0)::float8
        FROM {table} WHERE status = 'Pending' AND scheduled_at <= now()) AS oldest_pending_s;

-- name: retry_failed
-- A person's retry of all failed rows.
UPDATE {table} SET status = 'Pending' WHERE status = 'Failed' RETURNING {key} AS job_key;

-- name: retry_keys
-- A person's retry of named rows. Done rows are run again as well; rows that are being worked on are left alone.
UPDATE {table} SET status = 'Pending'
WHERE {key} = ANY (%(keys)s::{key_type}[]) AND status IN ('Failed', {done})
RETURNING {key} AS job_key;
