"""The routes of Drive v3 and what each does; `build` wires them into an application."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from listener.sandbox.clock import Clock
from listener.sandbox.drive.fields import masked, parse_mask
from listener.sandbox.drive.state import NATIVE, Cloud, DriveSettings, Stored, json_answer, refusal
from listener.sandbox.exchange import Answer, Call, Endpoint, control_routes

_FILE = "kind,id,name,mimeType"
_LIST_FIELDS = f"kind,incompleteSearch,nextPageToken,files({_FILE})"
_FEED_FIELDS = f"kind,nextPageToken,newStartPageToken,changes(kind,changeType,time,removed,fileId,file({_FILE}))"
_TERM = re.compile(
    r"'(?P<folder>[^']+)' in parents|trashed = (?P<trashed>true|false)|mimeType = '(?P<kind>[^']+)'"
    r"|modifiedTime > '(?P<after>[^']+)'"
)


class _Upload(BaseModel):
    """A file to put in, or a new version. content: None makes a Google document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    content: str | None
    folder: str
    id: str | None = None
    mimeType: str = "text/xml"  # noqa: N815 - the API's own name


class _Which(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    folder: str = ""


def build(settings: DriveSettings | None = None, *, clock: Clock | None = None) -> Starlette:
    """Make the application; `app.state.sandbox` is its `Cloud`, for use in the same process."""
    cloud = Cloud(settings or DriveSettings(), clock)
    table: tuple[tuple[str, Callable[[Cloud, Call], Answer]], ...] = (
        ("/drive/v3/changes/startPageToken", _start_token),
        ("/drive/v3/changes", _changes),
        ("/drive/v3/files", _list),
        ("/drive/v3/files/{file_id}", _file),
    )
    routes = [Route(path, Endpoint(cloud, path, _guarded(cloud, handler))) for path, handler in table]

    def token(call: Call) -> Answer:
        status, body = cloud.keys.give(call.body, f"{_base(call.headers.get('host', ''), call.path)}/token")
        return json_answer(status, body)

    routes.append(Route("/token", Endpoint(cloud, "/token", token), methods=["POST"]))
    app = Starlette(routes=[*_control(cloud), *routes])
    app.state.sandbox = cloud
    return app


def _base(host: str, path: str) -> str:
    """Give the address of this sandbox, which may be mounted below another's."""
    return f"http://{host}{path.rpartition('/')[0]}"


def _guarded(cloud: Cloud, handler: Callable[[Cloud, Call], Answer]) -> Callable[[Call], Answer]:
    def guarded(call: Call) -> Answer:
        if not cloud.keys.is_good(call.headers.get("authorization", "")):
            return refusal(401, "authError", "Invalid Credentials")
        try:
            return handler(cloud, call)
        except ValueError as error:
            return refusal(400, "invalid", str(error))

    return guarded


def _control(cloud: Cloud) -> list[Route]:
    def put(_request: Request, body: Any) -> Any:
        file = _Upload.model_validate(body)
        content = None if file.content is None else file.content.encode()
        return {"id": cloud.put(file.name, content, folder=file.folder, id_=file.id, kind=file.mimeType)}

    def act(verb: Callable[[_Which], None]) -> Callable[[Request, Any], None]:
        return lambda _request, body: verb(_Which.model_validate(body))

    def key_file(request: Request, _body: Any) -> Any:
        return cloud.keys.key_file(_base(request.headers["host"], request.url.path.rpartition("/")[0]))

    return control_routes(
        cloud,
        (
            ("GET", "service-account", key_file),
            ("PUT", "files", put),
            ("GET", "files", lambda _request, _body: [file.describe() for file in cloud.stored.values()]),
            ("POST", "trash", act(lambda which: cloud.trash(which.id))),
            ("POST", "move", act(lambda which: cloud.move(which.id, which.folder))),
            ("POST", "remove", act(lambda which: cloud.remove(which.id))),
            ("POST", "forget-changes", lambda _request, _body: cloud.forget_changes()),
            ("POST", "revoke-tokens", lambda _request, _body: cloud.keys.revoke()),
        ),
    )


def _start_token(cloud: Cloud, _call: Call) -> Answer:
    return json_answer(200, {"kind": "drive#startPageToken", "startPageToken": str(cloud.newest_token)})


def _changes(cloud: Cloud, call: Call) -> Answer:
    token, is_empty = _token(call.query.get("pageToken", ""), cloud)
    if token < cloud.oldest_token or token > cloud.newest_token:
        return refusal(410, "expired", f"Invalid page token: {token}")
    files = sorted((file for file in cloud.stored.values() if file.changed > token), key=lambda file: file.changed)
    rows = [] if is_empty else files[: _size(cloud, call)]
    body: dict[str, Any] = {"kind": "drive#changeList", "changes": [_change(file) for file in rows]}
    if is_empty or len(rows) < len(files):
        body["nextPageToken"] = str(rows[-1].changed if rows else token) + (
            "e" if cloud.settings.empty_pages and rows else ""
        )
    else:
        body["newStartPageToken"] = str(cloud.newest_token)
    return _cut(body, call, _FEED_FIELDS)


def _list(cloud: Cloud, call: Call) -> Answer:
    files = [file for file in cloud.stored.values() if not file.is_removed and _fits(file, call.query.get("q", ""))]
    first, is_empty = _token(call.query.get("pageToken", "0"), cloud)
    rows = [] if is_empty else files[first : first + _size(cloud, call)]
    body: dict[str, Any] = {"kind": "drive#fileList", "incompleteSearch": False, "files": [f.describe() for f in rows]}
    if is_empty or first + len(rows) < len(files):
        body["nextPageToken"] = f"{first + len(rows)}" + ("e" if cloud.settings.empty_pages and rows else "")
    return _cut(body, call, _LIST_FIELDS)


def _file(cloud: Cloud, call: Call) -> Answer:
    file = cloud.stored.get(call.params["file_id"])
    if file is None or file.is_removed:
        return refusal(404, "notFound", f"File not found: {call.params['file_id']}.")
    if call.query.get("alt") != "media":
        return _cut(file.describe(), call, _FILE)
    if file.content is None or file.kind.startswith(NATIVE):
        return refusal(403, "fileNotDownloadable", "Only files with binary content can be downloaded.")
    return Answer(200, file.content, file.kind)


def _change(file: Stored) -> dict[str, Any]:
    head = {"kind": "drive#change", "changeType": "file", "fileId": file.id, "removed": file.is_removed}
    described = file.describe()
    return {**head, "time": described["modifiedTime"], **({} if file.is_removed else {"file": described})}


def _token(text: str, cloud: Cloud) -> tuple[int, bool]:
    """Read a page token; an e at its end stands for an empty page before the real one."""
    found = re.fullmatch(r"([0-9]{1,12})(e?)", text)
    if found is None:
        raise ValueError(f"Invalid Value: pageToken {text[:60]}")
    return int(found[1]), bool(found[2]) and cloud.settings.empty_pages


def _size(cloud: Cloud, call: Call) -> int:
    asked = int(call.query.get("pageSize", "100"))
    if not 1 <= asked <= 1_000:
        raise ValueError("Invalid value for pageSize: values must be within the range: [1, 1000]")
    return min(asked, cloud.settings.page_size)


def _fits(file: Stored, query: str) -> bool:
    """Tell whether a file is what `q` asks for. Raises ValueError for what this sandbox does not understand."""
    for term in filter(None, (term.strip() for term in query.split(" and "))):
        found = _TERM.fullmatch(term)
        if found is None:
            raise ValueError(f"Invalid Value: q: {term[:60]}")
        described = file.describe()
        is_hit = (
            (found["folder"] is None or found["folder"] in file.parents)
            and (found["trashed"] is None or (found["trashed"] == "true") == file.is_trashed)
            and (found["kind"] is None or found["kind"] == file.kind)
            and (found["after"] is None or described["modifiedTime"] > found["after"])
        )
        if not is_hit:
            return False
    return True


def _cut(body: dict[str, Any], call: Call, usual: str) -> Answer:
    return json_answer(200, masked(body, parse_mask(call.query.get("fields", usual))))
