"""What a fault does to one call outside its handler: silence, a reset, a reply that is cut off."""

from collections.abc import Callable

from listener.sandbox.faults import Fault
from listener.sandbox.traffic import Visit
from listener.sandbox.wire import Wire


class Mishap:
    """A fault at work; writes to the visit how the call ended. Without a fault, replies are sent as they are."""

    def __init__(self, fault: Fault, wire: Wire, visit: Visit, is_closing: Callable[[], bool]) -> None:
        self._fault = fault
        self._wire = wire
        self._visit = visit
        self._is_closing = is_closing

    async def before(self) -> bool:
        """Do what comes before the handler; False when the call has ended with it."""
        fault = self._fault
        if fault.latency_s and not await self._wait(fault.latency_s):
            return False
        if fault.reset_before:
            await self._reset()
            return False
        return not fault.hang_s or fault.effect is not False or await self._wait(fault.hang_s)

    async def after(self) -> bool:
        """Be silent although the handler is done; False when the call has ended with it."""
        fault = self._fault
        return not fault.hang_s or fault.effect is False or await self._wait(fault.hang_s)

    async def send(self, status: int, headers: dict[str, str], body: bytes) -> bool:
        """Send the reply; False when it did not arrive whole."""
        if not self._fault.reset_after:
            self._visit.status = status
            await self._wire.reply(status, headers, body[: len(body) // 2] if self._fault.cut_json else body)
            return True
        self._visit.status = "reset"
        await (self._wire.half_reply(status, headers, body) if self._fault.reset_after == "mid" else self._wire.reset())
        return False

    async def _wait(self, seconds: float) -> bool:
        """Wait; or else end a call that will not be answered: the client left, or the server is stopping."""
        if await self._wire.wait(seconds, self._is_closing):
            return True
        if not self._wire.is_gone():
            await self._reset()
        return False

    async def _reset(self) -> None:
        self._visit.status = "reset"
        await self._wire.reset()
