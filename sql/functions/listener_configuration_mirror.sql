-- One key, several spellings, one value: set the other rows of a key to what this statement set one of them to.
-- Of two spellings that it sets differently the key's own wins; of an upsert, which is two statements here, the inserted one. config_restore gives each spelling its own value back.
-- Caller: statement-level AFTER INSERT and AFTER UPDATE triggers with transition tables, so that all rows of the statement
-- are in the history before what follows from them. SECURITY DEFINER: an INSERT need not come with the right to UPDATE.
CREATE OR REPLACE FUNCTION listener_configuration_mirror() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
BEGIN
    -- the UPDATE below ends here too, with the rows that it changed, and then with none
    IF NOT EXISTS (SELECT FROM changed) OR current_setting('listener.restoring', true) = 'on' THEN
        RETURN NULL;
    END IF;
    EXECUTE format($update$
        WITH fresh AS (
            SELECT param_key, param_value FROM changed %s
        ), winner AS (
            SELECT DISTINCT ON (rule ->> 'field') rule ->> 'field' AS field, param_value
            FROM fresh, LATERAL listener_configuration_rule(param_key) AS rule
            WHERE rule IS NOT NULL
            ORDER BY rule ->> 'field', param_key = rule ->> 'key' DESC, param_key
        )
        UPDATE %I.%I AS twin SET param_value = winner.param_value
        FROM winner
        WHERE listener_configuration_rule(twin.param_key) ->> 'field' = winner.field
          AND twin.param_value IS DISTINCT FROM winner.param_value
    $update$, CASE WHEN TG_OP = 'UPDATE' THEN 'EXCEPT SELECT param_key, param_value FROM former' END,
        TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
END
$$;
