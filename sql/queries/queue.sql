-- Every statement that touches a queue table. Templates: {table}, {key}, {ready}, {done}, {columns}, {results} are composed
-- with psycopg.sql once at start (listener/db/queue.py).

-- name: claim
-- Take at most %(limit)s due rows for our session, and say in the same round trip when the next row comes due.
-- Returns at least one row; key is null when nothing was claimed. passed_over: there are due rows that somebody has
-- locked, and no trigger will tell of the lock's end; only worked out when there was room for them.
-- NO KEY: whoever inserts a row that refers to ours locks ours for that, and need not keep us away.
-- MATERIALIZED: under a nested loop the IN (SELECT … LIMIT …) form claimed 2,000 rows for LIMIT 10 (measured).
-- synchronous_commit = off for this transaction only: a claim lost in a server crash is an open row again.
-- scheduled_at as a number: Python has no time for '-infinity', and would lose the whole claim over it.
-- Each priority is read no further than now(): a million rows due later cost a few index descents. Row comparisons and
-- arrays name the index's first column in a way that the planner does not drop as implied by the index's predicate;
-- without it servers before 18 read the whole index (measured, 100,000 rows due later: a claim of 100 in 13.5 ms, 2.7 ms).
-- And none sooner than its first row: what lies before are entries of rows that were claimed, which the index keeps while
-- VACUUM is held off; they are visited once, not by each part. A place is compared in the columns that have no value given
-- besides, or Postgres checks it entry by entry instead of going there (measured, 195,000 such entries: 17.6 ms, 1.2 ms).
WITH RECURSIVE {priorities}, due AS MATERIALIZED (
    SELECT batch.due_key
    FROM priorities CROSS JOIN LATERAL (
        SELECT q.{key} AS due_key
        FROM {table} AS q
        WHERE q.status = {ready} AND q.priority = priorities.priority AND q.scheduled_at <= now()
          AND (q.scheduled_at, q.{key}) >= (priorities.scheduled_at, priorities.key){unblocked}
        ORDER BY q.status, q.priority, q.scheduled_at, q.{key}
        LIMIT %(limit)s
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS batch
    LIMIT %(limit)s
), claimed AS (
    UPDATE {table} AS q
    SET status = 'Processing', attempts = least(coalesce(q.attempts, 0), 2147483646) + 1, claim_id = (SELECT nextval({claim_sequence})),
        claimed_by = %(session_key)s, claimed_at = clock_timestamp()
    FROM due
    WHERE q.{key} = due.due_key
    RETURNING q.priority AS job_priority, extract(epoch FROM q.scheduled_at)::float8 AS job_scheduled_at,
              {job_key} AS job_key, q.claim_id, q.attempts, coalesce(q.revision, 0) AS revision,
              coalesce(extract(epoch FROM clock_timestamp() - greatest(nullif(q.scheduled_at, '-infinity'), nullif(q.updated_at, 'infinity'))),
                       0)::float8 AS due_for_s,
              (SELECT set_config('synchronous_commit', 'off', true)) AS unflushed{columns}
), next AS (
    SELECT min(nullif(later.scheduled_at, 'infinity')) AS at
    FROM priorities CROSS JOIN LATERAL (
        SELECT q.scheduled_at FROM {table} AS q
        WHERE q.status = {ready} AND q.status = ANY (ARRAY[CASE WHEN priorities.priority IS NOT NULL THEN {ready}::text END])
          AND q.priority = priorities.priority AND q.scheduled_at > now()
        ORDER BY q.status, q.priority, q.scheduled_at LIMIT 1
    ) AS later
), passed AS (
    SELECT CASE WHEN (SELECT count(*) FROM due) < %(limit)s THEN EXISTS (
        SELECT FROM priorities CROSS JOIN LATERAL (
            SELECT FROM {table} AS q
            WHERE q.status = {ready} AND q.status = ANY (ARRAY[CASE WHEN priorities.priority IS NOT NULL THEN {ready}::text END])
              AND q.priority = priorities.priority AND q.scheduled_at <= now()
              AND (q.scheduled_at, q.{key}) >= (priorities.scheduled_at, priorities.key)
              AND q.{key} NOT IN (SELECT due_key FROM due){unblocked}
            LIMIT 1
        ) AS left_behind) ELSE false END AS over
)
SELECT job_priority, job_scheduled_at, job_key, claim_id, attempts, revision, due_for_s{names},
       extract(epoch FROM next.at - clock_timestamp())::float8 AS next_due_s, passed.over AS passed_over,
       extract(epoch FROM clock_timestamp() - statement_timestamp())::float8 AS search_s
FROM next CROSS JOIN passed LEFT JOIN claimed ON true
ORDER BY job_priority, job_scheduled_at, job_key;

-- name: claim_quick
-- The claim alone: nothing of rows that are due later, are locked or were passed over, so nobody may sleep on its word.
-- Most rows are claimed by it; its reply comes 0.3 ms sooner while all is idle (measured). By ctid, which never claims too
-- many, but passes over a row that another transaction updates between snapshot and lock: it stays ready, and the next
-- claim finds it. Rows due later are walked through to reach the next priority (before 18): whoever sees the search take
-- long, up to the first row, asks with the other one. Not for a queue with a concurrency key. The rows come in no order.
-- ONLY: a ctid means nothing in another partition. Of a partitioned table this claims nothing, the other one does.
UPDATE ONLY {table} AS q
SET status = 'Processing', attempts = least(coalesce(q.attempts, 0), 2147483646) + 1, claim_id = (SELECT nextval({claim_sequence})),
    claimed_by = %(session_key)s, claimed_at = clock_timestamp()
WHERE q.ctid = ANY (ARRAY(
    SELECT due.ctid FROM ONLY {table} AS due
    WHERE due.status = {ready} AND due.priority IS NOT NULL AND due.scheduled_at <= now()
    ORDER BY due.status, due.priority, due.scheduled_at, due.{key}
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED))
RETURNING q.priority AS job_priority, date_part('epoch', q.scheduled_at) AS job_scheduled_at,
          {job_key} AS job_key, q.claim_id, q.attempts, coalesce(q.revision, 0) AS revision,
          coalesce(date_part('epoch', clock_timestamp() - greatest(nullif(q.scheduled_at, '-infinity'), nullif(q.updated_at, 'infinity'))),
                   0) AS due_for_s{columns},
          (SELECT set_config('synchronous_commit', 'off', true)) AS unflushed,
          date_part('epoch', clock_timestamp() - statement_timestamp()) AS search_s;

-- name: all_priorities
-- Not a statement: the priorities of a claim that looks at all rows, each with its first one. It hops from one to the next.
priorities AS (
    (SELECT q.priority, q.scheduled_at, q.{key} AS key FROM {table} AS q
     WHERE q.status = {ready} ORDER BY q.status, q.priority, q.scheduled_at, q.{key} LIMIT 1)
    UNION ALL
    SELECT later.priority, later.scheduled_at, later.key
    FROM priorities CROSS JOIN LATERAL (
        SELECT q.priority, q.scheduled_at, q.{key} AS key FROM {table} AS q
        WHERE q.status = {ready} AND (q.status, q.priority) > ({ready}, priorities.priority)
        ORDER BY q.status, q.priority, q.scheduled_at, q.{key} LIMIT 1
    ) AS later
)

-- name: known_priorities
-- Not a statement: the priorities of a claim that goes on from a place in each known one; in what lies between them from
-- the first row on. What lies before the places are mostly rows that have been claimed; while VACUUM is held off, the
-- index keeps them, and each look at all rows visits all of them.
known AS (
    SELECT known.priority, to_timestamp(known.scheduled_at_s) AS scheduled_at, known.key::{key_type} AS key
    FROM unnest(%(priorities)s::bigint[], %(scheduled_at_s)s::float8[], %(keys)s::{sent_key_type}[]) AS known (priority, scheduled_at_s, key)
), priorities AS (
    (SELECT * FROM (
        (SELECT q.priority, q.scheduled_at, q.{key} AS key FROM {table} AS q
         WHERE q.status = {ready} AND q.status = ANY (ARRAY[(SELECT {ready}::text)])
           AND q.priority < (SELECT min(known.priority) FROM known)
         ORDER BY q.status, q.priority, q.scheduled_at, q.{key} LIMIT 1)
        UNION ALL
        (SELECT known.priority, known.scheduled_at, known.key FROM known ORDER BY known.priority LIMIT 1)
    ) AS either ORDER BY either.priority LIMIT 1)
    UNION ALL
    SELECT next.priority, next.scheduled_at, next.key FROM priorities CROSS JOIN LATERAL (
        SELECT * FROM (
            (SELECT q.priority, q.scheduled_at, q.{key} AS key FROM {table} AS q
             WHERE q.status = {ready} AND q.status = ANY (ARRAY[(SELECT {ready}::text)]) AND q.priority > priorities.priority
               AND q.priority < coalesce(
                   (SELECT min(known.priority) FROM known WHERE known.priority > priorities.priority), 9223372036854775807)
             ORDER BY q.status, q.priority, q.scheduled_at, q.{key} LIMIT 1)
            UNION ALL
            (SELECT known.priority, known.scheduled_at, known.key FROM known WHERE known.priority > priorities.priority
             ORDER BY known.priority LIMIT 1)
        ) AS either ORDER BY either.priority LIMIT 1
    ) AS next
)

-- name: unblocked
-- Not a statement: a condition of the claim, for a queue with a concurrency key. A row whose key is running is no work yet;
-- the end of that run rings. Who reads an older snapshot is refused by the key's unique index: nothing claimed.
 AND NOT EXISTS (SELECT FROM {table} AS running WHERE running.status = 'Processing'{same_key})

-- name: same_key
-- Not a statement: one column of it.
 AND running.{column} = q.{column}

-- name: settle
-- Write the outcomes of many jobs at once. Fenced: a row is touched only while it still holds the very claim.
-- Returns the rows that were written; a job that is missing there lost its claim and its result is dropped.
-- Another revision than the one we read = edited in flight: back to work with the new content, whatever came out.
-- An adopted table may hold rows without a revision or a number of attempts: none is 0.
-- The status as an expression: else a plan made for few rows walks the index of all Processing rows once for each outcome
-- (measured, 500 of 500: 100 ms against 8 ms), where the key finds each at once.
-- An array that is shorter than the keys counts as filled up with complete, revision 0 and no delay, error or result:
-- what is usual is not sent.
WITH outcome AS (
    SELECT o.row_key::{key_type} AS row_key, o.claim_id, coalesce(o.kind, 'complete') AS kind, coalesce(o.revision, 0) AS revision,
           coalesce(o.delay_s, 0) AS delay_s, o.error, o.result
    FROM unnest(
        %(keys)s::{sent_key_type}[], %(claims)s::bigint[], %(kinds)s::text[], %(revisions)s::integer[],
        %(delays)s::float8[], %(errors)s::text[], %(values)s::jsonb[]
    ) AS o (row_key, claim_id, kind, revision, delay_s, error, result)
)
UPDATE {table} AS q
SET status = CASE
        WHEN q.revision <> o.revision THEN {ready}
        WHEN o.kind = 'complete' THEN {done}
        WHEN o.kind = 'fail' THEN 'Failed'
        ELSE {ready} END,
    attempts = CASE
        WHEN q.revision <> o.revision THEN 0
        WHEN o.kind IN ('snooze', 'release') THEN greatest(q.attempts - 1, 0)
        ELSE q.attempts END,
    scheduled_at = CASE
        WHEN coalesce(q.revision, 0) = o.revision AND o.kind IN ('retry', 'snooze') THEN now() + make_interval(secs => o.delay_s)
        ELSE q.scheduled_at END,
    last_error = CASE WHEN o.kind = 'complete' THEN NULL WHEN o.kind = 'release' THEN q.last_error
                      ELSE coalesce(o.error, q.last_error) END,
    finished_at = CASE WHEN coalesce(q.revision, 0) = o.revision AND o.kind IN ('complete', 'fail') THEN clock_timestamp() END,
    claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(){results}
FROM outcome AS o
WHERE q.{key} = o.row_key AND q.claim_id = o.claim_id AND q.status || '' = 'Processing'
RETURNING {job_key} AS job_key, o.claim_id, q.status = {ready} AND q.scheduled_at <= now() AS is_due;

-- name: result_column
-- Not a statement: one member of settle's SET list, for each column that the queue lets `Done` write. As a record of the
-- table, so that a list becomes an array, and a text in a json column stays a text.
, {column} = CASE WHEN o.kind = 'complete' AND o.result ? {name}
                  THEN (jsonb_populate_record(NULL::{table}, o.result)).{column} ELSE q.{column} END

-- name: rescue
-- Give back the rows whose session is gone (its advisory lock is not in pg_locks), counting no attempt, or whose time
-- ran out although the session lives (a stopped process): that attempt counts. Rings once when there was any.
-- Locks: the rescued rows, passing over those that somebody is just settling.
-- pg_locks is read once and the table once: joined to itself it took 0.9 s for 1,500 rows, growing with their square.
-- claimed_at: a row that another rescue freed and a newcomer claimed meanwhile is not an orphan of the old list.
WITH alive AS MATERIALIZED (
    {alive}
), freed AS MATERIALIZED (
    SELECT q.{key} AS row_key, q.claimed_by IS NULL OR q.claimed_by NOT IN (SELECT session_key FROM alive) AS is_orphan
    FROM {table} AS q
    WHERE q.status = 'Processing' AND q.claim_id IS NOT NULL
      AND {is_stranded}
    FOR UPDATE OF q SKIP LOCKED
), rescued AS (
    UPDATE {table} AS q
    SET status = {ready}, claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(),
        attempts = CASE WHEN freed.is_orphan THEN greatest(q.attempts - 1, 0) ELSE q.attempts END,
        last_error = CASE WHEN freed.is_orphan THEN q.last_error
                          ELSE 'The handler did not end within its timeout; the row was given back.' END
    FROM freed
    WHERE q.{key} = freed.row_key
    RETURNING 1
), counted AS (
    SELECT count(*) AS rows FROM rescued
)
SELECT rows, CASE WHEN rows > 0 THEN pg_notify('listener_wake', {table_name} || chr(9) || 'listener') IS NULL END AS rung FROM counted;

-- name: alive
-- Not a statement: the keys of the sessions that live.
SELECT l.objid::bigint AS session_key
FROM pg_catalog.pg_locks AS l
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.classid = %(lock_class)s::bigint::oid

-- name: is_stranded
-- Not a statement: the condition of a row that `rescue` gives back; `alive` is read only when there is a row in work.
((q.claimed_by IS NULL OR q.claimed_by NOT IN (SELECT session_key FROM alive))
 AND coalesce(q.claimed_at, '-infinity') < statement_timestamp()
 OR coalesce(q.claimed_at, '-infinity') < now() - make_interval(secs => {stale_s})
 OR q.claimed_at = 'infinity')

-- name: nth_stale_s
-- Not a statement: each queue has its own timeout.
(%(stale_s)s::float8[])[{number}]

-- name: survey
-- What the safety poll asks about one queue; a part of the one statement that asks about all (`survey.sql`), where it
-- is the {number}th. No locks. next_due_s: seconds until the first ready row is due, 0 = there is one that is due,
-- null = there is none; hops like the claim, two index descents for each priority. has_stranded: `rescue` would give
-- rows back. has_strays: rows are held by our session under a claim that is not in held, for 5 s: the reply of a younger one
-- may be on its way, and then the answer, a look that no claim may be beside, would come with each poll of a busy queue.
-- All three visit every dead entry: unless is_whole, they are 0, false and false. has_bell: a session that lives has the doorbell on; null = not asked.
-- (CASE: pg_locks is read only when it is asked, or when there is a row in work.)
WITH RECURSIVE alive AS MATERIALIZED (
    {alive}
), {priorities}, held AS (
    SELECT bool_or({is_stranded}) AS has_stranded,
           bool_or(q.claimed_by = %(session_key)s AND q.claim_id <> ALL ((%(held)s::text[])[{number}]::bigint[])
                   AND q.claimed_at < statement_timestamp() - interval '5 seconds') AS has_strays
    FROM {table} AS q
    WHERE q.status = 'Processing' AND q.claim_id IS NOT NULL AND %(is_whole)s
)
SELECT {number} AS number,
       CASE WHEN NOT %(is_whole)s THEN 0 ELSE
           (SELECT CASE WHEN min(priorities.scheduled_at) <= now() THEN 0
                        ELSE extract(epoch FROM min(nullif(priorities.scheduled_at, 'infinity')) - clock_timestamp()) END::float8
            FROM priorities) END AS next_due_s,
       coalesce(held.has_stranded, false) AS has_stranded, coalesce(held.has_strays, false) AS has_strays,
       CASE WHEN (%(asks_bell)s::boolean[])[{number}] THEN {has_bell} END AS has_bell
FROM held

-- name: stranded
-- For a person: the rows whose session is gone, which `rescue` would give back, oldest claim first. No locks.
SELECT {job_key} AS job_key, q.claimed_by, q.claimed_at::text AS claimed_at
FROM {table} AS q
WHERE q.status = 'Processing' AND q.claim_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.objid::bigint = q.claimed_by
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND l.classid = %(lock_class)s::bigint::oid)
ORDER BY q.claimed_at, q.{key};

-- name: release_strays
-- Give back rows that our own session holds but that nobody in this process works on: the reply to their claim was
-- lost, or their settle could not be written. Only called while no claim of this queue is under way here.
WITH released AS (
    UPDATE {table} AS q
    SET status = {ready}, claim_id = NULL, claimed_by = NULL, claimed_at = NULL, updated_at = clock_timestamp(),
        attempts = greatest(q.attempts - 1, 0)
    WHERE q.status = 'Processing' AND q.claimed_by = %(session_key)s
      AND q.claim_id IS NOT NULL AND q.claim_id <> ALL (%(held)s::bigint[])
    RETURNING 1
)
SELECT count(*) AS rows FROM released;

-- name: ring
-- Tell the other listeners that there is work which no trigger announced: released rows, more than we have slots for.
-- The tab tells it from a writer's ring.
SELECT pg_notify('listener_wake', {table_name} || chr(9) || 'listener');

-- name: arm
-- Turn the doorbell on: who gets the exclusive lock has proof that no writer is in flight that saw it off. Elsewhere =
-- another session has it on. Busy = writers are in flight, or a session that is just ending still has it on: its
-- lease (its other lock) may be gone before its bell, and who was told of its end must not rely on that bell.
-- (CASE: one after the other.)
SELECT CASE
    WHEN pg_try_advisory_lock(1869374562, {relation}::regclass::oid::integer) THEN 'held'
    WHEN {has_bell} THEN 'elsewhere'
    ELSE 'busy' END AS bell;

-- name: has_bell
-- Not a statement: a session that lives has the doorbell on.
EXISTS (
    SELECT FROM (
        SELECT bool_or(classid = 1869374562::oid AND objid = {relation}::regclass::oid) AS has_bell,
               bool_or(classid <> 1869374562::oid) AS has_lease
        FROM pg_catalog.pg_locks
        WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND mode = 'ExclusiveLock'
          AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        GROUP BY pid) AS session
    WHERE has_bell AND has_lease)

-- name: silence
-- Turn our doorbell off: from now on writers ring nobody.
SELECT pg_advisory_unlock(1869374562, {relation}::regclass::oid::integer) AS was_on;

-- name: waiting
-- Due rows, counted up to %(most)s: enough for a person, and bounded for the database. Hops like the claim; the array
-- keeps the index's first column in the condition, as the row comparison does there.
WITH RECURSIVE {priorities}
SELECT count(*) AS waiting FROM (
    SELECT FROM priorities CROSS JOIN LATERAL (
        SELECT FROM {table} AS q
        WHERE q.status = {ready} AND q.status = ANY (ARRAY[CASE WHEN priorities.priority IS NOT NULL THEN {ready}::text END])
          AND q.priority = priorities.priority AND q.scheduled_at <= now()
          AND (q.scheduled_at, q.{key}) >= (priorities.scheduled_at, priorities.key)
        LIMIT %(most)s
    ) AS due
    LIMIT %(most)s
) AS due;

-- name: depth
-- The queue's figures for metrics and `listener status`. Each part reads a partial index.
SELECT (SELECT count(*) FROM {table} WHERE status = {ready}) AS pending,
       (SELECT count(*) FROM {table} WHERE status = 'Processing') AS processing,
       (SELECT count(*) FROM {table} WHERE status = 'Failed') AS failed,
       (SELECT coalesce(extract(epoch FROM now() - min(scheduled_at)), 0)::float8
        FROM {table} WHERE status = {ready} AND scheduled_at <= now() AND scheduled_at > '-infinity') AS oldest_pending_s;

-- name: retry_failed
-- A person's retry of all failed rows.
UPDATE {table} SET status = {ready} WHERE status = 'Failed' RETURNING {key} AS job_key;

-- name: retry_keys
-- A person's retry of named rows. Done rows are run again as well; rows that are being worked on are left alone.
-- Keys come and go back as the text that a person wrote, whatever their type.
WITH wanted AS MATERIALIZED (
    SELECT w.given, w.given::{key_type} AS row_key FROM unnest(%(keys)s::text[]) AS w (given)
), retried AS (
    UPDATE {table} AS q SET status = {ready} FROM wanted AS w
    WHERE q.{key} = w.row_key AND q.status IN ('Failed', {done})
    RETURNING q.{key} AS row_key
)
SELECT w.given AS job_key, (SELECT count(*) FROM retried) AS rows FROM wanted AS w WHERE w.row_key IN (SELECT row_key FROM retried);

-- name: statuses
-- For the assertions of tests: the rows whose columns have the values in %(where)s, all rows for an empty object.
SELECT q.status, q.last_error FROM {table} AS q WHERE to_jsonb(q) @> %(where)s::jsonb;
