-- What a table is or will be as a queue: what was asked for, else what it is attached with, else the defaults.
-- Raises when the table cannot be that. The key and the words of an attached table stay: its rows and indexes have them.
-- A table that is on the books but without our trigger is another one of the same name: the first was dropped. One with
-- our trigger that is not on the books had another name, or was a partition.
CREATE OR REPLACE FUNCTION listener_queue_declaration(target regclass, key text, ready text, done text, content text[])
RETURNS listener_queues
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    entry listener_queues;
    before listener_queues;
    is_rung CONSTANT boolean := EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = 'listener_inserted');
BEGIN
    PERFORM listener_check_attachable(target);
    SELECT schema_name, table_name INTO entry.table_schema, entry.table_name FROM listener_queue_relations(target) WHERE is_root;
    SELECT * INTO before FROM listener_queues AS q
    WHERE q.table_schema = entry.table_schema AND q.table_name = entry.table_name AND is_rung;
    IF is_rung AND before.name IS NULL THEN
        RAISE EXCEPTION '% has the triggers of a queue, but is not on the books', target
            USING ERRCODE = '22023', HINT = format('if it was renamed: give it its former name and schema, detach it, and rename it then;'
                            ' if it was a partition of a queue: DROP TRIGGER listener_inserted ON %s', target);
    END IF;
    entry.name := CASE WHEN entry.table_schema = current_schema() THEN entry.table_name
                       ELSE concat(entry.table_schema, '.', entry.table_name) END;
    entry.key_column := listener_queue_key(target, coalesce(key, before.key_column));
    entry.key_type := (SELECT format_type(atttypid, -1) FROM pg_attribute WHERE attrelid = target AND attname = entry.key_column);
    entry.ready_word := coalesce(ready, before.ready_word, 'Pending');
    entry.done_word := coalesce(done, before.done_word, 'Done');
    entry.content := coalesce(content, before.content, '{}');
    entry.added := coalesce(before.added, '{"columns": [], "defaults": [], "indexes": [], "triggers": []}');
    entry.attached_at := before.attached_at;
    IF is_rung AND (entry.key_column, entry.ready_word, entry.done_word)
                   IS DISTINCT FROM (before.key_column, before.ready_word, before.done_word) THEN
        RAISE EXCEPTION '% is attached with the key %, the ready word % and the done word %', target, before.key_column,
            quote_literal(before.ready_word), quote_literal(before.done_word)
            USING ERRCODE = '22023', HINT = 'leave these out, or detach the table first; only its content columns can be changed';
    END IF;
    PERFORM listener_check_columns(target);
    PERFORM listener_check_words(target, entry.ready_word, entry.done_word);
    PERFORM listener_check_content(target, entry.key_column, entry.content);
    RETURN entry;
END
$$;
