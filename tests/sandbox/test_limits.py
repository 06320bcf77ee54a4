"""The fixed rate window and its three headers."""

import pytest

from listener.sandbox.clock import Clock
from listener.sandbox.limits import UNLIMITED, Limiter
from listener.sandbox.shipstation import SandboxSettings
from sandbox.server import Client, Server


class Ticks:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


def test_the_window_is_fixed_and_counts_down_in_whole_seconds(ticks: Ticks) -> None:
    limiter = Limiter(Clock(ticks=ticks), limit=2, window_s=60)
    ticks.now += 12.5
    first = limiter.take("key")
    assert (first.allowed, first.limit, first.remaining, first.reset_s) == (True, 2, 1, 48)
    assert limiter.take("key").remaining == 0
    refused = limiter.take("key")
    assert (refused.allowed, refused.remaining, refused.reset_s) == (False, 0, 48)
    assert limiter.take("other key").allowed
    ticks.now += 47.5
    assert limiter.take("key").allowed
    assert [(each["calls"], each["refused"]) for each in limiter.windows()] == [(4, 1), (1, 0)]


@pytest.mark.parametrize("limit", [None, 0])
def test_without_a_limit_the_headers_still_make_sense(ticks: Ticks, limit: int | None) -> None:
    limiter = Limiter(Clock(ticks=ticks), limit=limit, window_s=60)
    assert limiter.take("key").headers() == {
        "X-Rate-Limit-Limit": str(UNLIMITED),
        "X-Rate-Limit-Remaining": str(UNLIMITED - 1),
        "X-Rate-Limit-Reset": "60",
    }


def test_the_reset_is_never_zero(ticks: Ticks) -> None:
    limiter = Limiter(Clock(ticks=ticks), limit=1, window_s=0.5)
    ticks.now += 0.4
    assert limiter.take("key").reset_s == 1


def test_the_41st_call_of_a_minute_is_refused(ticks: Ticks) -> None:
    with Server(SandboxSettings(), Clock(ticks=ticks)) as server:
        client = Client(server.address)
        replies = [client.http.get("/stores") for _ in range(41)]
        client.anonymous.get("/stores")
        ticks.now += 60
        after, stats = client.http.get("/stores"), client.stats()
        client.close()
    assert [reply.status_code for reply in replies] == [200] * 40 + [429]
    assert replies[-1].json() == {"message": "Too Many Requests"}
    assert [replies[0].headers[f"X-Rate-Limit-{name}"] for name in ("Limit", "Remaining", "Reset")] == [
        "40",
        "39",
        "60",
    ]
    assert [replies[-1].headers[f"X-Rate-Limit-{name}"] for name in ("Remaining", "Reset")] == ["0", "60"]
    assert "Retry-After" not in replies[-1].headers
    assert (after.status_code, after.headers["X-Rate-Limit-Remaining"]) == (200, "39")
    assert stats["throttled"] == 1
    assert [(window["calls"], window["refused"]) for window in stats["windows"]] == [(41, 1), (1, 0)]


def test_limits_can_be_changed_while_it_runs(api: Client) -> None:
    assert api.control("PUT", "limits", {"limit": 1}) == {"limit": 1, "window_s": 60}
    assert [api.http.get("/stores").status_code for _ in range(2)] == [200, 429]
    api.control("PUT", "limits", {"limit": 3, "window_s": 5})
    reply = api.http.get("/stores")
    assert (reply.headers["X-Rate-Limit-Limit"], reply.headers["X-Rate-Limit-Reset"]) == ("3", "5")
    api.control("PUT", "limits", {"limit": None})
    assert api.http.get("/stores").headers["X-Rate-Limit-Limit"] == str(UNLIMITED)
    api.control("PUT", "limits", {"limit": -1}, status=400)


def test_every_reply_has_the_headers_also_a_400(api: Client) -> None:
    reply = api.http.post("/orders/createorders", json={})
    assert reply.status_code == 400
    assert reply.headers["X-Rate-Limit-Remaining"] == str(UNLIMITED - 1)
