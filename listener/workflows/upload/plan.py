"""What an upload sends to ShipStation and what its reply means. Pure: no I/O, no clock; `handler.py` acts on it.

The API's V1 order resource is replaced as a whole: a field that the body leaves out is cleared there, which is what
an edited order wants. Its times are Pacific wall clock without offset; its money is JSON numbers.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from hashlib import md5
from typing import TypeVar

from listener.core.outcome import Done, Fail, Outcome, Retry
from listener.workflows.order import BillTo, Item, Order
from listener.workflows.pacific import pacific

T = TypeVar("T")

MAX_KEY_CHARS = 50  # ShipStation's orderKey
_UNIT_SEPARATOR = "\x1f"  # between two texts that may hold anything that is printed
_KEY_HEAD_CHARS = 17  # 17 + "-" + 32 hex digits = 50
_MAX_WORDS_CHARS = 1_000  # of ShipStation's own words in last_error
_NUMBER_MARK = "\x00number:"  # NUL cannot be in an order: neither jsonb nor `Order` lets it in
_MARKED_NUMBER = re.compile(r'"\\u0000number:(-?[0-9.]+)"')
_MAX_EXPONENT = 30  # far beyond money; keeps 1E+999999 from becoming a million digits
_DIGITS = re.compile("[0-9]{1,18}")  # an orderId; True and 1.5 are none
# Words of a failure that the order did not cause. "Execution Timeout Expired" is the one seen in the field.
_TRANSIENT = re.compile(
    r"timed?[\s-]?out\b|deadlock|try again|temporar|server error|an error has occurred|unavailable|too many requests",
    re.IGNORECASE,
)
_CLOSED = re.compile(r"(already|been|is|are|was) (shipped|cancell?ed)|(shipped|cancell?ed) orders?", re.IGNORECASE)


class MalformedReply(ValueError):  # noqa: N818 - reads as a state
    """ShipStation's reply to createorders has not the documented shape; no order's outcome is known."""


def order_key(source: str | None, order_number: str) -> str:
    """Give ShipStation's orderKey: the same for the same order, so that a repeat updates and never duplicates.

    At most 50 characters, and no two orders share one: a source with a dash is hashed, or a-b, c and a, b-c would meet.
    The same rule stands in sql/functions/listener_order_key.sql (characters, in a UTF-8 database).
    """
    origin = "manual" if source is None else source
    whole = f"{origin}-{order_number}"
    if len(whole) <= MAX_KEY_CHARS and "-" not in origin:
        return whole
    both = f"{origin}{_UNIT_SEPARATOR}{order_number}"
    return f"{whole[:_KEY_HEAD_CHARS]}-{md5(both.encode(), usedforsecurity=False).hexdigest()}"


def to_shipstation(order: Order, *, order_number: str, order_key: str) -> dict[str, object]:
    """Give the whole V1 order resource; money stays Decimal until `encode`.

    Named by its key alone: an `orderId` would win over it, and one of another account, or of a sandbox that the table
    was tried with, is some other order's there (seen: that order was overwritten).
    """
    fields = order.custom_fields
    return _present(
        orderNumber=order_number,
        orderKey=order_key,
        orderDate=pacific(order.order_date),
        paymentDate=pacific(order.payment_date) if order.payment_date else None,
        orderStatus=order.status,
        customerUsername=order.customer.username,
        customerEmail=order.customer.email,
        billTo=_address(order.bill_to),
        shipTo=_address(order.ship_to),
        items=[_item(item) for item in order.items],
        amountPaid=order.amount_paid,
        taxAmount=order.tax_amount,
        shippingAmount=order.shipping_amount,
        customerNotes=order.customer_notes,
        internalNotes=order.internal_notes,
        gift=order.gift,
        giftMessage=order.gift_message,
        paymentMethod=order.payment_method,
        requestedShippingService=order.requested_shipping_service,
        advancedOptions=_present(
            storeId=order.store_id,
            customField1=fields.get("1") or None,
            customField2=fields.get("2") or None,
            customField3=fields.get("3") or None,
            source=order.source,
        ),
    )


def _address(address: BillTo) -> dict[str, object]:
    return _present(
        name=address.name,
        company=address.company,
        street1=address.street1,
        street2=address.street2,
        street3=address.street3,
        city=address.city,
        state=address.state,
        postalCode=address.postal_code,
        country=address.country,
        phone=address.phone,
        residential=address.residential,
    )


def _item(item: Item) -> dict[str, object]:
    return _present(
        lineItemKey=item.line_item_key,
        sku=item.sku,
        name=item.name,
        quantity=item.quantity,
        unitPrice=item.unit_price,
        taxAmount=item.tax_amount,
        options=[{"name": option.name, "value": option.value} for option in item.options],
        adjustment=item.adjustment,
    )


def _present(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def encode(bodies: Sequence[Mapping[str, object]]) -> bytes:
    """Give the JSON of createorders, each Decimal as the plain number it is: 9.99, never 9.9900000000000002.

    The C encoder knows no Decimal: it writes a marked text, from which one substitution takes mark and quotes.
    (20,000 orders: 0.6 s; with an encoder in Python 1.6 s.) Raises ValueError for what JSON cannot say.
    """
    numbers = 0

    def mark(value: object) -> str:
        nonlocal numbers
        if not isinstance(value, Decimal) or not value.is_finite() or abs(value.adjusted()) > _MAX_EXPONENT:
            raise ValueError(f"cannot be written as JSON: {type(value).__name__} {value!r:.80}")
        numbers += 1
        return f"{_NUMBER_MARK}{value:f}"

    text = json.dumps(bodies, default=mark, allow_nan=False, separators=(",", ":"))
    text, unmarked = _MARKED_NUMBER.subn(r"\1", text)
    if unmarked != numbers:
        raise ValueError("a text of the order looks like one of our own number marks (it starts with NUL)")
    return text.encode("ascii")


def read_results(jobs_by_key: Collection[str], reply: object) -> dict[str, Outcome]:
    """Give every orderKey its outcome from the reply to createorders, matched by that key, never by position.

    jobs_by_key: the keys that were sent, as a mapping from them or as they are.
    A key without a result is tried again: the upsert makes that harmless. Results for other keys are ignored.
    Raises MalformedReply when the reply as a whole cannot be read.
    """
    outcomes: dict[str, Outcome] = {}
    for result in _results(reply):
        key = result.get("orderKey")
        # a key told twice: a success is a stored order, whatever the other entry says
        if isinstance(key, str) and key in jobs_by_key and not isinstance(outcomes.get(key), Done):
            outcomes[key] = _outcome(key, result)
    return {
        key: outcomes.get(key) or Retry(f"ShipStation's reply has no result for orderKey {key}") for key in jobs_by_key
    }


def _results(reply: object) -> list[dict[str, object]]:
    if not isinstance(reply, dict):
        raise MalformedReply(f"ShipStation's reply is not a JSON object but {_kind(reply)}")
    results = reply.get("results")
    if not isinstance(results, list):
        fields = ", ".join(map(repr, list(reply)[:10])) or "no fields"
        raise MalformedReply(
            f"'results' in ShipStation's reply is not a list but {_kind(results)}; it has {fields:.200}"
        )
    for position, result in enumerate(results):
        if not isinstance(result, dict):
            raise MalformedReply(f"results[{position}] in ShipStation's reply is not an object but {_kind(result)}")
    return results


def _kind(value: object) -> str:
    return {type(None): "null", str: "text", list: "a list", dict: "an object", bool: "true or false"}.get(
        type(value), "a number"
    )


def _outcome(key: str, result: Mapping[str, object]) -> Outcome:
    words = _words(result.get("errorMessage"))
    if result.get("success") is True:
        order_id = result.get("orderId")
        known = isinstance(order_id, int | str) and _DIGITS.fullmatch(str(order_id))
        return Done({"shipstation_order_id": str(order_id), "order_key": key} if known else {"order_key": key})
    if not words:
        return Retry(f"ShipStation did not accept orderKey {key} and gave no reason")
    if _TRANSIENT.search(words) and not _CLOSED.search(words):
        return Retry(f"ShipStation could not store the order now: {words}")
    return Fail(f"ShipStation refused the order: {words}")


def _words(message: object) -> str:
    """ShipStation's own words, as one line that Postgres can store."""
    text = " ".join(str(message or "").split())
    plain = "".join(c if c.isprintable() else "?" for c in text[: _MAX_WORDS_CHARS + 1])
    return plain if len(plain) <= _MAX_WORDS_CHARS else plain[:_MAX_WORDS_CHARS] + "…"


def split(jobs: Sequence[T]) -> tuple[list[T], list[T]]:
    """Halve a batch that was refused as a whole, until the order at fault stands alone; the first may be larger."""
    middle = (len(jobs) + 1) // 2
    return list(jobs[:middle]), list(jobs[middle:])
