-- What a source outside calls one version of a file, so that it is offered once, long before its content is known here.

ALTER TABLE import_files ADD COLUMN IF NOT EXISTS version text;

COMMENT ON COLUMN import_files.version IS 'which version of the file it is, in the words of its source (Drive: md5); null = the sha256 tells';

CREATE UNIQUE INDEX IF NOT EXISTS import_files_version_key ON import_files (source, uri, version) WHERE version IS NOT NULL;
