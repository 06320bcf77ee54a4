-- What `listener doctor` asks: reads only, each question bounded by the pool's statement timeout. Catalogs are named with
-- their schema; a column of pg_stat_activity is null where the role may not see that session.

-- name: server
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS version_text, current_user AS role,
       current_database() AS database;

-- name: grants
-- What the service's role lacks.
SELECT p.object, p.privilege, current_user AS role,
       format('GRANT %%s ON %%s %%s TO %%I', p.privilege, upper(p.kind), coalesce(p.relation::text, p.object), current_user) AS cure
FROM listener_privileges() AS p
WHERE p.role = 'runtime' AND NOT coalesce(
    CASE WHEN p.kind = 'sequence' THEN has_sequence_privilege(p.relation, p.privilege) ELSE has_table_privilege(p.relation, p.privilege) END, false)
ORDER BY p.object, p.privilege;

-- name: surroundings
-- What the role needs around the tables.
SELECT has_schema_privilege(%(schema)s, 'USAGE') AS may_use, has_database_privilege(current_database(), 'TEMPORARY') AS may_have_temporary,
       has_schema_privilege('public', %(schema)s, 'CREATE') AS everybody_creates, current_user AS role,
       format('GRANT USAGE ON SCHEMA %%I TO %%I', %(schema)s::text, current_user) AS cure_use,
       format('GRANT TEMPORARY ON DATABASE %%I TO %%I', current_database(), current_user) AS cure_temporary,
       format('REVOKE CREATE ON SCHEMA %%I FROM PUBLIC', %(schema)s::text) AS cure_creates;

-- name: policies
-- Tables of which row security shows our role only some rows.
SELECT DISTINCT p.relation::text AS object, current_user AS role,
       format('CREATE POLICY listener ON %%s TO %%I USING (true) WITH CHECK (true)', p.relation, current_user) AS cure
FROM listener_privileges() AS p
WHERE p.role = 'runtime' AND p.kind = 'table' AND row_security_active(p.relation::oid) ORDER BY 1;

-- name: triggers
-- Each wanted trigger (%(wanted)s: [[table, trigger], …]) of our tables, and those of attached ones, with its state. A statement
-- trigger is wanted on each leaf of a partitioned table too: what names a partition fires none of its root.
-- enabled: O = as it should be, A = always, D = off, R = only on a replica; null = it is not there.
WITH wanted AS (
    SELECT to_regclass(format('%%I.%%I', current_schema(), w ->> 0)) AS root, w ->> 1 AS name, NULL::text AS queue
    FROM jsonb_array_elements(%(wanted)s::jsonb) AS w
    UNION ALL
    SELECT to_regclass(format('%%I.%%I', q.table_schema, q.table_name)), t.name, q.name
    FROM listener_queues AS q CROSS JOIN LATERAL listener_queue_triggers(q) AS t
    WHERE q.attached_at IS NOT NULL
)
SELECT r.relation::text AS relation, w.name, r.is_root, t.tgenabled::text AS enabled,
       CASE WHEN t.tgname IS NOT NULL THEN format('ALTER TABLE %%s ENABLE TRIGGER %%I', r.relation, w.name)
            WHEN w.queue IS NOT NULL THEN format('run `listener attach %%s` again', w.queue)
            WHEN r.is_root THEN format('DELETE FROM listener_migrations WHERE name = ''triggers/%%s.sql''; then run `listener migrate`', w.name)
            ELSE format('CREATE TRIGGER %%I AFTER INSERT ON %%s REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION %%I.listener_ring_inserted()',
                        w.name, r.relation, current_schema()) END AS cure
FROM wanted AS w
CROSS JOIN LATERAL listener_queue_relations(w.root) AS r
LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.relation AND t.tgname = w.name
WHERE r.is_root OR t.tgname IS NOT NULL OR w.name LIKE '%%inserted'
ORDER BY 1, 2;

-- name: bypasses
-- Who writes past the triggers: a role or database that sets session_replication_role, and logical replication into our tables.
SELECT 'setting' AS kind, CASE WHEN s.setrole = 0 THEN format('database %%s', d.datname)
                              WHEN s.setdatabase = 0 THEN format('role %%s', r.rolname)
                              ELSE format('role %%s in database %%s', r.rolname, d.datname) END AS who,
       concat('ALTER ', CASE WHEN s.setrole = 0 THEN format('DATABASE %%I', d.datname)
                             WHEN s.setdatabase = 0 THEN format('ROLE %%I', r.rolname)
                             ELSE format('ROLE %%I IN DATABASE %%I', r.rolname, d.datname) END, ' RESET session_replication_role') AS cure
FROM pg_catalog.pg_db_role_setting AS s
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
WHERE 'session_replication_role=replica' = ANY (s.setconfig) AND (s.setdatabase = 0 OR d.datname = current_database())
UNION ALL
SELECT 'setting', 'the whole server', 'ALTER SYSTEM RESET session_replication_role; SELECT pg_reload_conf()'
FROM pg_catalog.pg_settings WHERE name = 'session_replication_role' AND boot_val <> setting AND source = 'configuration file'
UNION ALL
SELECT 'subscription', format('subscription %%s into %%s', s.subname, r.srrelid::regclass),
       (SELECT string_agg(format('ALTER TABLE %%s ENABLE ALWAYS TRIGGER %%I', t.tgrelid::regclass, t.tgname), '; ' ORDER BY t.tgname)
        FROM pg_catalog.pg_trigger AS t WHERE t.tgrelid = r.srrelid AND t.tgname LIKE '%%inserted')
FROM pg_catalog.pg_subscription_rel AS r JOIN pg_catalog.pg_subscription AS s ON s.oid = r.srsubid
WHERE s.subenabled AND r.srrelid IN (SELECT p.relation FROM listener_privileges() AS p WHERE p.kind = 'table')
ORDER BY 1, 2;

-- name: invalid_indexes
-- Left by a concurrent build that failed: writers keep it up, nobody reads it, and a unique one still refuses rows.
SELECT i.indexrelid::regclass::text AS index, i.indrelid::regclass::text AS relation,
       format('REINDEX INDEX CONCURRENTLY %%s', i.indexrelid::regclass) AS cure
FROM pg_catalog.pg_index AS i
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
  AND i.indrelid IN (SELECT p.relation FROM listener_privileges() AS p WHERE p.kind = 'table')
ORDER BY 1;

-- name: queue_indexes
-- Whether a queue table has what its claim and its rescue read. %(ready)s: the word of rows that are work.
SELECT format('CREATE INDEX CONCURRENTLY ON %%s (status, priority, scheduled_at, %%I) WHERE status = %%L',
              to_regclass(%(relation)s), %(key)s::text, %(ready)s::text) AS cure_due,
       format('CREATE INDEX CONCURRENTLY ON %%s (claimed_by) WHERE status = ''Processing''', to_regclass(%(relation)s)) AS cure_processing,
       coalesce(bool_or(i.indnkeyatts >= 4 AND pg_catalog.pg_get_indexdef(i.indexrelid, 1, true) = 'status'
                        AND pg_catalog.pg_get_indexdef(i.indexrelid, 2, true) = 'priority'
                        AND pg_catalog.pg_get_indexdef(i.indexrelid, 3, true) = 'scheduled_at'
                        AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) LIKE concat('%%status = ', quote_literal(%(ready)s::text), '%%')), false) AS has_due,
       coalesce(bool_or(pg_catalog.pg_get_indexdef(i.indexrelid, 1, true) = 'claimed_by'
                        AND pg_catalog.pg_get_expr(i.indpred, i.indrelid) LIKE '%%status = ''Processing''%%'), false) AS has_processing
FROM pg_catalog.pg_index AS i
WHERE i.indrelid = to_regclass(%(relation)s) AND i.indisvalid AND i.indpred IS NOT NULL;

-- name: storage
-- How the tables of the service are kept; attached ones too. wanted: the fillfactor that the migrations set, from a measurement.
SELECT DISTINCT c.oid::regclass::text AS relation, coalesce(s.n_dead_tup, 0) AS dead, coalesce(s.n_live_tup, 0) AS live,
       coalesce(option.fillfactor, 100) AS fillfactor, measured.fillfactor AS wanted, coalesce(option.is_vacuumed, true) AS is_vacuumed,
       current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean AS autovacuum,
       'ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()' AS cure_server,
       format('ALTER TABLE %%s RESET (autovacuum_enabled)', c.oid::regclass) AS cure_table,
       format('ALTER TABLE %%s SET (fillfactor = %%s)', c.oid::regclass, measured.fillfactor) AS cure_fillfactor,
       format('VACUUM %%s', c.oid::regclass) AS cure_dead
FROM listener_privileges() AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.relation
LEFT JOIN pg_catalog.pg_stat_user_tables AS s ON s.relid = c.oid
LEFT JOIN (VALUES ('orders_inbox', 80), ('import_files', 90), ('api_budgets', 10)) AS measured (name, fillfactor) ON measured.name = c.relname
CROSS JOIN LATERAL (
    SELECT max(o.option_value::integer) FILTER (WHERE o.option_name = 'fillfactor') AS fillfactor,
           bool_and(o.option_value::boolean) FILTER (WHERE o.option_name = 'autovacuum_enabled') AS is_vacuumed
    FROM pg_catalog.pg_options_to_table(CASE WHEN c.relkind = 'r' THEN c.reloptions END) AS o
    WHERE o.option_name IN ('fillfactor', 'autovacuum_enabled')) AS option
WHERE p.role = 'runtime' AND p.kind = 'table' AND c.relkind = 'r'
ORDER BY 1;

-- name: transactions
-- Open transactions of this database and for how long, oldest first; not our own. xids: by how many transactions it holds VACUUM back.
SELECT a.pid, coalesce(a.usename, '') AS role, coalesce(a.application_name, '') AS application, a.state,
       extract(epoch FROM now() - a.xact_start)::float8 AS open_s, age(a.backend_xmin) AS xids, left(a.query, 60) AS statement, a.query ~* '^\s*listen\M' AS listens,
       format('SELECT pg_terminate_backend(%%s)', a.pid) AS cure
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND a.backend_type = 'client backend'
ORDER BY a.xact_start;

-- name: hidden_sessions
-- Sessions of other roles of which we see nothing but that they are there.
SELECT count(*) AS hidden FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND backend_type IS NULL;

-- name: horizon
-- What besides open transactions keeps VACUUM from removing dead rows. xids: by how many transactions.
SELECT 'replication slot' AS kind, s.slot_name::text AS name, s.active, greatest(age(s.xmin), age(s.catalog_xmin)) AS xids,
       (pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn))::bigint AS wal_bytes,
       format('SELECT pg_drop_replication_slot(%%L)', s.slot_name) AS cure
FROM pg_catalog.pg_replication_slots AS s WHERE NOT s.temporary
UNION ALL
SELECT 'standby', coalesce(nullif(r.application_name, ''), r.client_addr::text, 'unnamed'), true, age(r.backend_xmin), 0, ''
FROM pg_catalog.pg_stat_replication AS r WHERE r.backend_xmin IS NOT NULL
ORDER BY xids DESC NULLS LAST;

-- name: prepared
-- Transactions that were prepared for two-phase commit: they outlive their session, with their locks.
SELECT gid, owner AS role, extract(epoch FROM now() - prepared)::float8 AS open_s,
       format('COMMIT PREPARED %%1$L or ROLLBACK PREPARED %%1$L', gid) AS cure
FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared;

-- name: notifications
-- The cluster's queue of notifications, 1 = full, when every commit that notifies fails.
SELECT pg_catalog.pg_notification_queue_usage() AS used;

-- name: capacity
-- Connections: what the server, the database and the role allow (-1 = no limit), and what is taken now.
SELECT current_setting('max_connections')::integer
           - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0) AS server_limit,
       d.datconnlimit AS database_limit, r.rolconnlimit AS role_limit,
       (SELECT count(*) FROM pg_catalog.pg_stat_database AS s CROSS JOIN LATERAL generate_series(1, s.numbackends) AS n) AS server_taken,
       (SELECT numbackends FROM pg_catalog.pg_stat_database WHERE datname = current_database()) AS database_taken,
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'order-listener%%'
            AND application_name <> 'order-listener doctor') AS ours,
       format('ALTER DATABASE %%I CONNECTION LIMIT -1', d.datname) AS cure_database, format('ALTER ROLE %%I CONNECTION LIMIT -1', r.rolname) AS cure_role
FROM pg_catalog.pg_database AS d CROSS JOIN pg_catalog.pg_roles AS r
WHERE d.datname = current_database() AND r.rolname = current_user;

-- name: clock
SELECT extract(epoch FROM clock_timestamp())::float8 AS server_s;

-- name: peer
-- Who the server thinks we are, and the keepalives of this connection as its system has them; null over a Unix socket.
SELECT host(inet_client_addr()) AS address, inet_client_port() AS port, current_setting('tcp_keepalives_idle') AS idle,
       current_setting('tcp_keepalives_interval') AS interval, current_setting('tcp_keepalives_count') AS count;

-- name: stuck
-- A queue's rows that nobody works on or that wait for long, each with an example. Templates of the queue's names.
-- orphans: Processing under a session that is gone (a rescue frees them). strays: Processing without a claim, which no
-- rescue touches. waiting: due for more than %(long_s)s seconds.
WITH alive AS MATERIALIZED (
    SELECT l.objid::bigint AS session_key
    FROM pg_catalog.pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND l.classid = %(lock_class)s::bigint::oid
), processing AS MATERIALIZED (
    SELECT q.{key}::text AS row_key, q.claim_id IS NULL AS is_stray,
           q.claim_id IS NOT NULL AND (q.claimed_by IS NULL OR q.claimed_by NOT IN (SELECT session_key FROM alive)) AS is_orphan
    FROM {table} AS q WHERE q.status = 'Processing'
), waiting AS MATERIALIZED (
    SELECT q.{key}::text AS row_key, q.scheduled_at FROM {table} AS q
    WHERE q.status = {ready} AND q.scheduled_at <= now() - make_interval(secs => %(long_s)s)
    LIMIT 10000
)
SELECT (SELECT count(*) FROM processing WHERE is_orphan) AS orphans, (SELECT min(row_key) FROM processing WHERE is_orphan) AS orphan,
       (SELECT count(*) FROM processing WHERE is_stray) AS strays, (SELECT min(row_key) FROM processing WHERE is_stray) AS stray,
       (SELECT count(*) FROM waiting) AS waiting, (SELECT row_key FROM waiting ORDER BY scheduled_at LIMIT 1) AS waiter,
       (SELECT count(*) FROM alive) AS sessions,
       (SELECT count(*) FROM (SELECT FROM {table} WHERE status = 'Failed' LIMIT 10000) AS failed) AS failed,
       format('UPDATE %%s SET status = %%L WHERE status = ''Processing'' AND claim_id IS NULL', {relation}::regclass, {ready}) AS cure_stray,
       format('SELECT %%I, last_error FROM %%s WHERE status = ''Failed''', {key_name}, {relation}::regclass) AS cure_failed;
