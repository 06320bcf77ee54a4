-- What each key of configuration_params takes: spelling in lower case → rule.
-- Never edited: made from LiveConfig (listener/config/live.py) by `python tests/docs/generate.py`.
CREATE OR REPLACE FUNCTION listener_configuration_rules() RETURNS jsonb
LANGUAGE sql IMMUTABLE
AS $$ SELECT '{
"fast_polling_enabled": {"field": "fast_polling_enabled", "key": "fast_polling_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"enable_fast_upload_polling": {"field": "enable_fast_upload_polling", "key": "ENABLE_FAST_UPLOAD_POLLING", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"enable_fast_xml_polling": {"field": "enable_fast_xml_polling", "key": "ENABLE_FAST_XML_POLLING", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"doorbell_enabled": {"field": "doorbell_enabled", "key": "doorbell_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"fast_polling_interval": {"field": "fast_polling_interval", "key": "fast_polling_interval", "kind": "integer", "expected": "a whole number of seconds from 1 to 3600", "default": "15", "minimum": 1, "maximum": 3600},
"sync_interval": {"field": "sync_interval", "key": "sync_interval", "kind": "integer", "expected": "a whole number of seconds from 10 to 86400", "default": "120", "minimum": 10, "maximum": 86400},
"upload_enabled": {"field": "upload_enabled", "key": "upload_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"import_enabled": {"field": "import_enabled", "key": "import_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"sync_enabled": {"field": "sync_enabled", "key": "sync_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"upload_batch_size": {"field": "upload_batch_size", "key": "upload_batch_size", "kind": "integer", "expected": "a whole number of orders from 1 to 100", "default": "100", "minimum": 1, "maximum": 100},
"upload_concurrency": {"field": "upload_concurrency", "key": "upload_concurrency", "kind": "integer", "expected": "a whole number of handler calls from 1 to 100", "default": "2", "minimum": 1, "maximum": 100},
"import_concurrency": {"field": "import_concurrency", "key": "import_concurrency", "kind": "integer", "expected": "a whole number of handler calls from 1 to 100", "default": "2", "minimum": 1, "maximum": 100},
"sync_concurrency": {"field": "sync_concurrency", "key": "sync_concurrency", "kind": "integer", "expected": "a whole number of handler calls from 1 to 100", "default": "4", "minimum": 1, "maximum": 100},
"upload_priority": {"field": "upload_priority", "key": "upload_priority", "kind": "integer", "expected": "a whole number of places from 1 to 9", "default": "1", "minimum": 1, "maximum": 9},
"import_priority": {"field": "import_priority", "key": "import_priority", "kind": "integer", "expected": "a whole number of places from 1 to 9", "default": "4", "minimum": 1, "maximum": 9},
"sync_priority": {"field": "sync_priority", "key": "sync_priority", "kind": "integer", "expected": "a whole number of places from 1 to 9", "default": "1", "minimum": 1, "maximum": 9},
"sync_calls_per_cycle": {"field": "sync_calls_per_cycle", "key": "sync_calls_per_cycle", "kind": "integer", "expected": "a whole number of calls from 10 to 100000", "default": "60", "minimum": 10, "maximum": 100000},
"max_attempts": {"field": "max_attempts", "key": "max_attempts", "kind": "integer", "expected": "a whole number of attempts from 1 to 100", "default": "10", "minimum": 1, "maximum": 100},
"operation_timeout": {"field": "operation_timeout", "key": "operation_timeout", "kind": "integer", "expected": "a whole number of seconds from 1 to 86400", "default": "300", "minimum": 1, "maximum": 86400},
"max_concurrent_operations": {"field": "max_concurrent_operations", "key": "max_concurrent_operations", "kind": "integer", "expected": "a whole number of handler calls from 1 to 1000", "default": "15", "minimum": 1, "maximum": 1000},
"log_level": {"field": "log_level", "key": "log_level", "kind": "choice", "expected": "one of debug, info, warning, error", "default": "info", "words": ["debug", "info", "warning", "error"]},
"polling_metrics_enabled": {"field": "polling_metrics_enabled", "key": "polling_metrics_enabled", "kind": "boolean", "expected": "true, 1, yes or on, or false, 0, no or off", "default": "true", "words": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
"retention_days": {"field": "retention_days", "key": "retention_days", "kind": "integer", "expected": "a whole number of days from 1 to 3650", "default": "30", "minimum": 1, "maximum": 3650},
"unified_sync_interval": {"field": "sync_interval", "key": "sync_interval", "kind": "integer", "expected": "a whole number of seconds from 10 to 86400", "default": "120", "minimum": 10, "maximum": 86400}
}'::jsonb $$;
