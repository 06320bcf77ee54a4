-- The rule of a key of configuration_params, by any of its spellings; null for a key that is not ours.
CREATE OR REPLACE FUNCTION listener_configuration_rule(param_key text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE
SET search_path FROM CURRENT
AS $$
BEGIN
    -- in the "C" collation lower() knows ASCII letters only, as listener/config/live.py does
    RETURN listener_configuration_rules() -> lower(btrim(param_key, E' \t\n\013\f\r') COLLATE "C");
END
$$;
