"""The part under /sandbox/ that the real API has not: look inside, switch faults, play the person at ShipStation.

No credentials are asked for; the sandbox is for one machine. Calls here are neither limited nor logged.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from listener.sandbox.clock import read_wall
from listener.sandbox.shipstation import parcels
from listener.sandbox.shipstation.order import Body, Mismatch, read_order
from listener.sandbox.shipstation.state import Sandbox
from listener.sandbox.shipstation.store import BIG_ID_BASE, Held, Refused

Action: TypeAlias = Callable[[Sandbox, Request, Any], Any]


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Payload):
    """limit: calls per window, None or 0 = no limit. window_s: seconds. What is not sent stays as it is."""

    limit: Annotated[int, Field(ge=0)] | None
    window_s: Annotated[float, Field(gt=0)]


class Credentials(_Payload):
    """The only key and secret that are admitted from now on."""

    key: str
    secret: str


class Offset(_Payload):
    """How far the vendor's clock is ahead of ours, in seconds."""

    offset_s: float


class _OfOrder(_Payload):
    """Which order: by the first of these that is given."""

    orderId: int | None = None  # noqa: N815 - the API's own name
    orderKey: str | None = None  # noqa: N815
    orderNumber: str | None = None  # noqa: N815

    def find(self, sandbox: Sandbox) -> Held:
        """Find the order. Raises Refused."""
        return sandbox.store.find(self.orderId, self.orderKey, self.orderNumber)


class Ship(_OfOrder):
    """Ship an order: buy a label, or (fulfillment) have someone else ship it. Dates are Pacific wall clock."""

    trackingNumber: str | None = None  # noqa: N815
    carrierCode: str = "fedex"  # noqa: N815
    serviceCode: str = "fedex_ground"  # noqa: N815
    shipDate: str | None = None  # noqa: N815
    createDate: str | None = None  # noqa: N815
    shipmentCost: float = 7.25  # noqa: N815
    isReturnLabel: bool = False  # noqa: N815
    fulfillment: bool = False


class Void(_OfOrder):
    """Void a shipment or fulfillment: the one with this id, or the order's newest that is not void."""

    shipmentId: int | None = None  # noqa: N815
    fulfillmentId: int | None = None  # noqa: N815


class Split(_OfOrder):
    """Make an order of a part of one. sameKey: it carries its parent's orderKey."""

    sameKey: bool = False  # noqa: N815


class Edit(_OfOrder):
    """Change an order by hand. set: fields of the order, null clears one; any status word goes.

    createDate and modifyDate (Pacific wall clock) lie about when, as a late-arriving row does.
    """

    set: dict[str, Any] = {}
    createDate: str | None = None  # noqa: N815
    modifyDate: str | None = None  # noqa: N815


def control_routes(sandbox: Sandbox) -> list[Route]:
    """Give the routes under /sandbox/."""
    table: tuple[tuple[str, str, Action], ...] = (
        ("GET", "orders", lambda box, _request, _body: [held.describe() for held in box.store.orders.values()]),
        ("GET", "stats", _stats),
        ("GET", "requests", _requests),
        ("GET", "faults", _show_faults),
        ("PUT", "faults", _put_faults),
        ("DELETE", "faults", _clear_faults),
        ("PUT", "limits", _put_limits),
        ("PUT", "credentials", _put_credentials),
        ("PUT", "clock", _put_clock),
        ("POST", "reset", lambda box, _request, _body: box.reset()),
        ("POST", "ship", _ship),
        ("POST", "void", _void),
        ("POST", "edit", _edit),
        ("POST", "split", _split),
    )
    return [
        Route(f"/sandbox/{path}", _endpoint(sandbox, action), methods=[method], name=f"{method} {path}")
        for method, path, action in table
    ]


def _endpoint(sandbox: Sandbox, action: Action) -> Callable[[Request], Awaitable[Response]]:
    """Make an endpoint of an action: JSON in, JSON out (null becomes {}), mistakes as 400 or 404 with a sentence."""

    @wraps(action)
    async def endpoint(request: Request) -> Response:
        try:
            body = await request.json() if await request.body() else {}
            if not isinstance(body, (dict, list)):
                raise ValueError("the body must be a JSON object")  # noqa: TRY301, TRY004
            answer = action(sandbox, request, body)
        except Refused as refused:
            return JSONResponse({"message": str(refused)}, 404 if refused.is_unknown else 400)
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            return JSONResponse({"message": wrong}, 400)
        except (ValueError, Mismatch) as error:
            return JSONResponse({"message": str(error)}, 400)
        return JSONResponse({} if answer is None else answer)

    return endpoint


def _stats(sandbox: Sandbox, _request: Request, _body: Any) -> Body:
    return {
        **sandbox.traffic.describe(),
        "windows": sandbox.limiter.windows(),
        "limit": sandbox.limiter.limit,
        "window_s": sandbox.limiter.window_s,
        "orders": len(sandbox.store.live()),
    }


def _requests(sandbox: Sandbox, request: Request, _body: Any) -> Body:
    return {"requests": sandbox.traffic.last(int(request.query_params.get("last", "100")))}


def _show_faults(sandbox: Sandbox, _request: Request, _body: Any) -> Body:
    return {"faults": sandbox.plan.describe()}


def _put_faults(sandbox: Sandbox, request: Request, body: Any) -> Body:
    sandbox.plan.replace(body)
    return _show_faults(sandbox, request, body)


def _clear_faults(sandbox: Sandbox, request: Request, body: Any) -> Body:
    sandbox.plan.clear()
    return _show_faults(sandbox, request, body)


def _put_limits(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    now = {"limit": sandbox.limiter.limit, "window_s": sandbox.limiter.window_s}
    limits = Limits.model_validate({**now, **body} if isinstance(body, dict) else body)
    sandbox.limiter.configure(limit=limits.limit, window_s=limits.window_s)
    return limits.model_dump()


def _put_credentials(sandbox: Sandbox, _request: Request, body: Any) -> None:
    credentials = Credentials.model_validate(body)
    sandbox.admit_only(credentials.key, credentials.secret)


def _put_clock(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    sandbox.clock.offset_s = Offset.model_validate(body).offset_s
    return {"offset_s": sandbox.clock.offset_s, "wall": sandbox.clock.wall()}


def _ship(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    order = Ship.model_validate(body)
    held, created = order.find(sandbox), _wall(order.createDate)
    if order.fulfillment:
        return parcels.fulfill(
            sandbox.store,
            held,
            carrier=order.carrierCode,
            tracking=order.trackingNumber,
            ship_date=order.shipDate,
            created=created,
        )
    return parcels.ship(
        sandbox.store,
        held,
        tracking=order.trackingNumber,
        carrier=order.carrierCode,
        service=order.serviceCode,
        ship_date=order.shipDate,
        created=created,
        is_return=order.isReturnLabel,
        cost=order.shipmentCost,
    )


def _void(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    order, store = Void.model_validate(body), sandbox.store
    if order.shipmentId is not None:
        found = store.shipments.get(order.shipmentId % BIG_ID_BASE)
    elif order.fulfillmentId is not None:
        found = store.fulfillments.get(order.fulfillmentId % BIG_ID_BASE)
    else:
        carried = [parcel for parcel in parcels.parcels_of(store, order.find(sandbox)) if not parcel["voided"]]
        found = carried[-1] if carried else None
    if found is None:
        raise Refused("There is nothing to void.", is_unknown=True)
    return parcels.void(store, found)


def _edit(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    order = Edit.model_validate(body)
    held = order.find(sandbox)
    changes = read_order(order.set)
    unknown = [name for name, value in order.set.items() if value is not None and name not in changes]
    if unknown or "orderId" in changes or "orderKey" in changes:
        raise Refused(f"These can not be set: {', '.join(unknown) or 'orderId, orderKey'}")
    changes = {**dict.fromkeys(order.set), **changes}
    sandbox.store.edit(held, changes, created=_wall(order.createDate), modified=_wall(order.modifyDate))
    return held.show()


def _split(sandbox: Sandbox, _request: Request, body: Any) -> Body:
    order = Split.model_validate(body)
    return sandbox.store.split(order.find(sandbox), same_key=order.sameKey).show()


def _wall(text: str | None) -> str | None:
    return None if text is None else read_wall(text)
