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

-- name: foreign_tables
-- What has a name of ours and cannot be ours: no table, or without columns that ours had from its first day on; tables of
-- the older scripts are taken over as they are. made_by: the file that makes ours; null = the books themselves.
SELECT c.relname::text AS relation, o.made_by, CASE WHEN c.relkind IN ('r', 'p') THEN lacks.names END AS lacks
FROM (VALUES
    ('listener_migrations', NULL, 'name kind checksum applied_at'),
    ('orders_inbox', 'migrations/0002_orders_inbox.sql', ''),
    ('configuration_params', 'migrations/0003_configuration.sql', 'param_key param_value'),
    ('configuration_history', 'migrations/0003_configuration.sql', 'param_key old_value new_value changed_at changed_by'),
    ('polling_state', 'migrations/0004_polling.sql', 'id'),
    ('polling_metrics', 'migrations/0004_polling.sql', 'workflow_name check_timestamp record_count action_taken duration_ms'),
    ('api_budgets', 'migrations/0005_api_budgets.sql', 'connector account call_limit window_s remaining'),
    ('listener_queues', 'migrations/0009_queues.sql', 'name table_schema table_name key_column key_type'),
    ('import_files', 'migrations/0011_import_files.sql', 'id status claim_id source sha256'),
    ('sync_runs', 'migrations/0012_sync_runs.sql', 'id status claim_id connector account reason'),
    ('shipstation_orders', 'migrations/0013_shipstation_state.sql', 'account order_id order_key order_status'),
    ('shipstation_parcels', 'migrations/0013_shipstation_state.sql', 'account kind parcel_id order_id'),
    ('sync_quarantine', 'migrations/0014_sync_quarantine.sql', 'account list place error'),
    ('webhook_events', 'migrations/0015_webhook_events.sql', 'connector account dedupe_key body')
) AS o (relation, made_by, columns)
JOIN pg_catalog.pg_class AS c ON c.relname = o.relation
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = %(schema)s
CROSS JOIN LATERAL (
    SELECT array_agg(w.name ORDER BY w.place) AS names FROM unnest(string_to_array(o.columns, ' ')) WITH ORDINALITY AS w (name, place)
    WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = w.name AND a.attnum > 0 AND NOT a.attisdropped)
) AS lacks
WHERE c.relkind NOT IN ('r', 'p') OR lacks.names IS NOT NULL
ORDER BY o.made_by NULLS FIRST, 1;

-- name: invalid_indexes
-- A concurrent index build that failed leaves an index that IF NOT EXISTS takes for a good one.
SELECT c.relname
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname = %(schema)s;

-- name: drop_index
DROP INDEX CONCURRENTLY {index};
