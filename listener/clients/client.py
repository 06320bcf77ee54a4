"""What the client of every outside API is made of: one account's way out, and the budget that pays for each call."""

from types import TracebackType
from typing import Self

from listener.clients.account import Account
from listener.clients.http import Http
from listener.core.budget import Budget
from listener.core.events import Publish


class Client:
    """One account, as an async context. `account` pays for calls, and is the gate of a queue that needs them.

    name: the account's, in budgets and metrics. connections: at most so many at once; default: a queue's most.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connector: str,
        name: str,
        timeout_s: float,
        budget: Budget,
        publish: Publish,
        auth: tuple[str, str] | None = None,
        connections: int | None = None,
    ) -> None:
        self.account = Account(budget, publish)
        more = {} if connections is None else {"connections": connections}
        self._http = Http(base_url, publish, connector=connector, account=name, auth=auth, timeout_s=timeout_s, **more)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.account.close()
        await self._http.__aexit__(kind, error, trace)
