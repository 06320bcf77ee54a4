"""Payloads that are no orders, and orders that change: nobody else pays, and what is mended is uploaded."""

import json
import re
from typing import Any

import psycopg
import pytest
from conftest import Database
from sandbox.server import Client
from waiting import until

from e2e.service import PAYLOAD, Orders, Service, Services, services
from listener.db.migrate import migrate

DEADLINE_S = 60.0


def changed(**changes: Any) -> dict[str, Any]:
    return {**PAYLOAD, **changes}


def ship_to(**changes: Any) -> dict[str, Any]:
    return changed(ship_to={**PAYLOAD["ship_to"], **changes})


def item(**changes: Any) -> dict[str, Any]:
    return changed(items=[{**PAYLOAD["items"][0], **changes}])


EVERYTHING_WRONG = {
    "order_date": "tomorrow",
    "status": "lost",
    "ship_to": {"name": "A\u0001B", "street1": " ", "postal_code": 78701, "country": "USA"},
    "items": [{"name": "Thing", "quantity": 0, "unit_price": "-1"}, {"sku": "A", "name": "", "quantity": -2}],
    "amount_paid": "ten",
    "customer": ["A Buyer"],
    "custom_fields": {"4": "x"},
}

# order number → payload as text, and what its last_error must say; each line of it names path, value and cure
BAD = {
    "text": ('"an order"', ["payload = 'an order': expected an object"]),
    "list": ("[1, 2]", ["payload = a list of 2: expected an object"]),
    "number": ("7", ["payload = 7: expected an object"]),
    "true": ("true", ["payload = True: expected an object"]),
    "json null": ("null", ["payload: expected an object"]),
    "sql null": (None, ["payload: expected an object"]),
    "empty": ("{}", ["order_date: is required", "ship_to: is required", "items: is required"]),
    "no items": (json.dumps(changed(items=[])), ["items = a list of 0: expected at least 1"]),
    "quantity 0": (json.dumps(item(quantity=0)), ["items[0].quantity = 0: expected 1 or more"]),
    "negative": (
        json.dumps(item(quantity=-3, unit_price="-9.99")),
        ["items[0].quantity = -3: expected 1 or more", "items[0].unit_price = '-9.99'"],
    ),
    "half": (json.dumps(item(quantity=1.5)), ["items[0].quantity = 1.5: expected a whole number"]),
    "country": (json.dumps(ship_to(country="USA")), ["ship_to.country = 'USA': expected exactly 2 letters"]),
    "status": (json.dumps(changed(status="lost")), ["status = 'lost': expected one of awaiting_payment,"]),
    "control": (json.dumps(ship_to(name="A\u0001B")), [r"ship_to.name = 'A\x01B'", "control character U+0001"]),
    "deep control": (json.dumps(changed(extra=[{"note": "\u007f"}])), ["extra[0].note", "U+007F"]),
    "10 MB": (json.dumps(changed(internal_notes="x" * 10_000_000)), ["payload: has at least 10,0", "limit 1,000,000"]),
    "": (json.dumps(PAYLOAD), ["order_number is missing"]),
    "   ": (json.dumps(item(quantity=0)), ["order_number is missing", "items[0].quantity = 0: expected 1 or more"]),
    "everything": (
        json.dumps(EVERYTHING_WRONG),
        [
            "order_date = 'tomorrow'",
            "status = 'lost'",
            "ship_to.name",
            "ship_to.street1: is required",
            "ship_to.city: is required",
            "ship_to.postal_code = 78701",
            "ship_to.country = 'USA'",
            "items[0].sku: is required",
            "items[0].quantity = 0",
            "items[0].unit_price = '-1'",
            "items[1].name: is required",
            "items[1].quantity = -2",
            "amount_paid = 'ten'",
            "customer = a list of 1",
            "custom_fields.4",
        ],
    ),
}
GOOD = 40


@pytest.fixture
def listener(listeners: Services) -> Service:
    return listeners.start().wait_ready()


def keys_sent(api: Client) -> set[str]:
    return {key for call in api.control("GET", "requests?last=2000")["requests"] for key in call["order_keys"]}


def row(database: Database, number: str) -> tuple[Any, ...]:
    """Give status, attempts and last_error."""
    return database.execute("SELECT status, attempts, last_error FROM orders_inbox WHERE order_number = %s", [number])[
        0
    ]


def wait_for(orders: Orders, counts: dict[str, int]) -> None:
    until(lambda: orders.counts() == counts, deadline_s=DEADLINE_S, what=f"{counts}; now {orders.counts()}")


def test_bad_orders_fail_at_once_and_are_uploaded_when_they_are_mended(
    listener: Service, orders: Orders, api: Client, database: Database
) -> None:
    with database.connect(autocommit=False) as conn:  # one commit: they are in the same batch as good ones
        for number, (payload, _) in BAD.items():
            conn.execute(
                "INSERT INTO orders_inbox (source, order_number, payload) VALUES ('bad', %s, %s::jsonb)",
                [number, payload],
            )
        conn.execute("INSERT INTO orders_inbox (source, payload) VALUES ('bad', %s)", [json.dumps(PAYLOAD)])
        conn.execute(
            "INSERT INTO orders_inbox (source, order_number, payload) SELECT 'good', n::text, %s FROM"
            " generate_series(1, %s) AS n",
            [json.dumps(PAYLOAD), GOOD],
        )
        conn.commit()
    wait_for(orders, {"Uploaded": GOOD, "Failed": len(BAD) + 1})

    for number, (_, faults) in BAD.items():
        status, attempts, error = row(database, number)
        assert (status, attempts) == ("Failed", 1), number
        assert [fault for fault in faults if fault not in error] == [], error
        assert len(error) < 2_500
    nameless = "SELECT last_error FROM orders_inbox WHERE order_number IS NULL"
    assert "order_number is missing" in database.execute(nameless)[0][0]
    expected = {f"good-{n}" for n in range(1, GOOD + 1)}
    assert keys_sent(api) == set(api.held()) == expected, "no call was made for a bad one"

    database.execute(
        "UPDATE orders_inbox SET payload = %s, order_number = 'N' || id WHERE status = 'Failed'", [json.dumps(PAYLOAD)]
    )
    orders.wait_uploaded(GOOD + len(BAD) + 1)

    assert database.execute("SELECT DISTINCT attempts, last_error FROM orders_inbox") == [(1, None)]
    assert len(api.held()) == GOOD + len(BAD) + 1


@pytest.mark.parametrize(
    ("text", "words"),
    [(r'{"a": "\u0000"}', "unsupported Unicode escape"), (r'{"a": "\ud800"}', "invalid input syntax"), ("{", "json")],
)
def test_what_jsonb_cannot_hold_is_refused_at_the_insert(database: Database, text: str, words: str) -> None:
    with pytest.raises(psycopg.DataError, match=words):
        database.execute("INSERT INTO orders_inbox (order_number, payload) VALUES ('1', %s)", [text])


def test_an_adopted_table_of_type_json_may_hold_what_jsonb_refuses(
    empty_database: Database, api: Client, tmp_path: Any
) -> None:
    database, orders = empty_database, Orders(empty_database)
    database.execute("CREATE TABLE orders_inbox (order_number text, payload json)")
    migrate(database.url, "public")
    database.grant()
    texts = {
        "nul": json.dumps(ship_to(name="A\x00B")),
        "surrogate": json.dumps(ship_to(name="A\ud800B")),
        "key": json.dumps({**PAYLOAD, "a\ud800": 1}),
        "emoji": json.dumps(ship_to(name="A 🚀 Buyer")),
        "blanks": f" \r\n{json.dumps(PAYLOAD)}\t\n",
    }
    with services(database.service_url, api, tmp_path) as group:
        service = group.start().wait_ready()
        for number, text in texts.items():
            database.execute("INSERT INTO orders_inbox (order_number, payload) VALUES (%s, %s)", [number, text])
        wait_for(orders, {"Uploaded": 2, "Failed": 3})
        assert service.stop() == 0

    assert "ship_to.name = 'A\\x00B': contains the control character U+0000" in orders.errors()["nul"]
    assert "U+D800" in orders.errors()["surrogate"]
    assert "U+D800" in orders.errors()["key"]
    assert set(api.held()) == {"manual-emoji", "manual-blanks"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("9" * 5_000, r"payload = 'unreadable JSON: Exceeds the limit \(4300 digits\)"),
        # Python 3.13 reads them; then our own limit refuses them
        (
            "[" * 3_000 + "]" * 3_000,
            r"payload = 'unreadable JSON: maximum recursion depth|extra(\[0\])+: is beyond 64 levels",
        ),
    ],
    ids=["number of 5,000 digits", "3,000 levels"],
)
def test_json_that_postgres_holds_and_python_does_not_read_fails_alone(
    listener: Service, orders: Orders, database: Database, value: str, words: str
) -> None:
    database.execute(
        "INSERT INTO orders_inbox (source, order_number, payload) VALUES ('bad', '1', %s), ('good', '1', %s)",
        [json.dumps(PAYLOAD)[:-1] + f', "extra": {value}}}', json.dumps(PAYLOAD)],
    )
    until(
        lambda: orders.counts() == {"Uploaded": 1, "Failed": 1} or listener.process.poll() is not None,
        deadline_s=DEADLINE_S,
        what=f"one failed and one uploaded order; now {orders.counts()}",
    )
    assert listener.process.poll() is None, "the service ended"
    assert re.match(words, orders.errors()["1"])


def test_content_is_work_and_nothing_else_is(
    listener: Service, orders: Orders, api: Client, database: Database
) -> None:
    """Cancelled, edited, edited in flight, written again unchanged."""
    orders.insert(4)
    orders.wait_uploaded(4)

    def write(number: int, payload: dict[str, Any]) -> None:
        database.execute(
            "UPDATE orders_inbox SET payload = %s WHERE order_number = %s", [json.dumps(payload), f"A-{number}"]
        )

    def shown(number: int) -> dict[str, Any]:
        return next(each for each in api.get("/orders")["orders"] if each["orderKey"] == f"shop-A-{number}")

    write(1, changed(status="cancelled"))
    write(2, changed(customer_notes="ring twice"))
    orders.wait_uploaded(4)
    assert shown(1)["orderStatus"] == "cancelled"
    assert shown(2)["customerNotes"] == "ring twice"
    assert row(database, "A-2") == ("Uploaded", 1, None)

    api.fault({"latency_s": 3.0})
    write(3, changed(customer_notes="first"))
    api.until_in_flight(1)
    write(3, changed(customer_notes="second"))
    assert row(database, "A-3")[0] == "Processing"
    until(lambda: api.held()["shop-A-3"]["writes"] == 2, deadline_s=DEADLINE_S, what="the first of the two edits")
    api.control("DELETE", "faults")
    until(lambda: api.held()["shop-A-3"]["writes"] == 3, deadline_s=DEADLINE_S, what="the edit made in flight")
    orders.wait_uploaded(4)
    assert shown(3)["customerNotes"] == "second"
    assert row(database, "A-3") == ("Uploaded", 1, None)

    before = {key: each["writes"] for key, each in api.held().items()}
    assert before == {"shop-A-1": 2, "shop-A-2": 2, "shop-A-3": 3, "shop-A-4": 1}
    database.execute("UPDATE orders_inbox SET payload = payload, source = source, tracking_number = '1Z'")
    write(4, PAYLOAD)
    orders.insert(1, prefix="B")  # once this one is through, the others would have been, too
    orders.wait_uploaded(5)
    assert {key: each["writes"] for key, each in api.held().items()} == {**before, "shop-B-1": 1}
    assert listener.stop() == 0
