-- The columns that the engine's statements need on every queue table, in the order in which attach adds them.
-- accepted: types that a column of that name may have already; null = any, the engine does not name it.
-- emptied: the engine sets it to null. definition: what follows the added type; constants and now() only, so that
-- adding it rewrites no row and reads none.
CREATE OR REPLACE FUNCTION listener_queue_columns()
RETURNS TABLE (name text, added_type text, accepted text[], emptied boolean, definition text)
LANGUAGE sql IMMUTABLE
AS $$
    VALUES
        ('status', 'text', '{text,character varying}'::text[], false, $d$ NOT NULL DEFAULT 'Existing'$d$),
        ('priority', 'smallint', '{smallint,integer,bigint}', false, ' NOT NULL DEFAULT 100'),
        ('scheduled_at', 'timestamptz', '{timestamp with time zone}', false, ' NOT NULL DEFAULT now()'),
        ('attempts', 'integer', '{integer}', false, ' NOT NULL DEFAULT 0'),
        ('claim_id', 'bigint', '{bigint}', true, ''),
        ('claimed_by', 'integer', '{integer}', true, ''),
        ('claimed_at', 'timestamptz', '{timestamp with time zone}', true, ''),
        ('revision', 'integer', '{integer}', false, ' NOT NULL DEFAULT 0'),
        ('last_error', 'text', '{text}', true, ''),
        ('finished_at', 'timestamptz', '{timestamp with time zone,timestamp without time zone}', true, ''),
        ('created_at', 'timestamptz', NULL, false, ' DEFAULT now()'),
        ('updated_at', 'timestamptz', '{timestamp with time zone,timestamp without time zone}', false, ' DEFAULT now()')
$$;
