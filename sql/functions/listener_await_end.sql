-- Wait until a session that holds a lease has ended, at most limit_ms milliseconds; returns whether it has.
-- Bounded because a statement that waits holds a snapshot, which keeps VACUUM from removing what died meanwhile. The
-- time-out is caught here: one that leaves the statement would be an error in the server's log, every minute.
CREATE OR REPLACE FUNCTION listener_await_end(lock_class integer, session_key integer, limit_ms integer) RETURNS boolean
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', limit_ms::text, true);
    PERFORM pg_catalog.pg_advisory_xact_lock(lock_class, session_key);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;
