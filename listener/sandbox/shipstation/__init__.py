"""A local ShipStation V1: `build(settings)` gives the ASGI application.

How a call runs: `routes` maps a path to a handler; `exchange` is the pipeline around every handler (faults, Basic
auth, rate limit, log); handlers work on `store` (orders) and `parcels` (shipments, fulfillments) and read lists by
`listing`; `order` knows the shape of an order. `control` is the part under /sandbox/ that the real API has not.
"""

from listener.sandbox.shipstation.routes import build
from listener.sandbox.shipstation.state import Sandbox, SandboxSettings

__all__ = ["Sandbox", "SandboxSettings", "build"]
