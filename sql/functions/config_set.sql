-- Set one key of configuration_params, in any spelling; returns its row's key, whether there was a row, and the value
-- before. Lock first, look then: what is returned is what was really replaced.
CREATE OR REPLACE FUNCTION config_set(key text, value text) RETURNS TABLE (param_key text, was_there boolean, old_value text)
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    rule CONSTANT jsonb := listener_configuration_rule(key);
BEGIN
    IF rule IS NULL THEN
        RAISE EXCEPTION '% is no key of the configuration', quote_nullable(key)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT * FROM configuration_params shows those that are.';
    END IF;
    LOCK TABLE configuration_params IN ROW EXCLUSIVE MODE;  -- before the turn, in the order of every other statement
    PERFORM listener_configuration_lock('configuration_params', 5000);
    param_key := rule ->> 'key';
    SELECT true, present.param_value INTO was_there, old_value
    FROM configuration_params AS present
    WHERE listener_configuration_rule(present.param_key) ->> 'field' = rule ->> 'field'
    ORDER BY present.param_key = config_set.param_key DESC, present.param_key
    LIMIT 1;
    was_there := coalesce(was_there, false);
    INSERT INTO configuration_params (param_key, param_value) VALUES (config_set.param_key, value)
    ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value;
    RETURN NEXT;
END
$$;
