"""The orders that the sandbox holds: upsert by `orderKey`, edits, deletions. Pure state: no HTTP, no fault."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from listener.sandbox.clock import Clock
from listener.sandbox.shipstation.order import LOCKED_STATUSES, Body, expand, refusals

#: With big ids on, every id in a reply is this much larger: beyond 2^53, where a float loses the last digit.
BIG_ID_BASE = 9_100_000_000_000_000

#: Orders without a `storeId` go to the first manual store.
FIRST_STORE = 12345


class Refused(Exception):  # noqa: N818 - reads as a state
    """The API refuses this one order or action; the text is for the reply. is_unknown: there is no such thing."""

    def __init__(self, text: str, *, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.is_unknown = is_unknown


@dataclass(slots=True, kw_only=True)
class Held:
    """One order. created, modified: Pacific wall clock. accepted_at: seconds since 1970, of the first write.

    body: what the last write said, sparse. marks: what only the API writes (shipDate, externallyFulfilled, …).
    writes: how many calls of the client created or updated it; a person's edits are not counted.
    """

    order_id: int
    key: str
    store_id: int
    customer_id: int
    created: str
    modified: str
    accepted_at: float
    body: Body
    item_ids: int
    marks: dict[str, Any] = field(default_factory=dict)
    writes: int = 1
    is_deleted: bool = False

    @property
    def status(self) -> str:
        """The status word."""
        return str(self.body.get("orderStatus", ""))

    @property
    def number(self) -> str:
        """The order number."""
        return str(self.body.get("orderNumber", ""))

    def show(self) -> Body:
        """Write the full resource as the API shows it."""
        shown = expand(self.body)
        shown.update(self.marks)
        shown.update(
            orderId=self.order_id,
            orderKey=self.key,
            customerId=self.customer_id,
            createDate=self.created,
            modifyDate=self.modified,
        )
        shown["advancedOptions"]["storeId"] = self.store_id
        for offset, item in enumerate(shown["items"]):
            item["orderItemId"] = self.item_ids + offset
            item["createDate"] = item["modifyDate"] = self.modified
        return shown

    def describe(self) -> dict[str, Any]:
        """Write what a test wants to know of it."""
        return {
            "orderId": self.order_id,
            "orderKey": self.key,
            "orderNumber": self.number,
            "orderStatus": self.status,
            "writes": self.writes,
            "deleted": self.is_deleted,
            "accepted": datetime.fromtimestamp(self.accepted_at, UTC).isoformat(timespec="microseconds"),
            "accepted_at": self.accepted_at,
        }


class Store:
    """All orders, and the shipments and fulfillments that `parcels` keeps here."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.clear()

    def clear(self) -> None:
        """Hold nothing; ids go on from their beginning."""
        self.orders: dict[int, Held] = {}
        self.shipments: dict[int, Body] = {}
        self.fulfillments: dict[int, Body] = {}
        self._by_key: dict[str, Held] = {}
        self._customers: dict[str, int] = {}
        # Real ids passed 2^31 long ago; a client that keeps them in 32 bits shall not get far here either.
        self._last_id = 5_550_000_000

    def next_id(self, count: int = 1) -> int:
        """Give the first of `count` fresh ids."""
        first = self._last_id + 1
        self._last_id += max(count, 1)
        return first

    def live(self) -> list[Held]:
        """List the orders that are not deleted."""
        return [held for held in self.orders.values() if not held.is_deleted]

    def find(self, order_id: Any = None, key: str | None = None, number: str | None = None) -> Held:
        """Find an order that is not deleted, by id, key or exact number. Raises Refused."""
        held = None
        if isinstance(order_id, int):
            held = self.orders.get(order_id - BIG_ID_BASE if order_id > BIG_ID_BASE else order_id)
        elif key is not None:
            held = self._by_key.get(key)
        elif number is not None:
            held = next((held for held in self.live() if held.number == number), None)
        if held is None or held.is_deleted:
            raise Refused("The requested order was not found.", is_unknown=True)
        return held

    def write(self, body: Body) -> Held:
        """Create or update the order that `body` (as `read_order` gives it) describes. Raises Refused."""
        wrong = refusals(body)
        if wrong:
            raise Refused(" ".join(wrong))
        order_id, key = body.pop("orderId", None), body.pop("orderKey", None) or None
        held = self.find(order_id) if order_id else self._by_key.get(key) if key is not None else None
        if held is None:
            return self._create(key or str(uuid.uuid4()), body)
        if held.status in LOCKED_STATUSES:
            raise Refused(f"Order {held.number} can not be updated because its status is {held.status}.")
        self._replace(held, body)
        held.writes += 1
        return held

    def edit(self, held: Held, changes: Body, *, created: str | None = None, modified: str | None = None) -> None:
        """Change single fields, as a person in the web interface does (None clears); any status word is allowed."""
        merged = {**held.body, **changes}
        self._replace(held, {name: value for name, value in merged.items() if value is not None})
        held.created = created or held.created
        held.modified = modified or held.modified

    def mark(self, held: Held, **marks: Any) -> None:
        """Set fields that only the API writes; `orderStatus` among them changes the status."""
        status = marks.pop("orderStatus", None)
        if status is not None:
            held.body = {**held.body, "orderStatus": status}
        held.marks.update(marks)
        held.modified = self.clock.wall()

    def split(self, held: Held, *, same_key: bool) -> Held:
        """Take a part of the order into an order of its own, which waits again; both say so. Gives the part.

        same_key: the part carries its parent's key too, as the API's rule that updates of split orders name key and id
        suggests; else one of its own.
        """
        child = self._create(
            held.key if same_key else str(uuid.uuid4()), {**held.body, "orderStatus": "awaiting_shipment"}
        )
        self._by_key[child.key] = held if same_key else child
        for each, parent in ((held, None), (child, held.order_id)):
            more = {**each.body.get("advancedOptions", {}), "mergedOrSplit": True}
            each.body = {**each.body, "advancedOptions": more if parent is None else {**more, "parentId": parent}}
        held.modified = self.clock.wall()
        return child

    def delete(self, held: Held) -> None:
        """Take it out of every list; the key is free for a new order."""
        held.is_deleted = True
        held.modified = self.clock.wall()
        self._by_key.pop(held.key, None)

    def _create(self, key: str, body: Body) -> Held:
        now = self.clock.wall()
        person = body.get("customerUsername") or body.get("customerEmail") or body["shipTo"]["name"]
        held = Held(
            order_id=self.next_id(),
            key=key,
            store_id=body.get("advancedOptions", {}).get("storeId") or FIRST_STORE,
            customer_id=self._customers.setdefault(person, len(self._customers) + 7_000_001),
            created=now,
            modified=now,
            accepted_at=self.clock.epoch_s(),
            body=body,
            item_ids=self.next_id(len(body.get("items", ()))),
        )
        self.orders[held.order_id] = held
        self._by_key[key] = held
        return held

    def _replace(self, held: Held, body: Body) -> None:
        held.body = body
        held.item_ids = self.next_id(len(body.get("items", ())))
        held.modified = self.clock.wall()
