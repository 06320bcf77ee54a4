-- Make a table a queue, inside the caller's transaction; returns the queue's name. Running it again adds what is missing.
-- Writers of the table wait until the transaction ends, and the indexes are built in it: for a large table that is in
-- use, `listener attach` does the same in steps that keep nobody waiting.
-- key: a unique NOT NULL column, default the primary key. ready, done: words of the column status. content: columns whose
-- change makes a finished row work again, none by default. Null = as it is attached already, else the default.
CREATE OR REPLACE FUNCTION attach_queue(
    target regclass, key text DEFAULT NULL, ready text DEFAULT NULL, done text DEFAULT NULL, content text[] DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    step record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended('listener attach', target::oid::bigint)) THEN
        RAISE EXCEPTION 'table % is just being attached or detached', target USING ERRCODE = '55P03', HINT = 'wait for its end';
    END IF;
    FOR step IN SELECT * FROM attach_queue_plan(target, key, ready, done, content, online => false) LOOP
        EXECUTE step.statement;
    END LOOP;
    RETURN (listener_queue_declaration(target, NULL, NULL, NULL, NULL)).name;
END
$$;
