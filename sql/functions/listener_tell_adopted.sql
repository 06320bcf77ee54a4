-- One notice for each column that the table brought along and that becomes the queue's: what the engine will do with it.
-- created_at is not named by the engine, and stays the row's.
CREATE OR REPLACE FUNCTION listener_tell_adopted(target regclass, entry listener_queues) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    meanings CONSTANT jsonb := jsonb_build_object(
        'status', format('a row with %L is work, also one that is there already; Processing, %s and Failed are written into it',
                         entry.ready_word, entry.done_word),
        'priority', 'a lower one runs sooner',
        'scheduled_at', 'no row is worked on before it, and a retry puts it off',
        'attempts', 'claims are counted in it, on top of what it holds, and a row that has come to max_attempts fails at its next error',
        'claim_id', 'it is written at each claim, and emptied at its end',
        'claimed_by', 'it is written at each claim, and emptied at its end',
        'claimed_at', 'it is written at each claim, and emptied at its end',
        'revision', 'changes of the content are counted in it',
        'last_error', 'what went wrong is written into it, and taken away by a success',
        'finished_at', 'the moment at which a row is done or failed is written into it, and taken away by a retry',
        'updated_at', 'the moment of each outcome is written into it');
    found record;
BEGIN
    FOR found IN
        SELECT own.name, meanings ->> own.name AS meaning
        FROM listener_queue_columns() AS own
        JOIN pg_attribute AS a ON a.attrelid = target AND a.attname = own.name AND NOT a.attisdropped
        WHERE own.accepted IS NOT NULL AND NOT entry.added -> 'columns' ? own.name
        ORDER BY a.attnum
    LOOP
        RAISE NOTICE '% of % becomes the queue''s, and handlers do not see it: %', found.name, target, found.meaning;
    END LOOP;
END
$$;
