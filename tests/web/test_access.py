"""Who may call, as a table: only a program on this machine, or whoever shows the token."""

import hmac
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.requests import Request

from listener.web import access
from listener.web.access import Refused, guard

TOKEN = "correct-horse-battery"


def request(peer: str | None, **headers: str) -> Request:
    """A GET from `peer`; in header names _ stands for -."""
    raw = [(name.replace("_", "-").lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    client = None if peer is None else (peer, 4711)
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "client": client})


def verdict(token: str | None, *args: Any, **headers: str) -> tuple[int, str] | None:
    """None = let in."""
    try:
        guard(SecretStr(token) if token else None)(request(*args, **headers))
    except Refused as refused:
        return refused.status, refused.code
    return None


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "localhost:8080"),
        ("127.0.0.1", "LocalHost"),
        ("127.8.9.10", "127.8.9.10:80"),
        ("::1", "[::1]:8080"),
        ("::1", "[::1]"),
        ("::ffff:127.0.0.1", "127.0.0.1:8080"),
    ],
)
def test_without_a_token_a_program_on_this_machine_may_call(peer: str, host: str) -> None:
    assert verdict(None, peer, host=host) is None


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("10.0.0.7", "127.0.0.1:8080"),
        ("10.0.0.7", "listener.example"),
        ("2001:db8::1", "localhost"),
        ("::ffff:10.0.0.7", "127.0.0.1"),
        (None, "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_without_a_token_another_machine_may_not(peer: str | None, host: str) -> None:
    assert verdict(None, peer, host=host) == (403, "loopback_only")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "10.0.0.7:8080",
        "[2001:db8::1]:8080",
        "0.0.0.0:8080",
        "[::]:8080",
        "127.0.0.1:80:evil.example",
        "",
    ],
)
def test_a_web_page_elsewhere_does_not_reach_us_under_its_own_name(host: str) -> None:
    """DNS rebinding: the peer is loopback, because the browser runs here; the Host is the page's."""
    assert verdict(None, "127.0.0.1", host=host) == (403, "loopback_only")


def test_a_request_without_a_host_is_refused() -> None:
    assert verdict(None, "127.0.0.1") == (403, "loopback_only")


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "via",
        "x_forwarded_for",
        "x_forwarded_host",
        "x_forwarded_proto",
        "x_forwarded_server",
        "x_real_ip",
        "x_client_ip",
        "true_client_ip",
        "cf_connecting_ip",
    ],
)
def test_a_proxy_on_this_machine_speaks_for_others(header: str) -> None:
    """Even when it names a loopback address: whoever it speaks for wrote that."""
    headers = {"host": "127.0.0.1:8080", header: "127.0.0.1"}
    assert verdict(None, "127.0.0.1", **headers) == (403, "loopback_only")


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.7", None])
def test_whoever_shows_the_token_may_call(peer: str | None) -> None:
    headers = {"host": "listener.example", "x_forwarded_for": "10.1.2.3", "authorization": f"Bearer {TOKEN}"}
    assert verdict(TOKEN, peer, **headers) is None


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} ",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer ÿ",
    ],
)
def test_with_a_token_set_nothing_else_opens(authorization: str) -> None:
    """Loopback is no excuse then."""
    assert verdict(TOKEN, "127.0.0.1", host="127.0.0.1", authorization=authorization) == (401, "unauthorized")


def test_with_a_token_set_no_header_at_all_is_refused() -> None:
    assert verdict(TOKEN, "127.0.0.1", host="127.0.0.1") == (401, "unauthorized")


@pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", "Bearer x"])
def test_tokens_are_compared_in_constant_time(shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is hmac's, on the whole header: `==` would tell by its duration how much of a guess is right."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    verdict(TOKEN, "127.0.0.1", host="127.0.0.1", authorization=shown)
    assert compared == [(shown.encode(), f"Bearer {TOKEN}".encode())]


def test_a_refusal_does_not_repeat_the_token() -> None:
    with pytest.raises(Refused) as refused:
        guard(SecretStr(TOKEN))(request("127.0.0.1", host="127.0.0.1", authorization="Bearer guess"))
    assert TOKEN not in str(refused.value)
    assert "guess" not in str(refused.value)
    assert str(refused.value).endswith("value.")
