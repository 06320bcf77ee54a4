-- Set one key of configuration_params, in the row that it has under any spelling, else in a new one.
-- Returns that row's key, whether it was there, and what stood in it. Lock first, look then: what is returned is what was
-- really replaced.
CREATE OR REPLACE FUNCTION config_set(key text, value text) RETURNS TABLE (param_key text, was_there boolean, old_value text)
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    rule CONSTANT jsonb := listener_configuration_rule(key);
BEGIN
    LOCK TABLE configuration_params IN ROW EXCLUSIVE MODE;  -- before the turn, in the order of every other statement
    PERFORM listener_configuration_lock('configuration_params');
    SELECT present.param_key, true, present.param_value INTO param_key, was_there, old_value
    FROM configuration_params AS present
    WHERE present.param_key = key OR listener_configuration_rule(present.param_key) ->> 'field' = rule ->> 'field'
    ORDER BY coalesce(present.param_key = rule ->> 'key', false) DESC, present.param_key = key DESC, present.param_key
    LIMIT 1;
    param_key := coalesce(param_key, key);
    was_there := coalesce(was_there, false);
    UPDATE configuration_params SET param_value = value WHERE configuration_params.param_key = config_set.param_key;
    IF NOT FOUND THEN
        INSERT INTO configuration_params (param_key, param_value) VALUES (key, value);
    END IF;
    RETURN NEXT;
END
$$;
