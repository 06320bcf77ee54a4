"""The baseline: what a competent afternoon's script does with the same tables and the same API. No retry, no fence,
no lease, no budget, no metrics: the floor under everything that a service adds.

    python -m bench.raw DATABASE_URL SANDBOX_URL

Listens, claims 100 rows at a time, posts them, marks them uploaded; two threads, as the service runs two calls.
"""

import sys
import threading

import httpx2
import psycopg
from psycopg.rows import dict_row

from listener.workflows.order import parse_order
from listener.workflows.upload.plan import encode, to_shipstation

CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM orders_inbox WHERE status = 'Pending' AND scheduled_at <= now()
    ORDER BY priority, scheduled_at, id LIMIT 100 FOR UPDATE SKIP LOCKED)
UPDATE orders_inbox AS q SET status = 'Processing' FROM due WHERE q.id = due.id
RETURNING q.id, q.order_number, q.order_key, q.payload
"""
# Writers notify only while somebody holds this; one of the threads is enough.
BELL = "SELECT pg_try_advisory_lock(1869374562, 'orders_inbox'::regclass::oid::integer)"
SETTLE = """
UPDATE orders_inbox AS q SET status = 'Uploaded', shipstation_order_id = r.order_id, uploaded_at = now()
FROM unnest(%s::bigint[], %s::text[]) AS r (id, order_id) WHERE q.id = r.id
"""


def drain(conn: psycopg.Connection, http: httpx2.Client) -> None:
    """Upload until nothing is due."""
    while rows := conn.execute(CLAIM).fetchall():
        bodies = [
            to_shipstation(parse_order(r["payload"]), order_number=r["order_number"], order_key=r["order_key"])
            for r in rows
        ]
        reply = http.post("/orders/createorders", content=encode(bodies), headers={"content-type": "application/json"})
        ids = {result["orderKey"]: str(result["orderId"]) for result in reply.json()["results"]}
        conn.execute(SETTLE, [[r["id"] for r in rows], [ids[r["order_key"]] for r in rows]])


def work(url: str, sandbox: str) -> None:
    """Drain, then again at every notification, for ever."""
    with (
        psycopg.connect(url, autocommit=True, row_factory=dict_row) as conn,
        psycopg.connect(url, autocommit=True) as ear,
        httpx2.Client(base_url=sandbox, auth=("sandbox-key", "sandbox-secret"), trust_env=False) as http,
    ):
        ear.execute("LISTEN listener_wake")
        ear.execute(BELL)
        drain(conn, http)
        for _ in ear.notifies():
            drain(conn, http)


if __name__ == "__main__":
    for _ in range(2):
        threading.Thread(target=work, args=sys.argv[1:3]).start()
