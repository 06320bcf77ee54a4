"""The table on which the library and RAW are measured: somebody's orders, of ordinary width, made a queue."""

import psycopg

from bench.engines.base import FILLING
from listener.db.migrate import migrate

TABLE = """
CREATE TABLE {table} (
    id bigserial PRIMARY KEY, customer text NOT NULL, email text NOT NULL, amount numeric(10, 2) NOT NULL,
    currency text NOT NULL DEFAULT 'EUR', payload jsonb NOT NULL, created_at timestamptz NOT NULL DEFAULT now())
"""
_PAYLOAD = f"jsonb_build_object('seq', {{seq}}, 'text', '{FILLING}')"
_ROW = f"'customer ' || {{seq}} %% 1000, 'buyer@example.com', 9.99, {_PAYLOAD}"
_HEAD = "INSERT INTO orders (customer, email, amount, payload)"
INSERT = f"{_HEAD} VALUES ({_ROW.format(seq='%(seq)s::bigint')})"
FILL = f"{_HEAD} SELECT {_ROW.format(seq='n')} FROM generate_series(0, %(rows)s - 1) AS n"
# From the end: the last row is the last one taken, and nothing of what was is visited.
UNFINISHED = """
SELECT EXISTS (SELECT FROM orders WHERE status = 'Pending'
               ORDER BY status DESC, priority DESC, scheduled_at DESC, id DESC LIMIT 1)
    OR EXISTS (SELECT FROM orders WHERE status = 'Processing')
"""
BEGUN = "SELECT EXISTS (SELECT FROM orders WHERE status = 'Processing')"


def install(url: str, queues: tuple[str, ...]) -> None:
    """Migrate, make the tables, attach them."""
    migrate(url, "public")
    with psycopg.connect(url, autocommit=True) as conn:
        for queue in queues:
            conn.execute(TABLE.format(table=queue))
            conn.execute("SELECT attach_queue(%s)", [queue])
