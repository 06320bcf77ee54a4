-- One row of configuration_params changed: refuse what does not parse, and write it down.
-- Caller: row-level AFTER trigger, so that a row which ON CONFLICT DO NOTHING leaves out is neither refused nor noted.
-- A bad value that is there already may stay while other columns of its row change.
-- SECURITY DEFINER: whoever may write the configuration need not be able to write (and so to forge) its history. Tables
-- are named with their schema, because a temporary table of the writer's would be found before ours.
CREATE OR REPLACE FUNCTION listener_configuration_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT
AS $$
DECLARE
    note CONSTANT text := format(
        'INSERT INTO %I.configuration_history (param_key, old_value, new_value, action, description, changed_by)
         VALUES ($1, $2, $3, $4, $5, $6)', TG_TABLE_SCHEMA);
    rule CONSTANT jsonb := CASE WHEN TG_OP <> 'DELETE' THEN listener_configuration_rule(NEW.param_key) END;
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.param_key = OLD.param_key AND NEW.param_value IS NOT DISTINCT FROM OLD.param_value
       OR coalesce(NEW.param_key, OLD.param_key) IS NULL THEN  -- an adopted table may have rows without a key
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' AND NOT listener_configuration_accepts(rule, NEW.param_value) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('%s must be %s, got %s', NEW.param_key, rule ->> 'expected', quote_nullable(left(NEW.param_value, 80))),
            HINT = format('UPDATE %I SET param_value = %L WHERE param_key = %L',
                          TG_TABLE_NAME, listener_configuration_suggestion(rule, NEW.param_value), NEW.param_key);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.param_key = OLD.param_key THEN
        EXECUTE note USING NEW.param_key, OLD.param_value, NEW.param_value, 'update', NEW.description, listener_who();
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        EXECUTE note USING OLD.param_key, OLD.param_value, NULL::text, 'delete', OLD.description, listener_who();
    END IF;
    IF TG_OP <> 'DELETE' THEN
        EXECUTE note USING NEW.param_key, NULL::text, NEW.param_value, 'insert', NEW.description, listener_who();
    END IF;
    RETURN NULL;
END
$$;
