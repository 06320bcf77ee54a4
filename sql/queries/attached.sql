-- Attached tables: what the engine reads of them, and what `listener attach` and `listener detach` ask.

-- name: attached
-- One row for each attached table, with its own columns: those of the queue are not a handler's business, except for
-- created_at, which is the row's. Types without a length: a value that is too long is refused and not cut off.
SELECT q.name, q.table_schema, q.table_name, q.key_column, q.key_type, q.ready_word, q.done_word, q.content,
       q.attached_at IS NOT NULL AS is_complete, c.oid IS NOT NULL AS is_there,
       (SELECT coalesce(jsonb_agg(jsonb_build_array(
                   a.attname, pg_catalog.format_type(a.atttypid, -1),
                   a.attname <> q.key_column AND a.attgenerated = '' AND a.attidentity <> 'a') ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND a.attname NOT IN (SELECT own.name FROM listener_queue_columns() AS own WHERE own.name <> 'created_at')
       ) AS columns
FROM listener_queues AS q
LEFT JOIN (pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace)
    ON n.nspname = q.table_schema AND c.relname = q.table_name
ORDER BY q.name;
