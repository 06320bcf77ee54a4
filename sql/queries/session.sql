-- The session: the process's dedicated connection, whose life is the lease of its rows.

-- The driver reads dates and intervals in one style, `listener doctor` compares definitions in which no name is quoted that need
-- not be: whatever a role presets, each connection (and behind a pooler each transaction) says so itself, with its other settings,
-- because a round trip of its own would cost every claim there. So do the settings of watch.sql and books.sql; a test compares them.

-- name: settings
-- Server-side keepalives: a host that dies is noticed after 5 + 3 × 2 s. The statement timeout bounds what our own
-- connection may wait for; lock_timeout stays off because the only lock we wait for is our lease, which is free.
SELECT set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false), set_config('quote_all_identifiers', 'off', false),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false),
       set_config('statement_timeout', %(statement_timeout_ms)s, false),
       set_config('search_path', %(search_path)s, false);

-- name: unlimited
-- As little as can be, for where a preset statement_timeout cuts the settings that replace it.
SELECT set_config('statement_timeout', '0', false);

-- name: engine_settings
-- Settings of a pool connection that leads straight to the server. Sequential, bitmap and sort plans are off because
-- statistics taken while the table was nearly empty choose them, which stalled a peer for seconds (measured). One plan
-- for all values: left to itself the server plans each claim anew, which takes as long as the claim of one row. Such a
-- plan does not know the LIMIT, takes it for many rows, and would hash whole tables (80 ms): only loops over indexes.
SELECT set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false), set_config('quote_all_identifiers', 'off', false),
       set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_sort', 'off', false), set_config('jit', 'off', false),
       set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
       set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('statement_timeout', %(statement_timeout_ms)s, false), set_config('search_path', %(search_path)s, false),
       set_config('idle_in_transaction_session_timeout', '60000', false),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false);

-- name: transaction_settings
-- The same for one transaction: behind a transaction pooler nothing else holds.
SELECT set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'postgres', true), set_config('quote_all_identifiers', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true), set_config('jit', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('statement_timeout', %(statement_timeout_ms)s, true),
       set_config('search_path', %(search_path)s, true), set_config('application_name', %(application_name)s, true);

-- name: long_transaction_settings
-- Of one transaction that lasts longer than a statement. Who leaves it open is a process that was stopped, and must not keep
-- its rows locked. Of a table that was filled a moment ago the planner knows nothing: without these it may read all of
-- orders_inbox for each batch. A lock that somebody holds ends the wait before the statement's time is up: that error says which row.
SELECT set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'postgres', true), set_config('quote_all_identifiers', 'off', true),
       set_config('statement_timeout', %(statement_timeout_ms)s, true), set_config('lock_timeout', %(lock_timeout_ms)s, true), set_config('search_path', %(search_path)s, true),
       set_config('idle_in_transaction_session_timeout', '60000', true), set_config('jit', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);

-- name: name_connection
SELECT set_config('application_name', %(application_name)s, false);

-- name: live_on
-- What a role or a database sets for idle people is not for us. (transaction_timeout: PostgreSQL 17 and later.)
SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN ('idle_session_timeout', 'transaction_timeout');

-- name: open
-- A fresh key, and whether this server accepts writes.
SELECT nextval('listener_session_key')::integer AS session_key, pg_backend_pid() AS backend_pid, pg_is_in_recovery() AS read_only;

-- name: take_lease
-- Free by construction, because the key is fresh; false means that a key came round after 2^31 sessions.
SELECT pg_try_advisory_lock(%(lock_class)s, %(session_key)s) AS taken;

-- name: check_lease
-- Does our own lock still stand, and can we still write?
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND pid = pg_backend_pid()
      AND classid = %(lock_class_oid)s::bigint::oid AND objid = %(session_key)s::oid) AS held,
    pg_is_in_recovery() AS read_only;

-- name: echo
-- The self-test, rung from a pool connection; it must arrive on the session.
SELECT pg_notify('listener_echo', %(token)s);

-- name: identity
-- Which database this is, in words, and a token that no other database has: when its server started, and its number there.
SELECT concat(current_database(), ' on ', coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a local socket')) AS place,
       concat_ws(' ', extract(epoch FROM pg_catalog.pg_postmaster_start_time()), d.oid) AS token
FROM pg_catalog.pg_database AS d WHERE d.datname = current_database();

-- name: end_former
-- Our former session may still stand on the server (a half-open socket): end it, so that its rows are free now.
-- Named by its lock, so that a process id that was given to somebody else meanwhile is not touched.
SELECT pg_terminate_backend(pid) AS ended
FROM pg_catalog.pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
  AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND classid = %(lock_class_oid)s::bigint::oid AND objid = %(session_key)s::oid AND pid = %(backend_pid)s;

-- name: connections
-- How many connections the service holds, all replicas together; they are named so where they are made.
SELECT count(*) AS connections
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'order-listener %%';

-- name: live_sessions
SELECT l.objid::bigint AS session_key, l.pid, a.application_name, a.backend_start
FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.classid = %(lock_class_oid)s::bigint::oid
ORDER BY session_key;
