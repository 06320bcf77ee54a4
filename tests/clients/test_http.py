"""One HTTP call against a real server: every failure has one name, and each call is told once."""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import anyio
import pytest
from sandbox.server import Client, order
from waiting import until_async

from listener.clients.http import Http
from listener.core.errors import Unavailable
from listener.core.events import ApiCalled, Event

pytestmark = pytest.mark.anyio

BODY = b"[]"
# Long enough for a loaded machine to answer within, short enough to wait for once or twice.
TIMEOUT_S = 1.0


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody else takes, and that accepts no connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class Caller:
    """Calls, and what was published of them."""

    def __init__(self, base_url: str, *, timeout_s: float = 30.0, secret: str = "sandbox-secret") -> None:
        self.events: list[Event] = []
        self.http = Http(
            base_url,
            self.events.append,
            connector="shipstation",
            account="main",
            auth=("sandbox-key", secret),
            timeout_s=timeout_s,
        )

    async def create(self, content: bytes = BODY) -> tuple[int, bytes]:
        async with self.http:
            raw = await self.http.request("POST", "/orders/createorders", content=content)
        return raw.status, raw.body

    async def failure(self) -> Unavailable:
        with pytest.raises(Unavailable) as caught:
            await self.create()
        assert caught.value.reason == "outage"
        assert caught.value.wait_s is None
        return caught.value

    def told(self) -> str:
        [event] = self.events
        assert isinstance(event, ApiCalled)
        assert (event.connector, event.account, event.method) == ("shipstation", "main", "POST")
        assert event.path == "/orders/createorders"
        assert event.duration_s >= 0
        return event.status


def url(api: Client) -> str:
    return "http://{}:{}".format(*api.address)


async def test_a_reply_comes_back_whole_with_lower_case_headers(api: Client) -> None:
    caller = Caller(f"{url(api)}/")

    async with caller.http:
        raw = await caller.http.request("POST", "/orders/createorders", content=BODY)

    assert (raw.status, raw.body) == (200, b'{"hasErrors":false,"results":[]}')
    assert raw.headers["x-rate-limit-remaining"].isdigit()
    assert caller.told() == "200"


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_status_is_a_reply_and_not_a_failure(api: Client, status: int) -> None:
    api.fault({"status": status})
    caller = Caller(url(api))

    assert (await caller.create())[0] == status
    assert caller.told() == str(status)


async def test_nobody_listens(closed_port: int) -> None:
    caller = Caller(f"http://127.0.0.1:{closed_port}")

    assert str(closed_port) in str(await caller.failure())
    assert caller.told() == "unreachable"


async def test_a_name_that_does_not_exist() -> None:
    caller = Caller("http://no-such-host.invalid")

    await caller.failure()
    assert caller.told() == "unreachable"


@pytest.mark.parametrize("fault", [{"reset_before": True}, {"reset_after": True}, {"reset_after": "mid"}])
async def test_a_reset_connection(api: Client, fault: dict[str, object]) -> None:
    api.fault(fault)
    caller = Caller(url(api))

    await caller.failure()
    assert caller.told() == "reset"


@pytest.mark.parametrize("has_effect", [True, False])
async def test_silence(api: Client, has_effect: bool) -> None:
    api.fault({"hang_s": 600, "effect": has_effect})
    caller = Caller(url(api), timeout_s=TIMEOUT_S)

    assert str(await caller.failure()) == "no reply within 1 s to POST /orders/createorders"
    assert caller.told() == "timeout"


async def test_a_reply_that_drips_is_cut_off_as_a_whole(closed_port: int) -> None:
    """A read timeout alone would begin anew with each byte."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def drip(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while True:
                    await stream.send(b" ")
                    with anyio.move_on_after(TIMEOUT_S / 10):
                        await anyio.sleep_forever()

    caller = Caller(f"http://127.0.0.1:{port}", timeout_s=TIMEOUT_S)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, drip)
        await caller.failure()
        group.cancel_scope.cancel()
    assert caller.told() == "timeout"


async def test_a_caller_with_less_time_hears_of_the_silence_before_its_own_deadline(api: Client) -> None:
    """Otherwise it would be cut off, and an outage be charged to its orders."""
    api.fault({"hang_s": 600})
    caller = Caller(url(api), timeout_s=600.0)

    with anyio.move_on_after(TIMEOUT_S) as deadline:
        await caller.failure()

    assert not deadline.cancelled_caught
    assert caller.told() == "timeout"


async def test_a_caller_that_is_given_more_time_waits_longer(api: Client) -> None:
    """The operation timeout is raised while the call is under way."""
    api.fault({"latency_s": 3 * TIMEOUT_S})
    caller = Caller(url(api), timeout_s=600.0)

    with anyio.move_on_after(TIMEOUT_S) as deadline:
        async with anyio.create_task_group() as group:

            async def give() -> None:
                await until_async(lambda: api.stats()["in_flight"], what="the call")
                deadline.deadline += 600

            group.start_soon(give)
            status, _ = await caller.create(json.dumps([order()]).encode())

    assert status == 200
    assert caller.told() == "200"


async def test_a_cancelled_call_is_told_and_leaves_the_server(api: Client) -> None:
    api.fault({"hang_s": 600})
    caller = Caller(url(api))

    async with anyio.create_task_group() as group:
        group.start_soon(caller.create)
        await until_async(lambda: api.stats()["in_flight"] == 1, what="a call under way")
        group.cancel_scope.cancel()

    assert caller.told() == "cancelled"
    await until_async(lambda: api.stats()["in_flight"] == 0, what="the end of the call")


async def test_a_redirect_is_not_followed(api: Client) -> None:
    """A redirected POST would lose its body or take the credentials elsewhere."""
    target = url(api)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)

    async def redirect(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            lines = ("HTTP/1.1 307 Temporary Redirect", f"Location: {target}/orders/createorders", "Content-Length: 0")
            await stream.send("\r\n".join([*lines, "", ""]).encode())

    caller = Caller(f"http://127.0.0.1:{port}")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, redirect)
        assert (await caller.create())[0] == 307
        group.cancel_scope.cancel()
    assert api.stats()["total"] == 0


async def test_a_failure_never_repeats_the_secret(api: Client) -> None:
    api.fault({"reset_before": True})
    caller = Caller(url(api), secret="hunter2-hunter2")

    assert "hunter2" not in str(await caller.failure())


async def test_the_server_keeps_one_order_of_a_call_whose_reply_was_cut(api: Client) -> None:
    """What `Unavailable` leaves open: the write may have happened."""
    api.fault({"reset_after": True})
    caller = Caller(url(api))

    with pytest.raises(Unavailable):
        await caller.create(json.dumps([order()]).encode())

    assert list(api.held()) == ["shop-1001"]
