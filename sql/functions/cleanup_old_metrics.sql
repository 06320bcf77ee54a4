-- Delete old rows of polling_metrics, oldest first; returns how many. most: rows at once, null = all.
CREATE OR REPLACE FUNCTION cleanup_old_metrics(days_to_keep integer DEFAULT 7, most integer DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
DECLARE
    deleted bigint;
BEGIN
    IF days_to_keep IS NULL OR days_to_keep < 0 THEN
        RAISE EXCEPTION 'days_to_keep must be a whole number of days from 0, got %', coalesce(days_to_keep::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH old AS MATERIALIZED (
        SELECT id FROM polling_metrics
        WHERE check_timestamp < LOCALTIMESTAMP - make_interval(days => days_to_keep)
        ORDER BY check_timestamp LIMIT most FOR UPDATE SKIP LOCKED
    )
    DELETE FROM polling_metrics USING old WHERE polling_metrics.id = old.id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
