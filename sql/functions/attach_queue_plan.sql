-- The statements that make a table a queue, in order, without those whose work is done already: none = it is attached.
-- alone: outside of any transaction; what stands between two of those is one transaction, and holds its locks for
-- milliseconds: constant defaults rewrite nothing. online = false: for a caller that is inside a transaction.
-- The books are written together with what they record, so that attach and detach both know how far the other one came.
-- Callers: attach_queue, `listener attach`, and whoever wants to see it. Raises what cannot be, by its SQLSTATE 22023.
CREATE OR REPLACE FUNCTION attach_queue_plan(
    target regclass, key text DEFAULT NULL, ready text DEFAULT NULL, done text DEFAULT NULL, content text[] DEFAULT NULL,
    online boolean DEFAULT true
) RETURNS TABLE (alone boolean, statement text)
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    home CONSTANT text := current_schema();
    entry listener_queues := listener_queue_declaration(target, key, ready, done, content);
    before listener_queues;
    place CONSTANT text := format('%I.%I', entry.table_schema, entry.table_name);
    missing text[];
    bare text[];
    is_unset boolean;
    nullable text;
BEGIN
    SELECT * INTO before FROM listener_queues AS q WHERE q.name = entry.name;
    SELECT coalesce(array_agg(own.name ORDER BY own.name) FILTER (WHERE a.attname IS NULL), '{}'),
           coalesce(array_agg(own.name) FILTER (WHERE NOT a.atthasdef AND own.name IN ('priority', 'scheduled_at')), '{}'),
           bool_or(own.name = 'status' AND NOT a.atthasdef),
           string_agg(own.name, ', ') FILTER (WHERE NOT a.attnotnull AND own.name IN ('priority', 'scheduled_at'))
    INTO missing, bare, is_unset, nullable
    FROM listener_queue_columns() AS own
    LEFT JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = own.name AND NOT a.attisdropped;
    entry.added := jsonb_build_object(
        'columns', entry.added -> 'columns' || to_jsonb(missing),
        'defaults', entry.added -> 'defaults' || to_jsonb(bare),
        'indexes', (SELECT jsonb_agg(listener_object_name(entry.table_name, i.suffix)) FROM listener_queue_indexes(entry) AS i),
        'triggers', (SELECT jsonb_agg(t.name) FROM listener_queue_triggers(entry) AS t));

    IF is_unset THEN
        RAISE NOTICE 'status of % has no default: a new row is work only when it is inserted with status %', target, quote_literal(entry.ready_word);
    END IF;
    IF nullable IS NOT NULL THEN
        RAISE NOTICE '% of % may be null: a row without is never claimed', nullable, target;
    END IF;
    IF entry.attached_at IS NULL THEN
        PERFORM listener_tell_adopted(target, entry);
    END IF;
    IF entry IS DISTINCT FROM before THEN
        RETURN QUERY SELECT false, format(
            'INSERT INTO %I.listener_queues AS q (name, table_schema, table_name, key_column, key_type, ready_word, done_word, content, added)'
            ' VALUES (%L, %L, %L, %L, %L, %L, %L, %L, %L) ON CONFLICT (table_schema, table_name) DO UPDATE SET key_column = excluded.key_column,'
            ' key_type = excluded.key_type, ready_word = excluded.ready_word, done_word = excluded.done_word,'
            ' content = excluded.content, added = excluded.added, attached_at = %L',
            home, entry.name, entry.table_schema, entry.table_name, entry.key_column, entry.key_type, entry.ready_word,
            entry.done_word, entry.content, entry.added, entry.attached_at);
    END IF;
    IF missing <> '{}' THEN
        RETURN QUERY SELECT false, format('ALTER TABLE %s %s', place, string_agg(
            format('ADD COLUMN %I %s%s', own.name, own.added_type, own.definition), ', '))
        FROM listener_queue_columns() AS own WHERE own.name = ANY (missing);
    END IF;
    -- Rows that are there already are no work; from now on a new row is. A column that the table brought along gets a
    -- default only where a row without a value would never be claimed.
    IF 'status' = ANY (missing) THEN
        RETURN QUERY SELECT false, format('ALTER TABLE %s ALTER COLUMN status SET DEFAULT %L', place, entry.ready_word);
    END IF;
    RETURN QUERY SELECT false, format('ALTER TABLE %s ALTER COLUMN %I SET %s', place, own.name, substring(own.definition FROM 'DEFAULT .*'))
    FROM listener_queue_columns() AS own WHERE own.name = ANY (bare);
    RETURN QUERY SELECT * FROM listener_attach_triggers(target, entry, entry.content IS DISTINCT FROM before.content);
    RETURN QUERY SELECT * FROM listener_attach_indexes(target, entry, online);
    IF entry.attached_at IS NULL THEN
        RETURN QUERY SELECT false, format('UPDATE %I.listener_queues SET attached_at = now() WHERE name = %L', home, entry.name);
    END IF;
END
$$;
