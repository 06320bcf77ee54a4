"""The database. The only package that imports psycopg; every statement is a named query of `sql/queries/`."""
