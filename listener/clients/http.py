"""One HTTP call: sends, times, publishes `ApiCalled`, and calls every transport failure by one name."""

import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import BinaryIO, Self

import anyio
import httpx2

from listener.core.errors import TooLarge, Unavailable
from listener.core.events import ApiCalled, Publish

# The rest is for writing down what came of it.
_SHARE_OF_CALLERS_TIME = 0.9
# Of a reply that is no success: its words for a person.
_MOST_WORDS_BYTES = 65_536


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
            verify=_trust(),
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
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        named: str | None = None,
    ) -> Raw:
        """Send and read the whole reply.

        base_url: another host than the usual one; it gets the credentials too. headers: with a content that is not
        JSON, its type. named: what logs and errors say instead of a path that holds a secret.

        Raises Unavailable(reason="outage") when none arrives.
        """
        kind = {"content-type": "application/json"} if content is not None else {}

        async def send(url: str) -> Raw:
            response = await self._client.request(method, url, content=content, headers={**kind, **(headers or {})})
            return _raw(response, response.content)

        return await self._exchange(method, path, send, base_url=base_url, named=named, limit_s=self._timeout_s)

    async def download(
        self,
        path: str,
        file: BinaryIO,
        *,
        most_bytes: int,
        most_s: float,
        headers: Mapping[str, str] | None = None,
        named: str | None = None,
    ) -> Raw:
        """GET, and write the body of a 2xx reply into `file`; any other reply's is in the Raw, its first 64 kB.

        most_s: for the whole of it; silence ends it after the usual timeout. Raises Unavailable, TooLarge.
        """

        async def send(url: str) -> Raw:
            async with self._client.stream("GET", url, headers=headers) as response:
                size, words = 0, b""
                async for piece in response.aiter_bytes():
                    size += len(piece)
                    if not response.is_success:
                        words += piece
                        if len(words) > _MOST_WORDS_BYTES:
                            break
                        continue
                    if size > most_bytes:
                        raise TooLarge(f"GET {named or path}: the reply is larger than {most_bytes:,} bytes")
                    file.write(piece)
                return _raw(response, words[:_MOST_WORDS_BYTES])

        return await self._exchange("GET", path, send, base_url=None, named=named, limit_s=most_s)

    async def _exchange(
        self,
        method: str,
        path: str,
        send: Callable[[str], Awaitable[Raw]],
        *,
        base_url: str | None,
        named: str | None,
        limit_s: float,
    ) -> Raw:
        base_url, named = (base_url or self._base_url).rstrip("/"), named or path
        started = time.perf_counter()
        status = "cancelled"
        try:
            raw = await self._bounded(send, f"{base_url}{path}", limit_s)
            status = str(raw.status)
        except (httpx2.TimeoutException, TimeoutError) as error:
            status = "timeout"
            limit = str(error) if isinstance(error, TimeoutError) else f"{time.perf_counter() - started:.3g}"
            raise Unavailable(f"no reply within {limit} s to {method} {named}", reason="outage") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            status = "unreachable" if isinstance(error, httpx2.ConnectError) else "reset"
            raise Unavailable(
                f"{method} {base_url}{named}: {type(error).__name__}: {str(error) or 'connection lost'}",
                reason="outage",
            ) from error
        else:
            return raw
        finally:
            self._publish(
                ApiCalled(
                    connector=self._connector,
                    account=self._account,
                    method=method,
                    path=named,
                    status=status,
                    duration_s=time.perf_counter() - started,
                )
            )

    async def _bounded(self, send: Callable[[str], Awaitable[Raw]], url: str, limit_s: float) -> Raw:
        """Raises TimeoutError(seconds) when the whole reply is not there in time: after our own limit, and before its
        caller would be cut off, whose rows would pay for an API that is silent."""
        started_at = anyio.current_time()
        raw: Raw | None = None
        failure: Exception | None = None

        def allowed_s() -> float:
            left_s = anyio.current_effective_deadline() - started_at
            return min(limit_s, max(left_s * _SHARE_OF_CALLERS_TIME, 0.0))

        async with anyio.create_task_group() as group:

            async def cut_when_late() -> None:
                # the caller's deadline may move meanwhile: read it again when time seems to be up
                while (left_s := started_at + allowed_s() - anyio.current_time()) > 0:  # noqa: ASYNC110
                    await anyio.sleep(left_s)
                group.cancel_scope.cancel("late")

            group.start_soon(cut_when_late)
            try:
                raw = await send(url)
            except Exception as error:  # noqa: BLE001 - any: outside the group it would arrive wrapped
                failure = error
            group.cancel_scope.cancel("answered")
        if failure is not None:
            raise failure
        if raw is None:
            raise TimeoutError(f"{allowed_s():.3g}")
        return raw


@cache
def _trust() -> ssl.SSLContext:
    """Whom all clients of the process trust; reading the certificates takes 60 ms, which each would spend."""
    return httpx2.create_ssl_context()


def _raw(response: httpx2.Response, body: bytes) -> Raw:
    return Raw(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)
