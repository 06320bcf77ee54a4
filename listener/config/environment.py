"""Process settings: environment variables and a `.env` file, read once at start. What may change while the process
runs is in `live.py`.

`load_environment` is the only way in: it knows nothing of the process's own environment but what it is given, says
every problem at once, and never repeats a secret. An empty variable counts as not set.
"""

import difflib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qs

from pydantic import Field, SecretStr, TypeAdapter, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from listener.config.imports import ImportEnvironment
from listener.config.values import (
    DATABASE_ADDRESS,
    URL_HINT,
    BaseUrl,
    DatabaseUrl,
    DirectUrl,
    HttpAddress,
    Queues,
    Schema,
    Token,
    WebhookSecret,
    problem,
)
from listener.core.errors import ConfigError

_PREFIXES = ("LISTENER_", "SHIPSTATION_", "IMPORT_", "DRIVE_")
# Read by listener.testing, not by a process.
_NOT_OURS = frozenset({"LISTENER_TEST_DATABASE_URL"})
# The older workers' names of what is a setting of a process here; docs/environment.md has the others.
_OLDER = MappingProxyType({"CELERY_WORKER_MAX_TASKS_PER_CHILD": "LISTENER_RECYCLE_AFTER"})
_DIRECT_MISSING = (
    "SUPABASE_USE_POOLER is true, so DATABASE_URL leads through a transaction pooler;"
    " set LISTENER_DIRECT_URL to the address of the database itself"
)
# A Kubernetes service named "listener" puts these into every pod beside it; they are nobody's typing error.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def _log_format() -> Literal["json", "console"]:
    return "console" if sys.stderr.isatty() else "json"


class Environment(ImportEnvironment):
    """The settings of one process; a field's alias is its variable. Frozen; secrets print as asterisks."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True, extra="forbid", hide_input_in_errors=True)

    database_url: DatabaseUrl = Field(alias="DATABASE_URL", description="the database, with user and password")
    given_direct_url: DirectUrl | None = Field(
        default=None,
        alias="LISTENER_DIRECT_URL",
        description="the same database past a transaction pooler; default DATABASE_URL",
    )
    schema_name: Schema = Field(
        default="public", alias="LISTENER_SCHEMA", description="schema of all tables, at most 63 bytes"
    )
    http: HttpAddress = Field(
        default="127.0.0.1:8080", alias="LISTENER_HTTP", description="host:port to serve on; port 0 = any free one"
    )
    api_token: Token | None = Field(
        default=None, alias="LISTENER_API_TOKEN", description="bearer token; without it only loopback may call"
    )
    queues: Queues = Field(
        default=None, alias="LISTENER_QUEUES", description="queues this process works on, with commas; default all"
    )
    pool_min: int = Field(default=1, ge=1, le=1_000, alias="LISTENER_POOL_MIN", description="connections kept open")
    pool_max: int = Field(default=4, ge=1, le=1_000, alias="LISTENER_POOL_MAX", description="connections at most")
    shutdown_timeout_s: float = Field(
        default=25.0,
        ge=0,
        le=3_600,
        allow_inf_nan=False,
        alias="LISTENER_SHUTDOWN_TIMEOUT",
        description="seconds that running work gets after SIGTERM",
    )
    await_migration: bool = Field(
        default=False,
        alias="LISTENER_AWAIT_MIGRATION",
        description="true: `listener run` waits for a schema of its release and for its grants, where it would end",
    )
    recycle_after: int = Field(
        default=0,
        ge=0,
        alias="LISTENER_RECYCLE_AFTER",
        description="operations after which `listener run` ends in order, to be started anew; 0 = never",
    )
    recycle_memory_mib: int = Field(
        default=0,
        ge=0,
        alias="LISTENER_RECYCLE_MEMORY",
        description="the same when it has grown to so many MiB; 0 = never",
    )
    log_format: Literal["json", "console"] = Field(
        default_factory=_log_format,
        alias="LISTENER_LOG_FORMAT",
        description="json or console; default console on a terminal, else json",
    )
    shipstation_api_key: Token | None = Field(default=None, alias="SHIPSTATION_API_KEY", description="API key")
    shipstation_api_secret: Token | None = Field(default=None, alias="SHIPSTATION_API_SECRET", description="API secret")
    shipstation_webhook_secret: WebhookSecret | None = Field(
        default=None,
        alias="SHIPSTATION_WEBHOOK_SECRET",
        description="end of the webhook address, 16 or more letters, digits, - and _; without it nobody may call",
    )
    shipstation_base_url: BaseUrl = Field(
        default="https://ssapi.shipstation.com", alias="SHIPSTATION_BASE_URL", description="address of the API"
    )
    shipstation_timeout_s: float = Field(
        default=60.0,
        ge=1,
        le=600,
        allow_inf_nan=False,
        alias="SHIPSTATION_TIMEOUT",
        description="seconds for one call; 100 orders may take the API tens of seconds",
    )
    shipstation_rate_limit: int = Field(
        default=40,
        ge=0,
        le=10_000,
        alias="SHIPSTATION_RATE_LIMIT",
        description="calls in one window, all replicas together; 0 = the API has no limit",
    )
    shipstation_rate_window_s: float = Field(
        default=60.0,
        ge=1,
        le=3_600,
        allow_inf_nan=False,
        alias="SHIPSTATION_RATE_WINDOW",
        description="seconds of one window",
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "Environment":
        problems = []
        if self.pool_min > self.pool_max:
            text = f"LISTENER_POOL_MIN is {self.pool_min}, above LISTENER_POOL_MAX ({self.pool_max})"
            problems.append(f"{text}; lower the one or raise the other")
        pair = {"SHIPSTATION_API_KEY": self.shipstation_api_key, "SHIPSTATION_API_SECRET": self.shipstation_api_secret}
        missing = [name for name, value in pair.items() if value is None]
        if len(missing) == 1:
            problems.append(f"{missing[0]} is not set; ShipStation needs {' and '.join(pair)}")
        if problems:
            raise problem("\n".join(problems))
        return self

    @property
    def direct_url(self) -> SecretStr:
        """The address of the session connection, which must not lead through a transaction pooler."""
        return self.given_direct_url or self.database_url

    @property
    def is_pooled(self) -> bool:
        """Whether the pool's connections go another way than the session's."""
        return self.direct_url.get_secret_value() != self.database_url.get_secret_value()

    @property
    def http_address(self) -> tuple[str, int]:
        """Host (IPv6 without brackets) and port to serve on."""
        return _address(self.http)

    @property
    def database_address(self) -> str:
        """host:port/name of DATABASE_URL, for logs."""
        return redacted(self.database_url)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come from load_environment alone: nothing is read behind the caller's back."""
        return (init_settings,)


def _address(http: str) -> tuple[str, int]:
    host, _, port = http.rpartition(":")
    return host.strip("[]"), int(port)


def redacted(url: SecretStr) -> str:
    """Give host:port/name of a checked database URL, without user, password and parameters."""
    found = DATABASE_ADDRESS.fullmatch(url.get_secret_value())
    if not found:
        return "unreadable address"
    query = parse_qs(found["query"] or "")
    hosts = found["hosts"] or query.get("host", ["local socket"])[0]
    port = "" if re.search(r":[0-9]+$", hosts) or "," in hosts else f":{query.get('port', ['5432'])[0]}"
    return f"{hosts}{port}/{found['name'] or query.get('dbname', [''])[0]}"


def load_environment(environ: Mapping[str, str] = os.environ, env_file: str | Path | None = ".env") -> Environment:
    """Read and check all settings; a variable in `environ` wins over the file, which need not exist.

    Raises ConfigError with a line per problem: the variable, its value unless it is secret, what is expected.
    """
    given = {name: value.strip() for name, value in (_file(env_file) | dict(environ)).items() if value.strip()}
    aliases = {new: old for old, new in _OLDER.items() if old in given and new not in given}
    given |= {new: given[old] for new, old in aliases.items()}
    names = {str(field.alias) for field in Environment.model_fields.values()}
    problems = [_unknown(name, names) for name in sorted(given) if _is_unknown(name, given[name], names)]
    if (
        given.get("SUPABASE_USE_POOLER", "").lower() in ("true", "1", "yes", "on")
        and "LISTENER_DIRECT_URL" not in given
    ):
        problems.append(_DIRECT_MISSING)
    settings = None
    try:
        settings = Environment.model_validate({name: given[name] for name in names & given.keys()})
    except ValidationError as error:
        problems += [_sentence(details, aliases) for details in error.errors(include_url=False)]
    if settings is None or problems:  # outside of `except`: the error would carry the secrets along
        raise ConfigError("\n".join(problems))
    return settings


def load_http_address(environ: Mapping[str, str] = os.environ, env_file: str | Path | None = ".env") -> tuple[str, int]:
    """Read where the process on this machine serves, and nothing else: who asks it needs no database.

    Raises ConfigError when LISTENER_HTTP is no address.
    """
    field = Environment.model_fields["http"]
    value = (_file(env_file) | dict(environ)).get("LISTENER_HTTP", "").strip() or field.default
    details: list[ErrorDetails] = []
    try:
        return _address(TypeAdapter(HttpAddress).validate_python(value))
    except ValidationError as error:
        details = error.errors(include_url=False)
    raise ConfigError(f"LISTENER_HTTP: {value[:80]!r}: {details[0]['msg']} ({field.description})")


def _file(path: str | Path | None) -> dict[str, str]:
    if path is None:
        return {}
    failed = ""
    try:
        # utf-8-sig: editors on Windows put a mark in front
        source = DotEnvSettingsSource(Environment, env_file=path, env_file_encoding="utf-8-sig", case_sensitive=True)
        return {name: value for name, value in source.env_vars.items() if value is not None}
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        failed = type(error).__name__
    raise ConfigError(f"{path} cannot be read ({failed}); expected lines such as NAME=value in UTF-8")


def _is_unknown(name: str, value: str, names: set[str]) -> bool:
    if name in names | _NOT_OURS or not name.startswith(_PREFIXES) or _SERVICE_LINK.fullmatch(name):
        return False
    return not (name.endswith("_PORT") and "://" in value)


def _unknown(name: str, names: set[str]) -> str:
    guess = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.8)
    return f"{name} is not a setting; " + (f"did you mean {guess[0]}?" if guess else "remove it")


def _sentence(details: ErrorDetails, aliases: Mapping[str, str]) -> str:
    """Say what is wrong, by the name that was given; aliases: variable → its older name."""
    if not details["loc"]:
        return details["msg"]
    name = str(details["loc"][0])
    if details["type"] == "missing":
        return f"{name} is not set; {URL_HINT if name == 'DATABASE_URL' else 'set it'}"
    field = next(field for field in Environment.model_fields.values() if field.alias == name)
    is_secret = "Secret" in str(field.annotation)
    shown = "its value is not right" if is_secret or "@" in str(details["input"]) else f"{str(details['input'])[:80]!r}"
    return f"{aliases.get(name, name)}: {shown}: {details['msg']} ({field.description})"
