-- The columns that the engine's statements need on every queue table, in the order in which attach adds them.
-- accepted: types that a column of that name may have already, the first is the one that is added. nulls: the engine
-- empties it. definition: what follows the type; constants and now() only, so that no row is rewritten.
CREATE OR REPLACE FUNCTION listener_queue_columns()
RETURNS TABLE (name text, accepted text[], nulls boolean, definition text)
LANGUAGE sql IMMUTABLE
AS $$
    VALUES
        ('status', '{text,character varying}'::text[], false, $d$ NOT NULL DEFAULT 'Existing'$d$),
        ('priority', '{smallint,integer,bigint}', false, ' NOT NULL DEFAULT 100'),
        ('scheduled_at', '{timestamp with time zone}', false, ' NOT NULL DEFAULT now()'),
        ('attempts', '{integer}', false, ' NOT NULL DEFAULT 0'),
        ('claim_id', '{bigint}', true, ''),
        ('claimed_by', '{integer}', true, ''),
        ('claimed_at', '{timestamp with time zone}', true, ''),
        ('revision', '{integer}', false, ' NOT NULL DEFAULT 0'),
        ('last_error', '{text,character varying}', true, ''),
        ('finished_at', '{timestamp with time zone,timestamp without time zone}', true, ''),
        ('created_at', '{timestamp with time zone,timestamp without time zone,date}', false, ' DEFAULT now()'),
        ('updated_at', '{timestamp with time zone,timestamp without time zone}', false, ' DEFAULT now()')
$$;
