"""Sample orders for the demo: INSERTs as any shop's program would do them."""

import json
from typing import Any

from psycopg import sql

from listener.db.pool import Pool
from listener.db.queries import query, template


def sample_payload(number: int) -> dict[str, Any]:
    """Return an order in the shape of `orders_inbox.payload`."""
    return {
        "order_date": "2026-11-20T14:03:00Z",
        "customer": {"username": f"buyer{number}", "email": f"buyer{number}@example.org"},
        "ship_to": {
            "name": f"Buyer {number}",
            "street1": f"{number} Main St",
            "city": "Austin",
            "state": "TX",
            "postal_code": "78701",
            "country": "US",
        },
        "items": [
            {"line_item_key": "1", "sku": "ABC", "name": "Thing", "quantity": 1 + number % 3, "unit_price": "9.99"}
        ],
        "amount_paid": "19.98",
        "currency": "USD",
    }


async def insert_order(pool: Pool, number: int) -> None:
    """Insert one order in a transaction of its own."""
    await pool.run(
        query("samples", "insert_order"),
        {"source": "demo", "order_number": f"D-{number:05}", "payload": json.dumps(sample_payload(number))},
        name="demo insert",
    )


async def count_by_status(pool: Pool) -> dict[str, int]:
    """Return how many orders have each status."""
    return {
        row["status"]: row["rows"] for row in await pool.run(query("samples", "count_by_status"), name="demo count")
    }


def example_insert(order_number: str) -> str:
    """Return an INSERT to be pasted into psql: an order with nothing but what is required."""
    payload = {
        "order_date": "2026-11-20T14:03:00Z",
        "ship_to": {
            "name": "A Buyer",
            "street1": "1 Main St",
            "city": "Austin",
            "postal_code": "78701",
            "country": "US",
        },
        "items": [{"sku": "ABC", "name": "Thing", "quantity": 2}],
    }
    values = {"order_number": order_number, "payload": json.dumps(payload)}
    fields = {name: sql.Literal(value) for name, value in values.items()}
    return template("samples", "example_order", fields).as_string(None)
