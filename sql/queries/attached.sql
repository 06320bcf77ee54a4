-- Attached tables: what the engine reads of them, and what `listener attach` and `listener detach` ask.

-- name: attached
-- One row for each attached table, with its own columns: those of the queue are not a handler's business, except for
-- created_at, which is the row's.
-- key_is_text: what Python makes of a value of that type is not always the same value again, or no value at all (infinite
-- dates, months of an interval, arrays of arrays, JSON).
SELECT q.name, q.table_schema, q.table_name, q.key_column, q.key_type, q.ready_word, q.done_word, q.content,
       (SELECT t.typcategory IN ('A', 'C', 'D', 'R', 'T') OR t.typoutput = 'jsonb_out'::regproc
        FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attname = q.key_column) AS key_is_text,
       q.attached_at IS NOT NULL AS is_complete, c.oid IS NOT NULL AS is_there,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(
                   a.attname, a.attname <> q.key_column AND a.attgenerated = '' AND a.attidentity <> 'a')
                   ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname NOT IN (SELECT own.name FROM listener_queue_columns() AS own WHERE own.name <> 'created_at')
       ) AS columns
FROM listener_queues AS q
LEFT JOIN (pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace)
    ON n.nspname = q.table_schema AND c.relname = q.table_name
ORDER BY q.name;

-- name: find_table
-- As the names are written: no folding of case, whatever kind of relation it is. No row = there is none.
SELECT c.oid::bigint AS target FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s;

-- name: all_tables
-- For a guess at what was meant.
SELECT n.nspname AS schema, c.relname AS table FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2;

-- name: attach_turn
-- Held by the session, so that two runs never mix; attach_queue takes the same one.
SELECT pg_catalog.pg_try_advisory_lock(hashtextextended('listener attach', %(target)s::bigint)) AS taken;

-- name: limit_locks
-- A writer that stands behind our wait for a lock waits no longer than this.
SET LOCAL lock_timeout = {limit};

-- name: attach_entry
SELECT name, table_schema, table_name, key_column, ready_word, done_word, content
FROM listener_queue_declaration(%(target)s::bigint::oid, %(key)s, %(ready)s, %(done)s, %(content)s::text[]);

-- name: attach_steps
SELECT alone, statement
FROM attach_queue_plan(%(target)s::bigint::oid, %(key)s, %(ready)s, %(done)s, %(content)s::text[]);

-- name: detach_steps
SELECT statement FROM detach_queue_plan(%(target)s::bigint::oid) AS statement;

-- name: detach
SELECT detach_queue(%(target)s::bigint::oid, %(force)s);

-- name: forget
-- Of a table that was dropped: there is nothing else to take away.
DELETE FROM listener_queues AS q WHERE q.table_schema = %(schema)s AND q.table_name = %(table)s RETURNING q.name;
