-- Does a value satisfy a rule? A key without one takes anything. Exactly what Key.parse of listener/config/live.py accepts; a test compares them.
CREATE OR REPLACE FUNCTION listener_configuration_accepts(rule jsonb, param_value text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    word text;
BEGIN
    IF rule IS NULL THEN
        RETURN true;
    END IF;
    word := pg_catalog.lower(pg_catalog.btrim(param_value, E' \t\n\013\f\r') COLLATE "C");
    IF rule ->> 'kind' <> 'integer' THEN
        RETURN coalesce(rule -> 'words' ? word, false);
    END IF;
    IF word IS NULL OR word !~ '^[0-9]{1,10}$' COLLATE "C" THEN
        RETURN false;
    END IF;
    RETURN word::bigint BETWEEN (rule ->> 'minimum')::bigint AND (rule ->> 'maximum')::bigint;
END
$$;
