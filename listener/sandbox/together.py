"""All sandboxes on one address: ShipStation at its root, a shop below /shop, Google Drive below /google."""

from starlette.applications import Starlette
from starlette.routing import Mount

from listener.sandbox import drive, shipstation, shop


def build_together(settings: shipstation.SandboxSettings) -> Starlette:
    """Make the application; settings: of the ShipStation."""
    return Starlette(
        routes=[
            Mount("/shop", shop.build()),
            Mount("/google", drive.build()),
            Mount("/", shipstation.build(settings)),
        ]
    )
