-- The books of the SQL files: what `listener migrate` has applied to a schema. They also work where nothing is applied yet,
-- hence nothing here needs a function or a table of ours but the books themselves.

-- name: prepare_session
-- DDL and an index build take their time, whatever the role's settings say.
SELECT set_config('search_path', %(search_path)s, false), set_config('statement_timeout', '0', false),
       set_config('idle_in_transaction_session_timeout', '0', false), set_config('datestyle', 'ISO', false),
       set_config('intervalstyle', 'postgres', false), set_config('quote_all_identifiers', 'off', false);

-- name: limit_lock_waits
SELECT pg_catalog.set_config('lock_timeout', %(limit_ms)s, false);

-- name: take_turn
SELECT pg_catalog.pg_advisory_lock(%(turn)s);

-- name: has_schema
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s);

-- name: create_schema
-- A template, run and printed by --dry-run.
CREATE SCHEMA {schema};

-- name: create_books
CREATE TABLE IF NOT EXISTS listener_migrations (
    name text PRIMARY KEY,
    kind text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: script_head
-- Of the script that --dry-run prints.
SET search_path = {schema};
SET client_min_messages = warning;

-- name: has_books
SELECT pg_catalog.to_regclass(%(books)s) IS NOT NULL;

-- name: read_books
SELECT name, kind, checksum, applied_at FROM {schema}.listener_migrations;

-- name: enter
INSERT INTO listener_migrations (name, kind, checksum) VALUES ({name}, {kind}, {checksum})
ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = excluded.applied_at;

-- name: strike
DELETE FROM listener_migrations WHERE name = {name};

-- name: invalid_indexes
-- A concurrent index build that failed leaves an index that IF NOT EXISTS takes for a good one.
SELECT c.relname
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname = %(schema)s;

-- name: drop_index
DROP INDEX CONCURRENTLY {index};
