"""The routes of ShipStation V1 and what each does; `build` wires them into an application."""

from collections.abc import Iterable
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from listener.sandbox.clock import Clock, read_wall
from listener.sandbox.shipstation import listing, parcels
from listener.sandbox.shipstation.control import control_routes
from listener.sandbox.shipstation.damage import Reply
from listener.sandbox.shipstation.exchange import Call, Endpoint, Handler
from listener.sandbox.shipstation.order import LOCKED_STATUSES, Body, Mismatch, read_order, read_orders
from listener.sandbox.shipstation.state import Sandbox, SandboxSettings
from listener.sandbox.shipstation.store import FIRST_STORE, Held, Refused

LARGEST_BATCH = 100

_EVENTS = frozenset(
    {
        "ORDER_NOTIFY",
        "ITEM_ORDER_NOTIFY",
        "SHIP_NOTIFY",
        "ITEM_SHIP_NOTIFY",
        "FULFILLMENT_SHIPPED",
        "FULFILLMENT_REJECTED",
    }
)
_STORE: Body = {
    "storeId": FIRST_STORE,
    "storeName": "Manual Orders",
    "marketplaceId": 0,
    "marketplaceName": "ShipStation",
    "active": True,
    "autoRefresh": False,
}
_CARRIERS: list[Body] = [
    {"name": name, "code": code, "accountNumber": None, "balance": 100.0, "primary": code == "fedex"}
    for name, code in (("FedEx", "fedex"), ("UPS", "ups_walleted"), ("Stamps.com", "stamps_com"))
]


def build(settings: SandboxSettings | None = None, *, clock: Clock | None = None) -> Starlette:
    """Make the application; `app.state.sandbox` is its `Sandbox`, for use in the same process."""
    sandbox = Sandbox(settings or SandboxSettings(), clock or Clock())
    app = Starlette(routes=[*control_routes(sandbox), *_api_routes(sandbox)])
    app.router.redirect_slashes = False
    app.state.sandbox = sandbox
    return app


def _api_routes(sandbox: Sandbox) -> Iterable[Route]:
    table: tuple[tuple[str, str, Handler], ...] = (
        ("POST", "/orders/createorder", create_order),
        ("POST", "/orders/createorders", create_orders),
        ("POST", "/orders/markasshipped", mark_as_shipped),
        ("POST", "/orders/holduntil", hold_until),
        ("GET", "/orders", list_orders),
        ("GET", "/orders/{order_id:int}", get_order),
        ("DELETE", "/orders/{order_id:int}", delete_order),
        ("GET", "/shipments", list_shipments),
        ("GET", "/fulfillments", list_fulfillments),
        ("GET", "/stores", lambda _box, _call: Reply(200, [_STORE])),
        ("GET", "/carriers", lambda _box, _call: Reply(200, _CARRIERS)),
        ("POST", "/webhooks/subscribe", subscribe),
        ("GET", "/webhooks", list_webhooks),
        ("DELETE", "/webhooks/{webhook_id:int}", unsubscribe),
    )
    for method, path, handler in table:
        yield Route(path, Endpoint(sandbox, path, handler), methods=[method], name=f"{method} {path}")
    yield Route("/{path:path}", Endpoint(sandbox, "(unknown)", _unknown), name="unknown")


def create_order(sandbox: Sandbox, call: Call) -> Reply:
    """Create or update one order; the reply is the stored order."""
    body = read_order(call.content)
    error = _planned_error(call, body)
    if error is not None:
        return Reply(500, {"Message": "An error has occurred.", "ExceptionMessage": error})
    return Reply(200, sandbox.store.write(body).show())


def create_orders(sandbox: Sandbox, call: Call) -> Reply:
    """Create or update up to 100 orders; each succeeds or fails by itself, at HTTP 200."""
    bodies = read_orders(call.content)
    if len(bodies) > LARGEST_BATCH:
        raise Refused(f"A maximum of {LARGEST_BATCH} orders can be created per request; {len(bodies)} were sent.")
    sandbox.traffic.batch(len(bodies))
    results = [_result(sandbox, call, body) for body in bodies]
    return Reply(200, {"hasErrors": not all(result["success"] for result in results), "results": results})


def _result(sandbox: Sandbox, call: Call, body: Body) -> Body:
    key, number = body.get("orderKey"), body.get("orderNumber")
    held: Held | None = None
    error = _planned_error(call, body)
    if error is None:
        try:
            held = sandbox.store.write(body)
        except Refused as refused:
            error = str(refused)
    return {
        "orderId": held.order_id if held else None,
        "orderKey": held.key if held else key,
        "orderNumber": number,
        "success": held is not None,
        "errorMessage": error,
    }


def _planned_error(call: Call, body: Body) -> str | None:
    errors = call.fault.order_error
    if not errors:
        return None
    return errors.get(body.get("orderKey", "")) or errors.get(body.get("orderNumber", ""))


def list_orders(sandbox: Sandbox, call: Call) -> Reply:
    """List orders by filter, page by page."""
    rows, counts = listing.page_of(sandbox.store.live(), call.query, listing.ORDERS)
    return Reply(200, {"orders": [held.show() for held in rows], **counts})


def get_order(sandbox: Sandbox, call: Call) -> Reply:
    """Show one order."""
    return Reply(200, sandbox.store.find(call.params["order_id"]).show())


def delete_order(sandbox: Sandbox, call: Call) -> Reply:
    """Delete one order, softly: it leaves every list."""
    sandbox.store.delete(sandbox.store.find(call.params["order_id"]))
    return Reply(200, {"success": True, "message": "The requested order has been deleted."})


def mark_as_shipped(sandbox: Sandbox, call: Call) -> Reply:
    """Note that an order was shipped elsewhere; makes a fulfillment, not a shipment."""
    content = _document(call)
    held = sandbox.store.find(content.get("orderId") or 0)
    if not content.get("carrierCode"):
        raise Refused("'Carrier Code' must not be empty.")
    if held.status == "cancelled":
        raise Refused(f"Order {held.number} can not be marked as shipped because its status is cancelled.")
    parcels.fulfill(
        sandbox.store,
        held,
        carrier=str(content["carrierCode"]),
        tracking=content.get("trackingNumber"),
        ship_date=content.get("shipDate"),
        is_notified=bool(content.get("notifySalesChannel")),
    )
    return Reply(200, {"orderId": held.order_id, "orderNumber": held.number})


def hold_until(sandbox: Sandbox, call: Call) -> Reply:
    """Put an order on hold until a date."""
    content = _document(call)
    held = sandbox.store.find(content.get("orderId") or 0)
    if held.status in LOCKED_STATUSES:
        raise Refused(f"Order {held.number} can not be held because its status is {held.status}.")
    try:
        until = read_wall(content.get("holdUntilDate") or "")
    except (ValueError, AttributeError):
        raise Refused("'Hold Until Date' must be a valid date.") from None
    sandbox.store.mark(held, orderStatus="on_hold", holdUntilDate=until)
    return Reply(200, {"success": True, "message": "The requested order has been placed on hold."})


def list_shipments(sandbox: Sandbox, call: Call) -> Reply:
    """List shipments; their items only on demand."""
    rows, counts = listing.page_of(sandbox.store.shipments.values(), call.query, listing.SHIPMENTS)
    if call.query.get("includeshipmentitems", "").lower() != "true":
        rows = [{**row, "shipmentItems": None} for row in rows]
    return Reply(200, {"shipments": rows, **counts})


def list_fulfillments(sandbox: Sandbox, call: Call) -> Reply:
    """List fulfillments."""
    rows, counts = listing.page_of(sandbox.store.fulfillments.values(), call.query, listing.FULFILLMENTS)
    return Reply(200, {"fulfillments": rows, **counts})


def subscribe(sandbox: Sandbox, call: Call) -> Reply:
    """Register a webhook; the sandbox lists it and delivers nothing."""
    content = _document(call)
    if not content.get("target_url"):
        raise Refused("'Target Url' must not be empty.")
    if content.get("event") not in _EVENTS:
        raise Refused(f"'{str(content.get('event'))[:50]}' is not a valid event.")
    webhook_id = sandbox.store.next_id()
    sandbox.webhooks[webhook_id] = {
        "IsLabelAPIHook": False,
        "WebHookID": webhook_id,
        "SellerID": 100001,
        "StoreID": content.get("store_id"),
        "HookType": content["event"],
        "MessageFormat": "Json",
        "Url": content["target_url"],
        "Name": content.get("friendly_name"),
    }
    return Reply(200, {"id": webhook_id})


def list_webhooks(sandbox: Sandbox, _call: Call) -> Reply:
    """List the registered webhooks."""
    return Reply(200, {"webhooks": list(sandbox.webhooks.values())})


def unsubscribe(sandbox: Sandbox, call: Call) -> Reply:
    """Remove a webhook."""
    if sandbox.webhooks.pop(call.params["webhook_id"], None) is None:
        raise Refused("The requested webhook was not found.", is_unknown=True)
    return Reply(200, {"success": True, "message": "The requested webhook has been deleted."})


def _unknown(_sandbox: Sandbox, call: Call) -> Reply:
    return Reply(404, {"Message": f"No HTTP resource was found that matches the request URI '{call.path}'."})


def _document(call: Call) -> dict[str, Any]:
    if not isinstance(call.content, dict):
        raise Mismatch(call.content, "Object")
    return call.content
