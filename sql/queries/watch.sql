-- The watch: one process waits for the end of another one's session.

-- name: announce
-- Tell the others that there is a new process: they look again who is before them.
SELECT pg_notify('listener_peers', '');

-- name: settings
SELECT set_config('datestyle', 'ISO', false), set_config('intervalstyle', 'postgres', false), set_config('quote_all_identifiers', 'off', false),
       set_config('statement_timeout', '0', false), set_config('search_path', %(search_path)s, false),
       set_config('tcp_keepalives_idle', '5', false), set_config('tcp_keepalives_interval', '2', false),
       set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false);

-- name: notice_our_end
-- A backend that waits for a lock looks after its client only when told to.
SELECT set_config('client_connection_check_interval', '2000', false);

-- name: await_end
SELECT listener_await_end(%(lock_class)s, %(session_key)s, %(limit_ms)s) AS has_ended;
