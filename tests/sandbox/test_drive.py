"""The Drive sandbox: what its real namesake does to a careless client, it does too."""

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from google.auth import crypt, jwt

from listener.clients.drive.account import SCOPE
from listener.sandbox.drive import Cloud, DriveSettings, build
from listener.sandbox.drive.fields import masked, parse_mask
from sandbox.server import AppServer

FOLDER = "orders"


class Caller:
    """Somebody with the key file."""

    def __init__(self, cloud: Cloud, url: str) -> None:
        self.cloud = cloud
        self.http = httpx2.Client(base_url=url, trust_env=False, verify=False)
        self.key = self.http.get("/sandbox/service-account").json()

    def grant(self, **changes: Any) -> httpx2.Response:
        now = int(self.cloud.clock.epoch_s())
        claims = {
            "iss": self.key["client_email"],
            "scope": SCOPE,
            "aud": self.key["token_uri"],
            "iat": now,
            "exp": now + 3_600,
        }
        signed = jwt.encode(crypt.RSASigner.from_service_account_info(self.key), {**claims, **changes})
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed.decode()}
        return self.http.post("/token", content=urlencode(form).encode())

    def get(self, path: str, **query: str) -> Any:
        token = self.grant().json()["access_token"]
        return self.http.get(f"/drive/v3/{path}", params=query, headers={"authorization": f"Bearer {token}"}).json()


@pytest.fixture(scope="module")
def server() -> Iterator[AppServer]:
    with AppServer(build(DriveSettings(page_size=2))) as server:
        yield server


@pytest.fixture
def caller(server: AppServer) -> Iterator[Caller]:
    cloud: Cloud = server.config.app.state.sandbox  # type: ignore[union-attr]
    cloud.stored.clear()
    caller = Caller(cloud, server.url)
    yield caller
    caller.http.close()


def test_a_listing_shows_few_fields_and_trashed_files_unless_told(caller: Caller) -> None:
    caller.cloud.trash(caller.cloud.put("a.xml", b"<a/>", folder=FOLDER))
    [file] = caller.get("files", q=f"'{FOLDER}' in parents")["files"]
    assert file.keys() == {"kind", "id", "name", "mimeType"}
    assert caller.get("files", q=f"'{FOLDER}' in parents and trashed = false")["files"] == []
    [file] = caller.get("files", fields="files(size,md5Checksum,trashed)")["files"]
    assert file == {"size": "4", "md5Checksum": hashlib.md5(b"<a/>").hexdigest(), "trashed": True}


def test_pages_may_be_empty_before_the_end(caller: Caller) -> None:
    for n in range(5):
        caller.cloud.put("same name.xml", b"x", folder=FOLDER, id_=f"id{n}")
    sizes, token = [], "0"
    while token:
        page = caller.get("files", pageToken=token, fields="nextPageToken,files(id)")
        sizes.append(len(page["files"]))
        token = page.get("nextPageToken", "")
    assert sizes == [2, 0, 2, 0, 1]


def test_the_feed_tells_each_file_once_as_it_is_now(caller: Caller) -> None:
    start = caller.get("changes/startPageToken")["startPageToken"]
    for name in ("one", "two", "three"):
        caller.cloud.put(name, name.encode(), folder=FOLDER, id_="a")
    caller.cloud.put("b", b"b", folder=FOLDER, id_="b")
    caller.cloud.remove("b")
    feed = caller.get("changes", pageToken=start)
    assert [(row["fileId"], row["removed"], row.get("file", {}).get("name")) for row in feed["changes"]] == [
        ("a", False, "three"),
        ("b", True, None),
    ]
    assert caller.get("changes", pageToken=feed["newStartPageToken"])["changes"] == []
    caller.cloud.forget_changes()
    assert caller.get("changes", pageToken=start)["error"]["code"] == 410


def test_a_token_needs_the_right_key_and_the_right_time(caller: Caller) -> None:
    now = int(caller.cloud.clock.epoch_s())
    assert caller.grant().status_code == 200
    late = caller.grant(iat=now - 7_200, exp=now - 3_600)
    assert (late.status_code, late.json()["error"]) == (400, "invalid_grant")
    assert "reasonable timeframe" in late.json()["error_description"]
    assert caller.grant(exp=now + 7_200).status_code == 400
    assert caller.grant(iss="somebody else").status_code == 400
    assert caller.http.get("/drive/v3/files").json()["error"]["errors"][0]["reason"] == "authError"


def test_field_masks() -> None:
    value = {"a": 1, "b": [{"c": 2, "d": 3}], "e": {"f": 4}}
    assert masked(value, parse_mask("a,b(c),e")) == {"a": 1, "b": [{"c": 2}], "e": {"f": 4}}
    assert masked(value, parse_mask("*")) == value
    for wrong in ("a(b", "a)", "a,,b", "a b;"):
        with pytest.raises(ValueError, match="Invalid field selection"):
            parse_mask(wrong)


def test_the_control_part_refuses_what_it_does_not_know(caller: Caller) -> None:
    assert caller.http.put("/sandbox/files", json={"nam": "x"}).status_code == 400
    assert caller.http.post("/sandbox/trash", json={"id": "none"}).status_code == 400
    put = caller.http.put("/sandbox/files", json={"name": "a.xml", "content": "<a/>", "folder": FOLDER})
    assert caller.get(f"files/{put.json()['id']}")["name"] == "a.xml"
