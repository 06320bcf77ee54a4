-- The part of attach_queue_plan that makes indexes. An invalid one is what a failed concurrent build left: it is built again.
-- A partitioned table's cannot be built concurrently, but its leaves' can; the root's then takes them over, so that its
-- own build, which keeps writers out, finds nothing to do.
CREATE OR REPLACE FUNCTION listener_attach_indexes(target regclass, entry listener_queues, online boolean)
RETURNS TABLE (alone boolean, statement text)
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    wanted record;
    place record;
    index_name text;
    owner regclass;
    is_valid boolean;
BEGIN
    FOR wanted IN SELECT * FROM listener_queue_indexes(entry) LOOP
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
            WHERE i.indrelid = target AND i.indisvalid AND c.relname = listener_object_name(entry.table_name, wanted.suffix));
        FOR place IN SELECT * FROM listener_queue_relations(target) WHERE is_root OR online ORDER BY is_root LOOP
            index_name := listener_object_name(place.table_name, wanted.suffix);
            SELECT coalesce(i.indrelid, c.oid), i.indisvalid INTO owner, is_valid
            FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
            WHERE n.nspname = place.schema_name AND c.relname = index_name;
            IF owner <> place.relation THEN
                RAISE EXCEPTION 'the index % of % cannot be made: its name is taken, by %', quote_ident(index_name), place.relation, owner
                    USING ERRCODE = '22023', HINT = 'rename what has that name';
            END IF;
            CONTINUE WHEN is_valid;
            alone := online AND place.is_leaf;
            IF NOT is_valid THEN
                statement := format('DROP INDEX %s%I.%I', CASE WHEN alone THEN 'CONCURRENTLY ' END, place.schema_name, index_name);
                RETURN NEXT;
            END IF;
            statement := format('CREATE INDEX %s%I ON %I.%I %s', CASE WHEN alone THEN 'CONCURRENTLY ' END, index_name,
                                place.schema_name, place.table_name, wanted.definition);
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
