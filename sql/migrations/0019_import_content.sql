-- An order is known by its source and number: the same content for another source of orders is another file.
DROP INDEX IF EXISTS import_files_content_key;
CREATE UNIQUE INDEX IF NOT EXISTS import_files_content_once ON import_files (source, sha256, coalesce(order_source, ''))
    WHERE merged_at IS NOT NULL;
