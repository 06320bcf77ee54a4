-- A name for an index of ours: the table's name with a suffix, cut where that would be longer than the 63 bytes of a name;
-- the hash then keeps two long names apart.
CREATE OR REPLACE FUNCTION listener_object_name(table_name text, suffix text) RETURNS text
LANGUAGE sql IMMUTABLE
AS $$
    SELECT CASE
        WHEN octet_length(table_name || suffix) <= 63 THEN table_name || suffix
        ELSE (SELECT left(table_name, max(length)) FROM generate_series(0, 63) AS length
              WHERE octet_length(left(table_name, length)) + 9 + octet_length(suffix) <= 63)
             || '_' || left(md5(table_name), 8) || suffix
    END
$$;
