-- TRUNCATE of the configuration, written down as the deletion of each row.
-- Caller: statement-level BEFORE TRUNCATE trigger. SECURITY DEFINER as in listener_configuration_changed.
CREATE OR REPLACE FUNCTION listener_configuration_emptied() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO %1$I.configuration_history (param_key, old_value, action, description, changed_by)
         SELECT param_key, param_value, ''delete'', description, $1 FROM %1$I.%2$I WHERE param_key IS NOT NULL', TG_TABLE_SCHEMA, TG_TABLE_NAME)
    USING listener_who();
    RETURN NULL;
END
$$;
