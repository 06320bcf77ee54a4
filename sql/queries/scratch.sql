-- Databases of tests: made for one test, dropped after it (listener/db/scratch.py).

-- name: create_database
CREATE DATABASE {database} TEMPLATE {template};

-- name: drop_database
DROP DATABASE IF EXISTS {database} WITH (FORCE);
