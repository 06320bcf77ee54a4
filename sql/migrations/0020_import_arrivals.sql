-- The same content may arrive anew: as another file of the folder, after a later one has updated orders.

ALTER TABLE import_files ADD COLUMN IF NOT EXISTS arrival text;

COMMENT ON COLUMN import_files.arrival IS 'folder: size and times of the file that was seen; the same bytes with others have arrived anew';
COMMENT ON COLUMN import_files.merged_at IS 'when its orders were committed; null = not yet, or all were rejected, or it is a copy, or the same content was merged again by a later row';

-- For listener status.
CREATE INDEX IF NOT EXISTS import_files_rejecting ON import_files (id) WHERE orders_rejected > 0;
-- Which files may have changed what an earlier one said.
CREATE INDEX IF NOT EXISTS import_files_updating ON import_files (merged_at) WHERE merged_at IS NOT NULL AND orders_updated > 0;
