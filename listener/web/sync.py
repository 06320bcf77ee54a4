"""`GET /api/v1/sync/monitor/status`: do syncs run, and how far have they got."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Request

from listener.config.live import LiveConfig
from listener.db.sync_runs import SyncRuns


def sync_monitor(
    runs: SyncRuns,
    *,
    live: Callable[[], LiveConfig],
    is_connected: Callable[[], bool],
    guard: Callable[[Request], None],
) -> APIRouter:
    """Return the route. is_connected: does this process hold its session, without which it inserts no run."""
    router = APIRouter(dependencies=[Depends(guard)])

    @router.get("/api/v1/sync/monitor/status")
    async def status() -> dict[str, Any]:
        """Whether the schedule runs, the newest run, the watermarks and the sums since `listener stats --reset`."""
        found = await runs.monitor()
        is_enabled = live().is_enabled("sync")
        scheduler = {
            "running": is_connected() and is_enabled,
            "enabled": is_enabled,
            "interval_seconds": live().sync_interval,
        }
        return {"status": "success", "data": {"scheduler": scheduler, **found}}

    return router
