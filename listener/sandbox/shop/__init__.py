"""A local shop that speaks ShipStation's custom store protocol: `build(settings)` gives the ASGI application.

`GET /export?action=export&…` lists what was modified in a window, page by page; `POST …?action=shipnotify` is noted.
Under /sandbox/ (which no shop has) orders are put in and faults are switched.
"""

from listener.sandbox.shop.routes import build
from listener.sandbox.shop.state import Shop, ShopSettings

__all__ = ["Shop", "ShopSettings", "build"]
