"""The routes of the shop, and how it writes its orders; `build` wires them into an application."""

from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from listener.sandbox.clock import Clock
from listener.sandbox.exchange import Answer, Call, Endpoint, control_routes
from listener.sandbox.shop.state import Shop, ShopSettings, Sold

_STAMP = "%m/%d/%Y %H:%M"
_ORDER = {
    "OrderDate": "11/20/2026 14:03",
    "CurrencyCode": "USD",
    "OrderTotal": "19.98",
    "TaxAmount": "0.00",
    "ShippingAmount": "0.00",
    "CustomerNotes": "",
}
_REST = """<Customer><CustomerCode>buyer@example.org</CustomerCode>
<BillTo><Name>A Buyer</Name><Email>buyer@example.org</Email></BillTo>
<ShipTo><Name><![CDATA[A Buyer]]></Name><Address1>1 Main St</Address1><City>Austin</City><State>TX</State>
<PostalCode>78701</PostalCode><Country>US</Country></ShipTo></Customer>
<Items><Item><SKU>ABC</SKU><Name>Thing</Name><Quantity>2</Quantity><UnitPrice>9.99</UnitPrice></Item></Items>"""


class _Sale(BaseModel):
    """An order to put in, or to change."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: str
    status: str = "paid"
    ago_s: float = 0.0
    fields: dict[str, str] = {}


class _Sales(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    orders: list[_Sale]


def build(settings: ShopSettings | None = None, *, clock: Clock | None = None) -> Starlette:
    """Make the application; `app.state.sandbox` is its `Shop`, for use in the same process."""
    shop = Shop(settings or ShopSettings(), clock)

    def answer(call: Call) -> Answer:
        return _answer(shop, call)

    def sell(_request: Request, body: Any) -> Any:
        sales = _Sales.model_validate(body).orders
        for sale in sales:
            shop.sell(sale.number, ago_s=sale.ago_s, status=sale.status, **sale.fields)
        return {"orders": len(shop.orders)}

    control = control_routes(
        shop,
        (
            ("PUT", "orders", sell),
            ("GET", "orders", lambda _request, _body: [_shown(sold) for sold in shop.orders.values()]),
            ("GET", "notices", lambda _request, _body: shop.notices),
        ),
    )
    endpoint = Endpoint(shop, "export", answer)
    app = Starlette(routes=[*control, Route("/export", endpoint, methods=["GET", "POST"])])
    app.state.sandbox = shop
    return app


def _answer(shop: Shop, call: Call) -> Answer:
    if not shop.admits(call.headers.get("authorization", ""), call.query.get("auth_key")):
        return Answer(401, b"Unauthorized", "text/plain", {"WWW-Authenticate": 'Basic realm="shop"'})
    if call.method == "POST" and call.query.get("action") == "shipnotify":
        shop.notices.append({**call.query, "body": call.body.decode("utf-8", "replace")})
        return Answer(200, b"", "text/plain")
    if call.query.get("action") != "export":
        return Answer(400, b"action must be export or shipnotify", "text/plain")
    try:
        # the protocol's times have no zone: UTC by the guide
        start, end = (
            datetime.strptime(call.query.get(name, ""), _STAMP).replace(tzinfo=UTC)
            for name in ("start_date", "end_date")
        )
        number = int(call.query.get("page", "1"))
    except ValueError as error:
        return Answer(400, str(error).encode(), "text/plain")
    rows, pages = shop.page(start, end, number)
    count = f" pages={quoteattr(str(pages))}" if shop.settings.tells_pages else ""
    orders = "".join(map(_written, rows))
    document = f'<?xml version="1.0" encoding="utf-8"?>\n<Orders{count}>\n{orders}</Orders>\n'
    return Answer(200, document.encode(), "text/xml; charset=utf-8")


def _written(sold: Sold) -> str:
    modified = datetime.fromtimestamp(sold.modified_at, UTC).strftime(_STAMP)
    head = {"OrderID": sold.number, "OrderNumber": sold.number, "OrderStatus": sold.status, "LastModified": modified}
    texts = {**head, **_ORDER, **sold.fields}
    elements = "".join(f"<{name}>{escape(str(text))}</{name}>" for name, text in texts.items())
    return f"<Order>{elements}{_REST}</Order>\n"


def _shown(sold: Sold) -> dict[str, Any]:
    return {"number": sold.number, "status": sold.status, "modified_at": sold.modified_at, "fields": sold.fields}
