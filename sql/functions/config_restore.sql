-- Put all values of configuration_params back to what they were at a moment; returns what that changed.
-- The restore is a change like any other: it is in the history, and restoring a later moment undoes it.
-- A value of then that today's rules refuse is left out with a warning. Spellings of one key each get their own value back.
CREATE OR REPLACE FUNCTION config_restore(moment timestamptz)
RETURNS TABLE (param_key text, old_value text, new_value text)
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    change record;
BEGIN
    IF moment IS NULL OR moment > clock_timestamp() THEN
        RAISE EXCEPTION 'cannot restore the configuration of %: give a moment of the past', coalesce(moment::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT * FROM configuration_history ORDER BY id DESC';
    END IF;
    LOCK TABLE configuration_params IN ROW EXCLUSIVE MODE;  -- before the turn, in the order of every other statement
    PERFORM listener_configuration_lock('configuration_params', 5000);
    PERFORM set_config('listener.restoring', 'on', true);
    FOR change IN
        WITH before AS (
            SELECT DISTINCT ON (param_key) param_key, action <> 'delete' AS is_there, new_value AS value, description
            FROM configuration_history WHERE changed_at <= moment ORDER BY param_key, id DESC
        ), after AS (
            SELECT DISTINCT ON (param_key) param_key, action <> 'insert' AS is_there, old_value AS value, description
            FROM configuration_history WHERE changed_at > moment ORDER BY param_key, id
        ), wanted AS (
            SELECT * FROM before
            UNION ALL SELECT * FROM after WHERE param_key NOT IN (SELECT param_key FROM before)
        )
        SELECT wanted.*, present.param_key IS NOT NULL AS is_present, present.param_value AS present_value
        FROM wanted LEFT JOIN configuration_params AS present ON present.param_key = wanted.param_key
        WHERE wanted.is_there <> (present.param_key IS NOT NULL)
           OR wanted.is_there AND wanted.value IS DISTINCT FROM present.param_value
        ORDER BY 1
    LOOP
        IF change.is_there AND NOT listener_configuration_accepts(listener_configuration_rule(change.param_key), change.value) THEN
            RAISE WARNING '% was % then, which is refused today; it stays %',
                change.param_key, quote_nullable(change.value), quote_nullable(change.present_value);
            CONTINUE;
        ELSIF NOT change.is_there THEN
            DELETE FROM configuration_params WHERE param_key = change.param_key;
        ELSIF change.is_present THEN
            UPDATE configuration_params SET param_value = change.value WHERE param_key = change.param_key;
        ELSE
            INSERT INTO configuration_params (param_key, param_value, description)
            VALUES (change.param_key, change.value, change.description);
        END IF;
        RETURN QUERY SELECT change.param_key::text, change.present_value::text, CASE WHEN change.is_there THEN change.value::text END;
    END LOOP;
    PERFORM set_config('listener.restoring', '', true);
END
$$;
