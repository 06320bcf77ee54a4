"""One HTTP call: sends, times, publishes `ApiCalled`, and calls every transport failure by one name."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import anyio
import httpx2

from listener.core.errors import Unavailable
from listener.core.events import ApiCalled, Publish

# The rest is for writing down what came of it.
_SHARE_OF_CALLERS_TIME = 0.9


@dataclass(frozen=True, slots=True)
class Raw:
    """A reply as it came. headers: lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http:
    """A pool of connections to one base URL with one account's credentials."""

    def __init__(
        self,
        base_url: str,
        publish: Publish,
        *,
        connector: str,
        account: str,
        auth: tuple[str, str] | None,
        timeout_s: float,
        connections: int = 100,  # the most handler calls a queue may run: none waits for another's connection
    ) -> None:
        self._publish = publish
        self._connector = connector
        self._account = account
        self._base_url = base_url.rstrip("/")
        self._client = httpx2.AsyncClient(
            auth=httpx2.BasicAuth(*auth) if auth else None,
            # the read timeout restarts with every chunk; the whole call is bounded by `_timeout_s` below
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"user-agent": "order-listener"},
            follow_redirects=False,  # a redirected POST would lose its body or leak the credentials
        )
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._client.aclose()

    async def request(
        self, method: str, path: str, *, content: bytes | None = None, base_url: str | None = None
    ) -> Raw:
        """Send and read the whole reply. base_url: another host than the usual one; it gets the credentials too.

        Raises Unavailable(reason="outage") when none arrives.
        """
        base_url = (base_url or self._base_url).rstrip("/")
        started = time.perf_counter()
        status = "cancelled"
        try:
            response = await self._send(method, f"{base_url}{path}", content)
            status = str(response.status_code)
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Raw(response.status_code, headers, response.content)
        except (httpx2.TimeoutException, TimeoutError) as error:
            status = "timeout"
            limit = str(error) if isinstance(error, TimeoutError) else f"{time.perf_counter() - started:.3g}"
            raise Unavailable(f"no reply within {limit} s to {method} {path}", reason="outage") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            status = "unreachable" if isinstance(error, httpx2.ConnectError) else "reset"
            raise Unavailable(
                f"{method} {base_url}{path}: {type(error).__name__}: {str(error) or 'connection lost'}",
                reason="outage",
            ) from error
        finally:
            self._publish(
                ApiCalled(
                    connector=self._connector,
                    account=self._account,
                    method=method,
                    path=path,
                    status=status,
                    duration_s=time.perf_counter() - started,
                )
            )

    async def _send(self, method: str, url: str, content: bytes | None) -> httpx2.Response:
        """Raises TimeoutError(seconds) when the whole reply is not there in time: after our own limit, and before its
        caller would be cut off, whose rows would pay for an API that is silent."""
        started_at = anyio.current_time()
        response: httpx2.Response | None = None
        failure: Exception | None = None

        def allowed_s() -> float:
            left_s = anyio.current_effective_deadline() - started_at
            return min(self._timeout_s, max(left_s * _SHARE_OF_CALLERS_TIME, 0.0))

        async with anyio.create_task_group() as group:

            async def cut_when_late() -> None:
                # the caller's deadline may move meanwhile: read it again when time seems to be up
                while (left_s := started_at + allowed_s() - anyio.current_time()) > 0:  # noqa: ASYNC110
                    await anyio.sleep(left_s)
                group.cancel_scope.cancel("late")

            group.start_soon(cut_when_late)
            try:
                response = await self._client.request(
                    method,
                    url,
                    content=content,
                    headers={"content-type": "application/json"} if content is not None else None,
                )
            except Exception as error:  # noqa: BLE001 - any: outside the group it would arrive wrapped
                failure = error
            group.cancel_scope.cancel("answered")
        if failure is not None:
            raise failure
        if response is None:
            raise TimeoutError(f"{allowed_s():.3g}")
        return response
