"""`GET /api/v1/sync/monitor/status`: do syncs run, and how far have they got."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from listener.config.live import LiveConfig
from listener.db.sync_runs import SyncRuns
from listener.web.access import guarded


def sync_monitor(
    runs: SyncRuns,
    *,
    live: Callable[[], LiveConfig],
    is_connected: Callable[[], bool],
    guard: Callable[[Request], None],
) -> Route:
    """Return the route. is_connected: does this process hold its session, without which it inserts no run."""

    async def status(_: Request) -> JSONResponse:
        """Whether the schedule runs, the newest run, the watermarks and the sums since `listener stats --reset`."""
        found = await runs.monitor()
        is_enabled = live().is_enabled("sync")
        scheduler = {
            "running": is_connected() and is_enabled,
            "enabled": is_enabled,
            "interval_seconds": live().sync_interval,
        }
        return JSONResponse({"status": "success", "data": {"scheduler": scheduler, **found}})

    return guarded(Route("/api/v1/sync/monitor/status", status), guard)
