"""Shipments (labels bought inside) and fulfillments (shipped by someone else): two lists that never mix.

Neither has a modify date: a label that is voided later shows only by `voidDate`.
"""

from datetime import date
from typing import Any

from listener.sandbox.clock import read_wall
from listener.sandbox.shipstation.order import Body
from listener.sandbox.shipstation.store import Held, Refused, Store

_NO_LABEL: Body = {
    "insuranceCost": 0.0,
    "batchNumber": None,
    "packageCode": "package",
    "confirmation": "none",
    "warehouseId": 1,
    "voided": False,
    "voidDate": None,
    "marketplaceNotified": False,
    "notifyErrorMessage": None,
    "labelData": None,
    "formData": None,
}
_NO_FULFILLMENT: Body = {
    "voidDate": None,
    "deliveryDate": None,
    "sellerFillProviderId": None,
    "sellerFillProviderName": None,
    "fulfillmentServiceCode": None,
    "fulfillmentProviderCode": None,
    "fulfillmentFee": 0.0,
    "voidRequested": False,
    "voided": False,
    "marketplaceNotified": False,
    "notifyErrorMessage": None,
}


def ship(
    store: Store,
    held: Held,
    *,
    tracking: str | None = None,
    carrier: str = "fedex",
    service: str = "fedex_ground",
    ship_date: str | None = None,
    created: str | None = None,
    is_return: bool = False,
    cost: float = 7.25,
) -> Body:
    """Buy a label for the order; it is shipped then, unless the label is for a return. Gives the shipment."""
    order = held.show()
    now = store.clock.wall()
    day = _day(ship_date or now)
    shipment = {
        **_NO_LABEL,
        "shipmentId": store.next_id(),
        **_of_order(order),
        "orderKey": held.key,
        "createDate": created or now,
        "shipDate": day,
        "shipmentCost": cost,
        "trackingNumber": tracking or f"1Z{held.order_id}{len(store.shipments):05d}",
        "isReturnLabel": is_return,
        "carrierCode": carrier,
        "serviceCode": service,
        "weight": order["weight"],
        "dimensions": order["dimensions"],
        "insuranceOptions": order["insuranceOptions"],
        "advancedOptions": order["advancedOptions"],
        "shipmentItems": [_shipment_item(item) for item in order["items"]],
    }
    store.shipments[shipment["shipmentId"]] = shipment
    if not is_return:
        store.mark(held, orderStatus="shipped", shipDate=day)
    return shipment


def fulfill(
    store: Store,
    held: Held,
    *,
    carrier: str | None,
    tracking: str | None = None,
    ship_date: str | None = None,
    created: str | None = None,
    is_notified: bool = False,
) -> Body:
    """Note that someone else shipped the order. Not idempotent: each call adds one. Gives the fulfillment."""
    order = held.show()
    now = store.clock.wall()
    day = _day(ship_date or now)
    fulfillment = {
        **_NO_FULFILLMENT,
        "fulfillmentId": store.next_id(),
        **_of_order(order),
        "trackingNumber": tracking,
        "createDate": created or now,
        "shipDate": f"{day}T00:00:00.0000000",
        "carrierCode": carrier,
        "marketplaceNotified": is_notified,
    }
    store.fulfillments[fulfillment["fulfillmentId"]] = fulfillment
    store.mark(held, orderStatus="shipped", shipDate=day, externallyFulfilled=True)
    return fulfillment


def void(store: Store, parcel: Body) -> Body:
    """Void a shipment or fulfillment; the order waits again when nothing else carries it. Gives the parcel."""
    if parcel["voided"]:
        raise Refused("The label has already been voided.")
    parcel["voided"] = True
    parcel["voidDate"] = store.clock.wall()
    held = store.orders.get(parcel["orderId"])
    if held is not None and held.status == "shipped" and not any(_carries(each) for each in parcels_of(store, held)):
        store.mark(held, orderStatus="awaiting_shipment", shipDate=None, externallyFulfilled=False)
    return parcel


def parcels_of(store: Store, held: Held) -> list[Body]:
    """List an order's shipments and fulfillments, oldest first."""
    found = [*store.shipments.values(), *store.fulfillments.values()]
    return [parcel for parcel in found if parcel["orderId"] == held.order_id]


def _carries(parcel: Body) -> bool:
    return not parcel["voided"] and not parcel.get("isReturnLabel", False)


def _of_order(order: Body) -> dict[str, Any]:
    return {
        "orderId": order["orderId"],
        "orderNumber": order["orderNumber"],
        "userId": order["userId"],
        "customerEmail": order["customerEmail"],
        "shipTo": order["shipTo"],
    }


def _shipment_item(item: Body) -> Body:
    names = "orderItemId lineItemKey sku name imageUrl weight quantity unitPrice warehouseLocation options productId"
    return {name: item[name] for name in (*names.split(), "fulfillmentSku")}


def _day(text: str) -> str:
    """Give the date of a date or date/time. Raises Refused."""
    try:
        return date.fromisoformat(read_wall(text)[:10]).isoformat()
    except ValueError:
        raise Refused(f"'{text[:50]}' is not a valid date.") from None
