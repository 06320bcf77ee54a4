"""Kinds of values that a setting may have: each checks a text and says what is expected. Pure."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError
from pydantic_settings import NoDecode

URL_HINT = "expected postgresql://user:password@host:port/name; write @ : / % in the password as %40 %3A %2F %25"
_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s:@/?#\[\],]*)(?::[0-9]*)?"
DATABASE_ADDRESS = re.compile(
    rf"postgres(?:ql)?(?:\+psycopg)?://(?P<rest>(?:[^@/\s]*@)?(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?:/(?P<name>[^?@\s]*))?(?:\?(?P<query>\S*))?)"
)


def problem(expected: str) -> PydanticCustomError:
    """Return what a validator raises; expected: half a sentence for a person."""
    return PydanticCustomError("setting", "{expected}", {"expected": expected})


class Address(str):
    """An address of a database that knows its variable, for those who say what is wrong with it."""

    __slots__ = ("variable",)
    variable: str

    def __new__(cls, text: str, variable: str) -> "Address":
        """Return *text*, read from the environment's *variable*."""
        made = super().__new__(cls, text)
        made.variable = variable
        return made

    def __reduce__(self) -> tuple[type["Address"], tuple[str, str]]:
        """For copies: a text alone makes no address."""
        return type(self), (str(self), self.variable)


def _address_of(variable: str) -> AfterValidator:
    def read(value: SecretStr) -> SecretStr:
        found = DATABASE_ADDRESS.fullmatch(value.get_secret_value())
        # libpq would quote the whole part with a % that is no code, the password say
        if not found or re.search(r"%(?![0-9A-Fa-f]{2})", found["rest"]):
            raise problem(URL_HINT)
        return SecretStr(Address(f"postgresql://{found['rest']}", variable))

    return AfterValidator(read)


def _schema(name: str) -> str:
    size = len(name.encode())
    if size > 63:
        raise problem(f"it has {size} bytes; expected at most 63")
    if not re.fullmatch(r"[^\W\d]\w*", name) or name.startswith("pg_") or name == "information_schema":
        raise problem("expected a name of letters, digits and _ that Postgres does not keep for itself")
    return name


def _http(address: str) -> str:
    found = re.fullmatch(r"(?:\[(?P<ip6>[^\]]*)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", address)
    if not found or int(found["port"]) > 65_535 or not (found["host"] or _is_ip6(found["ip6"])):
        raise problem("expected host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080")
    return address


def _is_ip6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        ok = False
    if not ok or parts.query or parts.fragment or re.search(r"\s", url):
        raise problem("expected http://host or https://host without user, password or query")
    return url.rstrip("/")


def _export_url(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        ok = False
    if not ok or "#" in text or re.search(r"[^!-~]", text):
        raise problem("expected http://host/path or https://host/path?name=value, without user, password or #")
    return url


def _drive_id(text: str) -> str:
    if not re.fullmatch("[A-Za-z0-9_-]{5,200}", text):
        raise problem("expected the folder's id, the last part of its address in the browser: letters, digits, - and _")
    return text


def _token(token: SecretStr) -> SecretStr:
    if not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise problem("expected ASCII letters, digits and signs without spaces: it travels in an HTTP header")
    return token


def _webhook_secret(secret: SecretStr) -> SecretStr:
    if not re.fullmatch("[A-Za-z0-9_-]{16,100}", secret.get_secret_value()):
        raise problem("expected 16 to 100 letters, digits, - and _, such as `openssl rand -hex 32` prints")
    return secret


def _queues(value: object) -> object:
    if not isinstance(value, str):
        return value
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
    if not names or not all(re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)?", name) for name in names):
        raise problem("expected names of queues with commas between them, such as upload,import")
    return None if names == ("all",) else names


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise problem("expected a time zone such as UTC or America/Chicago") from None
    return name


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise problem("expected a folder that exists")
    return path.resolve()


def _file(path: Path) -> Path:
    if not path.is_file():
        raise problem("expected a file that exists")
    return path.resolve()


DatabaseUrl = Annotated[SecretStr, _address_of("DATABASE_URL")]
DirectUrl = Annotated[SecretStr, _address_of("LISTENER_DIRECT_URL")]
Token = Annotated[SecretStr, AfterValidator(_token)]
WebhookSecret = Annotated[Token, AfterValidator(_webhook_secret)]
Schema = Annotated[str, AfterValidator(_schema)]
HttpAddress = Annotated[str, AfterValidator(_http)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
Queues = Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_queues)]
ExportUrl = Annotated[SecretStr, AfterValidator(_export_url)]
DriveId = Annotated[str, AfterValidator(_drive_id)]
File = Annotated[Path, AfterValidator(_file)]
Folder = Annotated[Path, AfterValidator(_folder)]
Zone = Annotated[str, AfterValidator(_zone)]
