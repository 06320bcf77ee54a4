-- For compose.yaml, after roles.sql: the passwords of its two roles that come over the network.
\set ON_ERROR_STOP on
\getenv owner OWNER_PASSWORD
\getenv runtime RUNTIME_PASSWORD
ALTER ROLE listener_owner PASSWORD :'owner';
ALTER ROLE listener_runtime PASSWORD :'runtime';
