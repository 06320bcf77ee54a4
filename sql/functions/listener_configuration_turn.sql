-- Wait for our turn to change the configuration. TRUNCATE has the table to itself and needs none.
-- Caller: statement-level BEFORE trigger.
CREATE OR REPLACE FUNCTION listener_configuration_turn() RETURNS trigger
LANGUAGE plpgsql
SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM listener_configuration_lock(TG_RELID);
    RETURN NULL;
END
$$;
