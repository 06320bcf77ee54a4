-- A value that would have been accepted, as near as possible to the one that was not; for the hint of an error.
CREATE OR REPLACE FUNCTION listener_configuration_suggestion(rule jsonb, param_value text) RETURNS text
LANGUAGE plpgsql IMMUTABLE
AS $$
DECLARE
    digits CONSTANT text := substring(param_value COLLATE "C" FROM '-?[0-9]{1,18}');
    letter CONSTANT text := pg_catalog.lower(substring(param_value COLLATE "C" FROM '[A-Za-z0-9]'));
BEGIN
    IF rule ->> 'kind' = 'integer' THEN
        RETURN CASE
            WHEN digits IS NULL THEN rule ->> 'default'
            ELSE least(greatest(digits::bigint, (rule ->> 'minimum')::bigint), (rule ->> 'maximum')::bigint)::text
        END;
    END IF;
    RETURN CASE
        WHEN rule ->> 'kind' = 'boolean' AND letter IN ('f', 'n', '0') THEN 'false'
        WHEN rule ->> 'kind' = 'boolean' AND letter IN ('t', 'y', '1') THEN 'true'
        ELSE coalesce((SELECT word FROM jsonb_array_elements_text(rule -> 'words') AS word
                       WHERE pg_catalog.left(word, 1) = letter LIMIT 1), rule ->> 'default')
    END;
END
$$;
