-- Transactions that change the configuration take turns, from their first statement to their commit: two spellings of a
-- key are two rows, which two writers would otherwise lock in opposite order; and the history is in the order of commit.
-- limit_ms: how long to wait before saying who is in the way; 0 = as long as the caller's own lock_timeout allows.
CREATE OR REPLACE FUNCTION listener_configuration_lock(configuration regclass, limit_ms integer DEFAULT 0) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    turn CONSTANT bigint := pg_catalog.hashtextextended('order-listener configuration', configuration::oid::bigint);
    own_limit CONSTANT text := pg_catalog.current_setting('lock_timeout');
    holder record;
BEGIN
    IF limit_ms = 0 THEN
        PERFORM pg_catalog.pg_advisory_xact_lock(turn);
        RETURN;
    END IF;
    PERFORM pg_catalog.set_config('lock_timeout', limit_ms::text, true);
    PERFORM pg_catalog.pg_advisory_xact_lock(turn);
    PERFORM pg_catalog.set_config('lock_timeout', own_limit, true);
EXCEPTION WHEN lock_not_available THEN
    SELECT pid, usename, application_name, xact_start INTO holder
    FROM pg_catalog.pg_locks JOIN pg_catalog.pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND (classid::bigint << 32 | objid::bigint) = turn
      AND pg_locks.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database());
    RAISE EXCEPTION USING
        ERRCODE = 'lock_not_available',
        -- since when, only a member of pg_monitor sees of another role's session
        MESSAGE = format('a transaction that has changed the configuration is still open: pid %s, user %s, %s%s', holder.pid, holder.usename,
                         coalesce(nullif(holder.application_name, ''), 'no name'), ', since ' || holder.xact_start),
        HINT = format('Commit it, or end it with SELECT pg_terminate_backend(%s).', holder.pid);
END
$$;
