-- Take away from a table what attach added to it; the table is then as it was, with its rows. Columns that the table had
-- before stay, with what is in them. Writers wait until the caller's transaction ends.
-- Refuses while a listener works on rows of it, unless force: then their outcomes are lost. Counts them by the index,
-- because the table is locked by then.
CREATE OR REPLACE FUNCTION detach_queue(target regclass, force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan TO off
AS $$
DECLARE
    step text;
    busy bigint;
BEGIN
    FOR step IN SELECT * FROM detach_queue_plan(target) LOOP
        EXECUTE step;
        IF step LIKE 'LOCK TABLE %' AND NOT force THEN
            EXECUTE format('SELECT count(*) FROM %s WHERE status = ''Processing'' AND claim_id IS NOT NULL', target) INTO busy;
            IF busy > 0 THEN
                RAISE EXCEPTION '% rows of % are being worked on', busy, target USING ERRCODE = '55006',
                    HINT = 'stop the listeners of this queue and wait for them, or use force: the outcomes of these rows are lost then';
            END IF;
        END IF;
    END LOOP;
END
$$;
