-- What `listener doctor` asks: reads only, each question bounded by the pool's statement timeout. Catalogs are named with
-- their schema; a column of pg_stat_activity is null where the role may not see that session. A cure names every relation with
-- its schema: whoever pastes it has another search_path.

-- name: server
SELECT current_setting('server_version_num')::integer AS version, current_setting('server_version') AS version_text, current_user AS role,
       current_database() AS database, quote_ident(current_schema()) AS schema, current_setting('is_superuser')::boolean AS is_superuser;

-- name: grants
-- What the service's role lacks: on tables and sequences, on functions of ours, on the schemas of attached tables.
-- attached_in: the schema of the attached table that it is about; null = it is about ours.
SELECT p.object, p.privilege, current_user AS role,
       format('GRANT %%s ON %%s %%s TO %%I', p.privilege, upper(p.kind),
              coalesce((SELECT format('%%s.%%I', c.relnamespace::regnamespace, c.relname) FROM pg_catalog.pg_class AS c WHERE c.oid = p.relation), p.object), current_user) AS cure,
       (SELECT q.table_schema FROM listener_queues AS q WHERE format('%%I.%%I', q.table_schema, q.table_name) = p.object) AS attached_in
FROM listener_privileges() AS p
WHERE p.role = 'runtime' AND NOT coalesce(
    CASE WHEN p.kind = 'sequence' THEN has_sequence_privilege(p.relation, p.privilege) ELSE has_table_privilege(p.relation, p.privilege) END, false)
UNION ALL
SELECT f.proname, 'EXECUTE', current_user,
       format('GRANT EXECUTE ON FUNCTION %%I.%%I(%%s) TO %%I', current_schema(), f.proname, pg_get_function_identity_arguments(f.oid), current_user), NULL
FROM pg_catalog.pg_proc AS f JOIN listener_migrations AS m ON m.name = concat('functions/', f.proname, '.sql')
WHERE f.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND NOT has_function_privilege(f.oid, 'EXECUTE')
UNION ALL
SELECT DISTINCT concat('schema ', q.table_schema), 'USAGE', current_user, format('GRANT USAGE ON SCHEMA %%I TO %%I', q.table_schema, current_user), q.table_schema
FROM listener_queues AS q JOIN pg_catalog.pg_namespace AS n ON n.nspname = q.table_schema WHERE NOT has_schema_privilege(n.oid, 'USAGE')
ORDER BY 1, 2;

-- name: surroundings
-- What the role needs around the tables. may_write: it could at least claim and settle an order. Not by the names of things, which
-- are an error in a schema that the role may not use; a schema that is not there is somebody else's to tell.
SELECT coalesce(bool_or(has_table_privilege(c.oid, 'UPDATE')), false) AS may_write,
       coalesce(bool_and(has_schema_privilege(n.oid, 'USAGE')), true) AS may_use, has_database_privilege(current_database(), 'TEMPORARY') AS may_have_temporary,
       coalesce(bool_or(has_schema_privilege('public', n.oid, 'CREATE')), false) AS everybody_creates, current_user AS role,
       format('GRANT USAGE ON SCHEMA %%I TO %%I', %(schema)s::text, current_user) AS cure_use,
       format('GRANT TEMPORARY ON DATABASE %%I TO %%I', current_database(), current_user) AS cure_temporary,
       format('REVOKE CREATE ON SCHEMA %%I FROM PUBLIC', %(schema)s::text) AS cure_creates
FROM pg_catalog.pg_namespace AS n LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname IN ('orders_inbox', 'sync_runs')
WHERE n.nspname = %(schema)s;

-- name: owners
-- What does not belong to whom most of the schema belongs to, nor to a role that one is in: what was restored or made by somebody
-- else. Attached tables stay their owners'; a sequence goes with its table.
WITH thing AS (
    SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind, c.relname::text AS name,
           format('%%s.%%I', c.relnamespace::regnamespace, c.relname) AS place, c.relowner AS owner
    FROM pg_catalog.pg_class AS c
    WHERE c.oid IN (SELECT p.relation FROM listener_privileges() AS p)
      AND NOT EXISTS (SELECT FROM listener_queues AS q WHERE q.table_name = c.relname AND quote_ident(q.table_schema) = c.relnamespace::regnamespace::text)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                      WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    UNION ALL
    SELECT 'FUNCTION', f.proname::text,
           format('%%s.%%I(%%s)', f.pronamespace::regnamespace, f.proname, pg_get_function_identity_arguments(f.oid)), f.proowner
    FROM pg_catalog.pg_proc AS f JOIN listener_migrations AS m ON m.name = concat('functions/', f.proname, '.sql')
    WHERE f.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
), most AS (
    SELECT mode() WITHIN GROUP (ORDER BY thing.owner) AS owner FROM thing
)
SELECT t.kind, t.name, t.owner::regrole::text AS owner, most.owner::regrole::text AS wanted,
       format('ALTER %%s %%s OWNER TO %%s', t.kind, t.place, most.owner::regrole) AS cure
FROM thing AS t CROSS JOIN most WHERE NOT pg_has_role(most.owner, t.owner, 'USAGE')
UNION ALL
SELECT 'SCHEMA', current_schema(), NULL, most.owner::regrole::text, format('GRANT USAGE, CREATE ON SCHEMA %%I TO %%s', current_schema(), most.owner::regrole)
FROM most WHERE NOT has_schema_privilege(most.owner, current_schema(), 'USAGE')
   OR NOT has_schema_privilege(most.owner, current_schema(), 'CREATE')
ORDER BY 1, 2;

-- name: roles
-- What our role and, where deploy/roles.sql has made it, its three companions have besides their grants: what that script refuses.
-- Nothing of an installation whose one role owns everything, nor of a superuser.
WITH ours AS (
    SELECT r.oid, r.rolname, o.oid AS owner, o.rolname = regexp_replace(r.rolname, '_runtime$', '_owner') AS has_companions
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner CROSS JOIN pg_catalog.pg_roles AS r
    WHERE c.oid = to_regclass(format('%%I.listener_migrations', current_schema())) AND r.rolname = current_user AND NOT r.rolsuper AND r.oid <> o.oid
), judged AS (
    SELECT r.*, ours.owner, ours.oid AS runtime FROM ours JOIN pg_catalog.pg_roles AS r
        ON r.oid = ours.oid OR (ours.has_companions AND r.rolname IN (
            SELECT regexp_replace(ours.rolname, '_runtime$', '_' || w) FROM unnest(ARRAY['owner', 'writer', 'reader']) AS w))
)
SELECT j.rolname::text AS role, 'is a member of ' || g.rolname AS has,
       (SELECT string_agg(format('REVOKE %%I FROM %%I', g.rolname, m.rolname), '; ' ORDER BY m.rolname)
        FROM pg_catalog.pg_auth_members AS am JOIN pg_catalog.pg_roles AS m ON m.oid = am.member
        WHERE am.roleid = g.oid AND pg_has_role(j.oid, m.oid, 'MEMBER')) AS cure
FROM judged AS j JOIN pg_catalog.pg_roles AS g ON g.oid <> j.oid AND NOT j.rolsuper AND pg_has_role(j.oid, g.oid, 'MEMBER')
WHERE g.rolsuper OR g.rolcreaterole OR g.rolbypassrls OR g.oid IN (j.owner, j.runtime)
   OR g.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
UNION ALL
SELECT j.rolname, concat('is ', a.word), format('ALTER ROLE %%I %%s', j.rolname, a.cure)
FROM judged AS j
CROSS JOIN LATERAL (VALUES (j.rolsuper, 'SUPERUSER', 'NOSUPERUSER'), (j.rolcreaterole, 'CREATEROLE', 'NOCREATEROLE'), (j.rolcreatedb, 'CREATEDB', 'NOCREATEDB'),
                           (j.rolbypassrls, 'BYPASSRLS', 'NOBYPASSRLS'), (NOT j.rolcanlogin, 'NOLOGIN', 'LOGIN')) AS a (has, word, cure)
WHERE a.has
ORDER BY 1, 2;

-- name: policies
-- Tables of which row security shows our role only some rows.
SELECT DISTINCT p.relation::text AS object, current_user AS role,
       format('CREATE POLICY listener ON %%s.%%I TO %%I USING (true) WITH CHECK (true)', c.relnamespace::regnamespace, c.relname, current_user) AS cure
FROM listener_privileges() AS p JOIN pg_catalog.pg_class AS c ON c.oid = p.relation
WHERE p.role = 'runtime' AND p.kind = 'table' AND row_security_active(p.relation::oid) ORDER BY 1;

-- name: triggers
-- Each wanted trigger (%(wanted)s: [[table, trigger], …]) of our tables, and those of attached ones, with its state. A statement
-- trigger is wanted on each leaf of a partitioned table too: what names a partition fires none of its root.
-- enabled: O = as it should be, A = always, D = off, R = only on a replica; null = it is not there. is_silent: it rings for nobody.
WITH wanted AS (
    SELECT to_regclass(format('%%I.%%I', current_schema(), w ->> 0)) AS root, w ->> 1 AS name, NULL::text AS queue
    FROM jsonb_array_elements(%(wanted)s::jsonb) AS w
    UNION ALL
    SELECT (SELECT c.oid::regclass FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname = q.table_schema AND c.relname = q.table_name), t.name, q.name
    FROM listener_queues AS q CROSS JOIN LATERAL listener_queue_triggers(q) AS t
    WHERE q.attached_at IS NOT NULL
)
SELECT r.relation::text AS relation, w.name, r.is_root, t.tgenabled::text AS enabled, s.partition IS NOT NULL AS is_silent,
       CASE WHEN t.tgname IS NOT NULL AND s.partition IS NULL THEN format('ALTER TABLE %%I.%%I ENABLE TRIGGER %%I', r.schema_name, r.table_name, w.name)
            WHEN w.queue IS NOT NULL THEN format('run `listener attach %%s` again', w.queue)
            WHEN r.is_root THEN format('DELETE FROM %%I.listener_migrations WHERE name = ''triggers/%%s.sql''; then run `listener migrate`', current_schema(), w.name)
            ELSE format('CREATE TRIGGER %%I AFTER INSERT ON %%I.%%I REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION %%I.listener_ring_inserted()',
                        w.name, r.schema_name, r.table_name, current_schema()) END AS cure
FROM wanted AS w
CROSS JOIN LATERAL listener_queue_relations(w.root) AS r
LEFT JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.relation AND t.tgname = w.name
LEFT JOIN listener_silent_partitions() AS s ON s.partition = r.relation AND w.name = 'listener_inserted'
WHERE r.is_root OR t.tgname IS NOT NULL OR w.name LIKE '%%inserted'
ORDER BY 1, 2;

-- name: definitions
-- What our files have made in this schema, each thing with what it is: sql/catalogue.json is this, of a schema that is right.
-- Names are without the schema; what servers write in their own way (types of varying text, brackets) is taken out.
-- cure: makes what is missing. mends: makes it what it should be; both with @ for the schema. is_ours: no older installation can have brought it along.
WITH relation AS (
    SELECT c.oid, c.relname, c.relkind, c.relname NOT IN ('orders_inbox', 'configuration_params', 'polling_state', 'polling_metrics') AS is_ours,
           'DELETE FROM @.listener_migrations WHERE kind = ''migration''; then run `listener migrate`' AS again
    FROM pg_catalog.pg_class AS c
    WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND c.relkind IN ('r', 'v')
), file AS (
    SELECT m.kind, split_part(split_part(m.name, '/', 2), '.', 1) AS name,
           format('DELETE FROM @.listener_migrations WHERE name = %%L; then run `listener migrate`', m.name) AS again
    FROM listener_migrations AS m
)
SELECT 'table' AS kind, r.relname::text AS name, r.relkind::text AS definition, r.is_ours, r.again AS cure, r.again AS mends FROM relation AS r
UNION ALL
SELECT 'column', concat(r.relname, '.', a.attname),
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                 CASE a.attidentity WHEN 'a' THEN 'GENERATED ALWAYS AS IDENTITY' WHEN 'd' THEN 'GENERATED BY DEFAULT AS IDENTITY' END,
                 'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)),
       r.is_ours,
       CASE WHEN r.relkind = 'v' THEN r.again
            ELSE concat(format('ALTER TABLE @.%%I ADD COLUMN %%I ', r.relname, a.attname), format_type(a.atttypid, a.atttypmod),
                        CASE WHEN a.attidentity <> '' THEN ' GENERATED BY DEFAULT AS IDENTITY' WHEN a.attnotnull AND d.adbin IS NOT NULL THEN ' NOT NULL' END,
                        ' DEFAULT ' || replace(pg_get_expr(d.adbin, d.adrelid), 'nextval(''', 'nextval(''@.')) END,
       CASE WHEN r.relkind = 'v' THEN r.again
            ELSE concat(format('ALTER TABLE @.%%1$I ALTER COLUMN %%2$I %%3$s NOT NULL, ALTER COLUMN %%2$I TYPE %%4$s', r.relname, a.attname,
                               CASE WHEN a.attnotnull THEN 'SET' ELSE 'DROP' END, format_type(a.atttypid, a.atttypmod)),
                        CASE WHEN a.attidentity = '' THEN format(', ALTER COLUMN %%I %%s', a.attname,
                             coalesce('SET DEFAULT ' || replace(pg_get_expr(d.adbin, d.adrelid), 'nextval(''', 'nextval(''@.'), 'DROP DEFAULT')) END) END
FROM relation AS r
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT CASE WHEN i.indisunique THEN 'unique' ELSE 'index' END,
       concat(r.relname, ' ', regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), '^.* USING ', '')), '', r.is_ours,
       CASE WHEN k.oid IS NULL THEN regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), ' ON ', ' ON @.')
            ELSE format('ALTER TABLE @.%%I ADD CONSTRAINT %%I %%s', r.relname, k.conname, pg_get_constraintdef(k.oid, true)) END, ''
FROM relation AS r
JOIN pg_catalog.pg_index AS i ON i.indrelid = r.oid AND i.indisvalid
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u')
WHERE i.indisunique OR pg_get_expr(i.indpred, i.indrelid) IS NULL
UNION ALL
SELECT 'constraint', concat(r.relname, ' ', pg_get_constraintdef(k.oid, true)), '', r.is_ours,
       format('ALTER TABLE @.%%I ADD CONSTRAINT %%I %%s', r.relname, k.conname, pg_get_constraintdef(k.oid, true)), ''
FROM relation AS r JOIN pg_catalog.pg_constraint AS k ON k.conrelid = r.oid AND k.contype IN ('c', 'f')
UNION ALL
SELECT 'trigger', concat(r.relname, '.', t.tgname), regexp_replace(pg_get_triggerdef(t.oid, true), '::(text|character varying)|[()]', '', 'g'), true, f.again, f.again
FROM relation AS r JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = r.oid AND NOT t.tgisinternal
JOIN file AS f ON f.kind = 'trigger' AND f.name = t.tgname
UNION ALL
SELECT 'function', p.proname::text,
       md5(concat_ws(' ', l.lanname, p.prosecdef, p.provolatile, p.proisstrict, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid),
                     replace(replace(array_to_string(p.proconfig, ' '), '"', ''), current_schema(), '@'), p.prosrc)), true, f.again, f.again
FROM file AS f
JOIN pg_catalog.pg_proc AS p ON p.proname = f.name AND p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
WHERE f.kind = 'function'
UNION ALL
SELECT 'sequence', c.relname::text, format('by %%s from %%s to %%s%%s', s.seqincrement, s.seqmin, s.seqmax, CASE WHEN s.seqcycle THEN ', again and again' END), true,
       'DELETE FROM @.listener_migrations WHERE name = ''migrations/0001_sequences.sql''; then run `listener migrate`',
       concat(format('ALTER SEQUENCE @.%%I INCREMENT %%s MINVALUE %%s MAXVALUE %%s', c.relname, s.seqincrement, s.seqmin, s.seqmax), CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END)
FROM pg_catalog.pg_sequence AS s JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
WHERE c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND c.relname LIKE 'listener\_%%'
ORDER BY 1, 2;

-- name: bypasses
-- Who writes past the triggers: a role or database that sets session_replication_role, and logical replication into a queue. Whoever
-- applies that fires no statement trigger, not even one that is enabled always (measured): the cure is a row trigger for it alone.
SELECT 'setting' AS kind, CASE WHEN s.setrole = 0 THEN format('database %%s', d.datname)
                              WHEN s.setdatabase = 0 THEN format('role %%s', r.rolname)
                              ELSE format('role %%s in database %%s', r.rolname, d.datname) END AS who,
       concat('ALTER ', CASE WHEN s.setrole = 0 THEN format('DATABASE %%I', d.datname)
                             WHEN s.setdatabase = 0 THEN format('ROLE %%I', r.rolname)
                             ELSE format('ROLE %%I IN DATABASE %%I', r.rolname, d.datname) END, ' RESET session_replication_role') AS cure
FROM pg_catalog.pg_db_role_setting AS s
LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
WHERE EXISTS (SELECT FROM unnest(s.setconfig) AS c WHERE lower(c) = 'session_replication_role=replica')
  AND (s.setdatabase = 0 OR d.datname = current_database())
UNION ALL
-- not RESET, which takes nothing out of postgresql.conf
SELECT 'setting', 'the whole server', 'ALTER SYSTEM SET session_replication_role = origin; SELECT pg_reload_conf()'
FROM pg_catalog.pg_settings WHERE name = 'session_replication_role' AND boot_val <> setting AND source = 'configuration file'
UNION ALL
SELECT 'subscription', format('subscription %%s into %%s', s.subname, r.srrelid::regclass),
       format('CREATE TRIGGER listener_replicated AFTER INSERT ON %%1$I.%%2$I FOR EACH ROW WHEN (NEW.status = %%3$L) EXECUTE FUNCTION %%4$I.listener_ring();'
              ' ALTER TABLE %%1$I.%%2$I ENABLE REPLICA TRIGGER listener_replicated', l.schema_name, l.table_name, q.ready_word, current_schema())
FROM pg_catalog.pg_subscription_rel AS r JOIN pg_catalog.pg_subscription AS s ON s.oid = r.srsubid
CROSS JOIN (
    SELECT c.oid, coalesce(q.ready_word, 'Pending') AS ready_word
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN listener_queues AS q ON q.table_schema = n.nspname AND q.table_name = c.relname
    WHERE q.name IS NOT NULL OR n.nspname = current_schema() AND c.relname IN ('orders_inbox', 'import_files', 'sync_runs')) AS q
CROSS JOIN LATERAL listener_queue_relations(q.oid) AS l
WHERE s.subenabled AND l.relation = r.srrelid
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS t JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
                  WHERE t.tgrelid = r.srrelid AND f.proname = 'listener_ring' AND t.tgenabled IN ('A', 'R') AND t.tgtype & 5 = 5)  -- each row, INSERT
ORDER BY 1, 2;

-- name: invalid_indexes
-- Left by a concurrent build that failed: writers keep it up, nobody reads it, and a unique one still refuses rows.
SELECT i.indexrelid::regclass::text AS index, i.indrelid::regclass::text AS relation,
       format('REINDEX INDEX CONCURRENTLY %%s.%%I', c.relnamespace::regnamespace, c.relname) AS cure
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
  AND i.indrelid IN (SELECT l.relation FROM listener_privileges() AS p CROSS JOIN LATERAL listener_queue_relations(p.relation) AS l WHERE p.kind = 'table')
ORDER BY 1;

-- name: queue_indexes
-- Whether a queue table has what its claim and its rescue read. %(ready)s: the word of rows that are work. Of a varchar column,
-- such as older tables have, the server shows casts and brackets.
SELECT format('CREATE INDEX CONCURRENTLY ON %%s (status, priority, scheduled_at, %%I) WHERE status = %%L',
              %(relation)s::text, %(key)s::text, %(ready)s::text) AS cure_due,
       format('CREATE INDEX CONCURRENTLY ON %%s (claimed_by) WHERE status = ''Processing''', %(relation)s::text) AS cure_processing,
       coalesce(bool_or(i.indnkeyatts >= 4 AND pg_catalog.pg_get_indexdef(i.indexrelid, 1, true) = 'status'
                        AND pg_catalog.pg_get_indexdef(i.indexrelid, 2, true) = 'priority'
                        AND pg_catalog.pg_get_indexdef(i.indexrelid, 3, true) = 'scheduled_at'
                        AND shown.predicate = regexp_replace(format('status = %%L', %(ready)s::text), casts.pattern, '', 'g')), false) AS has_due,
       coalesce(bool_or(pg_catalog.pg_get_indexdef(i.indexrelid, 1, true) = 'claimed_by' AND shown.predicate = 'status = ''Processing'''), false) AS has_processing
FROM pg_catalog.pg_index AS i
CROSS JOIN (VALUES ('::(text|character varying)|[()]')) AS casts (pattern)
CROSS JOIN LATERAL (SELECT regexp_replace(pg_catalog.pg_get_expr(i.indpred, i.indrelid), casts.pattern, '', 'g') AS predicate) AS shown
WHERE i.indrelid = to_regclass(%(relation)s) AND i.indisvalid AND i.indpred IS NOT NULL;

-- name: storage
-- How the tables of the service are kept, and the partitions of attached ones, which hold the rows.
SELECT DISTINCT c.oid::regclass::text AS relation, coalesce(s.n_dead_tup, 0) AS dead, coalesce(s.n_live_tup, 0) AS live,
       coalesce((SELECT o.option_value::boolean FROM pg_catalog.pg_options_to_table(c.reloptions) AS o WHERE o.option_name = 'autovacuum_enabled'), true) AS is_vacuumed,
       current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean AS autovacuum,
       'ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()' AS cure_server,
       format('ALTER TABLE %%s.%%I RESET (autovacuum_enabled)', c.relnamespace::regnamespace, c.relname) AS cure_table,
       format('VACUUM %%s.%%I', c.relnamespace::regnamespace, c.relname) AS cure_dead
FROM listener_privileges() AS p
CROSS JOIN LATERAL listener_queue_relations(p.relation) AS l
JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
LEFT JOIN pg_catalog.pg_stat_user_tables AS s ON s.relid = c.oid
WHERE p.role = 'runtime' AND p.kind = 'table' AND c.relkind = 'r'
ORDER BY 1;

-- name: storage_options
-- What the migrations set for a table, from a measurement, and somebody has made larger: rows that find no room, a later VACUUM.
SELECT m.relation, m.option, v.value, format('ALTER TABLE %%I.%%I SET (%%s = %%s)', current_schema(), m.relation, m.option, m.measured) AS cure
FROM (VALUES ('orders_inbox', 'fillfactor', 80), ('orders_inbox', 'autovacuum_vacuum_scale_factor', 0.02), ('orders_inbox', 'autovacuum_vacuum_threshold', 1000),
             ('orders_inbox', 'autovacuum_analyze_scale_factor', 0.05), ('orders_inbox', 'autovacuum_vacuum_cost_delay', 0),
             ('import_files', 'fillfactor', 90), ('import_files', 'autovacuum_vacuum_scale_factor', 0.05),
             ('api_budgets', 'fillfactor', 10), ('api_budgets', 'autovacuum_vacuum_scale_factor', 0), ('api_budgets', 'autovacuum_vacuum_threshold', 100)
     ) AS m (relation, option, measured)
JOIN pg_catalog.pg_class AS c ON c.relname = m.relation
    AND c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
CROSS JOIN LATERAL (
    SELECT coalesce((SELECT o.option_value::numeric FROM pg_catalog.pg_options_to_table(c.reloptions) AS o WHERE o.option_name = m.option),
                    (SELECT s.setting::numeric FROM pg_catalog.pg_settings AS s WHERE s.name = m.option), 100) AS value) AS v
WHERE v.value > m.measured
ORDER BY 1, 2;

-- name: settings
-- What our role, this database or the server presets for a connection of ours, where that can harm, and where it comes from. The
-- server's own value may stand in postgresql.conf, out of which RESET takes nothing: our role gets the usual one.
SELECT s.name, s.reset_val AS value, concat_ws(' ', s.reset_val, nullif(s.unit, '')) AS shown,
       CASE WHEN s.source = 'client' THEN 'the address'
            WHEN p.setrole = 0 THEN format('database %%s', current_database()) WHEN p.setdatabase = 0 THEN format('role %%s', current_user)
            WHEN p.setconfig IS NOT NULL THEN format('role %%s in database %%s', current_user, current_database()) ELSE 'the server' END AS who,
       CASE WHEN s.source = 'client' THEN format('take %%s out of its options', s.name)
            WHEN p.setrole = 0 THEN format('ALTER DATABASE %%I RESET %%s', current_database(), s.name)
            WHEN p.setdatabase = 0 THEN format('ALTER ROLE %%I RESET %%s', current_user, s.name)
            WHEN p.setconfig IS NOT NULL THEN format('ALTER ROLE %%I IN DATABASE %%I RESET %%s', current_user, current_database(), s.name)
            ELSE format('ALTER ROLE %%I SET %%s = %%L', current_user, s.name, s.boot_val) END AS cure
FROM pg_catalog.pg_settings AS s
LEFT JOIN LATERAL (
    SELECT o.setrole, o.setdatabase, o.setconfig FROM pg_catalog.pg_db_role_setting AS o
    WHERE o.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user))
      AND o.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
      AND EXISTS (SELECT FROM unnest(o.setconfig) AS c WHERE split_part(c, '=', 1) = s.name)
    ORDER BY (o.setrole <> 0)::integer + 2 * (o.setrole <> 0 AND o.setdatabase <> 0)::integer DESC LIMIT 1) AS p ON true
WHERE s.name IN ('lock_timeout', 'idle_session_timeout', 'transaction_timeout', 'row_security', 'synchronous_commit',
                 'default_transaction_isolation')
ORDER BY 1;

-- name: sequences
-- Columns that a sequence numbers, and the last number given: null where the role may not look.
SELECT DISTINCT c.relname::text AS relation, a.attname::text AS name, (SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = c.relnamespace)::text AS schema,
       CASE WHEN has_sequence_privilege(s.oid, 'USAGE, SELECT') AND has_column_privilege(c.oid, a.attnum, 'SELECT')
            THEN coalesce(pg_sequence_last_value(s.oid), (SELECT seqstart - 1 FROM pg_catalog.pg_sequence WHERE seqrelid = s.oid)) END AS given,
       format('SELECT setval(%%L, (SELECT max(%%I) FROM %%s.%%I))', format('%%s.%%I', s.relnamespace::regnamespace, s.relname),
              a.attname, c.relnamespace::regnamespace, c.relname) AS cure
FROM listener_privileges() AS p
JOIN pg_catalog.pg_class AS c ON c.oid = p.relation
JOIN pg_catalog.pg_depend AS d ON d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
JOIN pg_catalog.pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
WHERE p.role = 'runtime' AND p.kind = 'table'
ORDER BY 1;

-- name: number_again
-- A cure, never run by us: for a column whose identity somebody has taken away.
ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL; ALTER TABLE {table} ALTER COLUMN {column} ADD {generated};
SELECT setval(pg_get_serial_sequence({table_text}, {column_text}), coalesce(max({column}), 0) + 1, false) FROM {table};

-- name: highest
-- The highest number of a column that a sequence numbers; its index has it.
SELECT max({name})::bigint AS highest FROM {table};

-- name: transactions
-- Open transactions of this database and for how long, oldest first; not the doctor's own, nor the watch, which waits in one
-- statement for the end of a neighbour. xids: by how many transactions it holds VACUUM back. is_ours: of a process of the service.
SELECT a.pid, coalesce(a.application_name, '') ~ '^(order-)?listener ' AS is_ours, pg_catalog.pg_blocking_pids(a.pid) AS blocked_by, coalesce(a.usename, '') AS role, coalesce(a.application_name, '') AS application, a.state,
       extract(epoch FROM now() - a.xact_start)::float8 AS open_s, age(a.backend_xmin) AS xids, left(a.query, 60) AS statement, a.query ~* '^\s*listen\M' AS listens,
       format('SELECT pg_terminate_backend(%%s)', a.pid) AS cure
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND a.backend_type = 'client backend'
  AND a.application_name <> 'order-listener watch'
ORDER BY a.xact_start;

-- name: hidden_sessions
-- Sessions of other roles of which we see nothing but that they are there, and whether we would see what they do.
SELECT count(*) AS hidden, pg_has_role('pg_read_all_stats', 'USAGE') AS may_see, format('GRANT pg_monitor TO %%I', current_user) AS cure FROM pg_catalog.pg_stat_activity
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

-- name: orders
-- Whether the queues that call ShipStation ever held a row.
SELECT EXISTS (SELECT FROM orders_inbox) OR EXISTS (SELECT FROM sync_runs) AS are_there;

-- name: stuck
-- A queue's rows that nobody works on or that wait for long, each with an example. Templates of the queue's names.
-- orphans: Processing under a session that is gone (a rescue frees them). strays: Processing without a claim, which no
-- rescue touches. waiting: due for more than %(long_s)s seconds. unranked: work, but without what a claim goes by.
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
    WHERE q.status = {ready} AND q.scheduled_at <= now() - make_interval(secs => %(long_s)s) AND q.priority IS NOT NULL
    LIMIT 10000
), unranked AS MATERIALIZED (
    SELECT q.{key}::text AS row_key FROM {table} AS q WHERE q.status = {ready} AND (q.priority IS NULL OR q.scheduled_at IS NULL) LIMIT 10000
)
SELECT (SELECT count(*) FROM processing WHERE is_orphan) AS orphans, (SELECT min(row_key) FROM processing WHERE is_orphan) AS orphan,
       (SELECT count(*) FROM processing WHERE is_stray) AS strays, (SELECT min(row_key) FROM processing WHERE is_stray) AS stray,
       (SELECT count(*) FROM waiting) AS waiting, (SELECT row_key FROM waiting ORDER BY scheduled_at LIMIT 1) AS waiter,
       (SELECT count(*) FROM unranked) AS unranked, (SELECT min(row_key) FROM unranked) AS unranked_one,
       (SELECT count(*) FROM alive) AS sessions,
       (SELECT count(*) FROM (SELECT FROM {table} WHERE status = 'Failed' LIMIT 10000) AS failed) AS failed,
       format('UPDATE %%s SET status = %%L WHERE status = ''Processing'' AND claim_id IS NULL', place.name, {ready}) AS cure_stray,
       format('UPDATE %%s SET priority = coalesce(priority, 100), scheduled_at = coalesce(scheduled_at, now())'
              ' WHERE status = %%L AND (priority IS NULL OR scheduled_at IS NULL)', place.name, {ready}) AS cure_unranked,
       format('SELECT %%I, last_error FROM %%s WHERE status = ''Failed''', {key_name}, place.name) AS cure_failed
FROM (SELECT format('%%s.%%I', c.relnamespace::regnamespace, c.relname) AS name FROM pg_catalog.pg_class AS c WHERE c.oid = {relation}::regclass) AS place;
