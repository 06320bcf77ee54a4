"""Process settings: what is read from where, and that a refusal says everything but the secrets."""

import copy
import pickle
from pathlib import Path

import pytest
from pydantic import SecretStr

from listener.config.environment import Environment, load_environment, load_http_address, redacted
from listener.config.values import Address
from listener.core.errors import ConfigError

URL = "postgresql://app:hunter2@db.internal/shop"
SECRETS = ("DATABASE_URL", "LISTENER_DIRECT_URL", "LISTENER_API_TOKEN", "SHIPSTATION_API_KEY", "SHIPSTATION_API_SECRET")


def load(**environ: str) -> Environment:
    return load_environment({"DATABASE_URL": URL, **environ}, env_file=None)


def problems(environ: dict[str, str], env_file: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_environment(environ, env_file)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
    assert "hunter2" not in str(caught.value)
    return str(caught.value).split("\n")


def test_defaults() -> None:
    env = load()
    assert env.schema_name == "public"
    assert env.http_address == ("127.0.0.1", 8080)
    assert (env.api_token, env.queues) == (None, None)
    assert (env.pool_min, env.pool_max, env.shutdown_timeout_s) == (1, 4, 25.0)
    assert env.log_format in ("json", "console")
    assert (env.shipstation_api_key, env.shipstation_api_secret) == (None, None)
    assert env.shipstation_base_url == "https://ssapi.shipstation.com"
    assert (env.shipstation_timeout_s, env.shipstation_rate_limit, env.shipstation_rate_window_s) == (60.0, 40, 60.0)


@pytest.mark.parametrize(("on_terminal", "expected"), [(True, "console"), (False, "json")])
def test_logs_are_for_people_on_a_terminal(monkeypatch: pytest.MonkeyPatch, on_terminal: bool, expected: str) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    assert load().log_format == expected
    assert load(LISTENER_LOG_FORMAT="json").log_format == "json"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://h/d", "postgresql://h/d"),
        ("postgresql+psycopg://u:p%40w@h:1/d?sslmode=require", "postgresql://u:p%40w@h:1/d?sslmode=require"),
        ("postgresql://u@[::1]:5432/d", "postgresql://u@[::1]:5432/d"),
        ("postgresql://a:1,b:2/d?target_session_attrs=read-write",) * 2,
        ("postgresql://postgres:@/postgres?host=/tmp/pg",) * 2,
        ("  postgresql://h/d\n", "postgresql://h/d"),
    ],
)
def test_database_urls_are_made_one_form(given: str, expected: str) -> None:
    env = load(DATABASE_URL=given)
    assert env.database_url.get_secret_value() == expected


@pytest.mark.parametrize(
    "bad",
    [
        "mysql://u:hunter2@h/d",
        "host=h password=hunter2",
        "postgresql+asyncpg://u:hunter2@h/d",
        "postgresql://u:hun/ter2@h/d",
        "postgresql://u:hunter2@x@h/d",
        "postgresql://u:hunter2@h:port/d",
        "hunter2",
        "postgresql://u:%hunter2@h/d",
        "postgresql://u:hunter2%2@h/d",
        "postgresql://u:hunter2%@h/d",
    ],
)
def test_a_bad_database_url_is_not_repeated(bad: str) -> None:
    (line,) = problems({"DATABASE_URL": bad})
    assert line.startswith("DATABASE_URL: its value is not right: expected postgresql://user:password@host:port/name")
    assert "hunter2" not in line
    (line,) = problems({"DATABASE_URL": URL, "LISTENER_DIRECT_URL": bad})
    assert line.startswith("LISTENER_DIRECT_URL: its value is not right: expected postgresql://user:password@host")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (URL, "db.internal:5432/shop"),
        ("postgresql://u:hunter2@h:6543/d?password=hunter2", "h:6543/d"),
        ("postgresql://u:hunter2@[::1]/d", "[::1]:5432/d"),
        ("postgresql://u:hunter2@a:1,b/d", "a:1,b/d"),
        ("postgresql:///d?host=/tmp/pg&password=hunter2@x", "/tmp/pg:5432/d"),
        ("postgresql://", "local socket:5432/"),
        ("hunter2", "unreadable address"),
    ],
)
def test_addresses_for_logs_hold_no_secret(url: str, address: str) -> None:
    assert redacted(SecretStr(url)) == address
    assert load().database_address == "db.internal:5432/shop"


def test_the_direct_address() -> None:
    assert (load().direct_url.get_secret_value(), load().is_pooled) == (URL, False)
    same = load(LISTENER_DIRECT_URL=URL.replace("postgresql", "postgres"))
    assert same.is_pooled is False
    other = load(LISTENER_DIRECT_URL="postgresql://direct/shop")
    assert (other.direct_url.get_secret_value(), other.is_pooled) == ("postgresql://direct/shop", True)


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("my-host.example_1:8080", ("my-host.example_1", 8080)),
    ],
)
def test_http_addresses(given: str, address: tuple[str, int]) -> None:
    assert load(LISTENER_HTTP=given).http_address == address


@pytest.mark.parametrize(
    "bad", ["8080", ":8080", "::1:80", "[::1]", "[x]:80", "h:65536", "h:-1", "http://h:80", "h:8o"]
)
def test_bad_http_addresses(bad: str) -> None:
    (line,) = problems({"DATABASE_URL": URL, "LISTENER_HTTP": bad})
    assert line.startswith(f"LISTENER_HTTP: {bad!r}: expected host:port, such as 127.0.0.1:8080")


def test_a_rate_limit_of_0_means_none() -> None:
    assert load(SHIPSTATION_RATE_LIMIT="0").shipstation_rate_limit == 0


def test_queues() -> None:
    assert load(LISTENER_QUEUES="upload").queues == ("upload",)
    assert load(LISTENER_QUEUES=" upload, import ,upload,").queues == ("upload", "import")
    assert load(LISTENER_QUEUES="all").queues is None


BAD = [
    ("LISTENER_QUEUES", "up load", "expected names of queues"),
    ("LISTENER_QUEUES", ",", "expected names of queues"),
    ("LISTENER_SCHEMA", "a b", "expected a name of letters"),
    ("LISTENER_SCHEMA", "1a", "expected a name of letters"),
    ("LISTENER_SCHEMA", 'a"; drop', "expected a name of letters"),
    ("LISTENER_SCHEMA", "pg_x", "expected a name of letters"),
    ("LISTENER_SCHEMA", "ä" * 32, "64 bytes; expected at most 63"),
    ("LISTENER_POOL_MIN", "0", "greater than or equal to 1"),
    ("LISTENER_POOL_MAX", "-1", "greater than or equal to 1"),
    ("LISTENER_POOL_MAX", "four", "valid integer"),
    ("LISTENER_SHUTDOWN_TIMEOUT", "-1", "greater than or equal to 0"),
    ("LISTENER_SHUTDOWN_TIMEOUT", "NaN", "finite"),
    ("LISTENER_LOG_FORMAT", "xml", "'json' or 'console'"),
    ("SHIPSTATION_BASE_URL", "ftp://x", "expected http://host"),
    ("SHIPSTATION_BASE_URL", "ssapi.shipstation.com", "expected http://host"),
    ("SHIPSTATION_BASE_URL", "https://x/?a=b", "expected http://host"),
    ("SHIPSTATION_BASE_URL", "https://[", "expected http://host"),
    ("SHIPSTATION_TIMEOUT", "0", "greater than or equal to 1"),
    ("SHIPSTATION_RATE_LIMIT", "-1", "greater than or equal to 0"),
    ("SHIPSTATION_RATE_WINDOW", "inf", "finite"),
    ("SHIPSTATION_RATE_WINDOW", "NaN", "finite"),
    ("SHIPSTATION_TIMEOUT", "NaN", "finite"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_bad_values_are_named_with_what_is_expected(name: str, value: str, expected: str) -> None:
    (line,) = problems({"DATABASE_URL": URL, name: value})
    assert line.startswith(f"{name}: {value!r}: ")
    assert expected in line


@pytest.mark.parametrize("name", SECRETS)
def test_a_bad_secret_is_never_repeated(name: str) -> None:
    lines = problems({"DATABASE_URL": URL, name: "hunter2 ü"})
    assert lines[0].startswith(f"{name}: its value is not right: expected ")


def test_secrets_appear_nowhere() -> None:
    values = dict.fromkeys(SECRETS[2:], "hunter2") | {"LISTENER_DIRECT_URL": URL.replace("db.", "direct.")}
    env = load(**values)
    assert env.api_token is not None
    assert env.api_token.get_secret_value() == "hunter2"
    for text in (repr(env), str(env), env.model_dump_json(), str(env.model_dump())):
        assert "hunter2" not in text


def test_a_user_in_the_base_url_is_not_repeated() -> None:
    (line,) = problems({"DATABASE_URL": URL, "SHIPSTATION_BASE_URL": "https://me:hunter2@x"})
    assert line.startswith("SHIPSTATION_BASE_URL: its value is not right: ")


def test_all_problems_come_at_once() -> None:
    lines = problems({"LISTENER_SCHEMA": "a b", "SHIPSTATION_API_KY": "hunter2", "LISTENER_POOL_MIN": "x"})
    assert len(lines) == 4
    assert "DATABASE_URL is not set; expected postgresql://user:password@host:port/name" in lines[1]


def test_settings_that_do_not_fit_together() -> None:
    lines = problems({"DATABASE_URL": URL, "LISTENER_POOL_MIN": "9", "SHIPSTATION_API_KEY": "hunter2"})
    assert lines == [
        "LISTENER_POOL_MIN is 9, above LISTENER_POOL_MAX (4); lower the one or raise the other",
        "SHIPSTATION_API_SECRET is not set; ShipStation needs SHIPSTATION_API_KEY and SHIPSTATION_API_SECRET",
    ]


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("SHIPSTATION_API_KY", "did you mean SHIPSTATION_API_KEY?"),
        ("LISTENER_SCHEME", "did you mean LISTENER_SCHEMA?"),
        ("LISTENER_QUEUE", "did you mean LISTENER_QUEUES?"),
        ("LISTENER_PORT", "remove it"),
        ("LISTENER_COFFEE", "remove it"),
    ],
)
def test_unknown_names_are_refused_with_a_guess(name: str, guess: str, tmp_path: Path) -> None:
    expected = [f"{name} is not a setting; {guess}"]
    assert problems({"DATABASE_URL": URL, name: "hunter2"}) == expected
    (tmp_path / ".env").write_text(f"{name}=hunter2\nOTHER_TOOL=1\n")
    assert problems({"DATABASE_URL": URL}, tmp_path / ".env") == expected


def test_what_kubernetes_puts_beside_a_service_named_listener_is_no_error() -> None:
    load(
        LISTENER_SERVICE_HOST="10.0.0.1",
        LISTENER_SERVICE_PORT="8080",
        LISTENER_SERVICE_PORT_HTTP="8080",
        LISTENER_PORT="tcp://10.0.0.1:8080",
        LISTENER_PORT_8080_TCP="tcp://10.0.0.1:8080",
        LISTENER_PORT_8080_TCP_ADDR="10.0.0.1",
    )


def test_an_empty_variable_is_not_set() -> None:
    env = load(LISTENER_SCHEMA="", LISTENER_API_TOKEN="  ", LISTENER_HTTP="", LISTENER_TYPO="")
    assert (env.schema_name, env.api_token) == ("public", None)
    assert problems({"DATABASE_URL": ""})[0].startswith("DATABASE_URL is not set")


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(
        b"\xef\xbb\xbfDATABASE_URL=postgres://file/d\nLISTENER_SCHEMA='from_file'  # comment\n"
        b"export LISTENER_POOL_MAX=9\nLISTENER_API_TOKEN\n"
    )
    env = load_environment({"LISTENER_SCHEMA": "from_environ", "LISTENER_POOL_MAX": ""}, file)
    assert env.database_url.get_secret_value() == "postgresql://file/d"
    assert (env.schema_name, env.pool_max, env.api_token) == ("from_environ", 4, None)


def test_a_missing_file_is_no_error_and_a_broken_one_is(tmp_path: Path) -> None:
    assert load_environment({"DATABASE_URL": URL}, tmp_path / "none").schema_name == "public"
    (tmp_path / "latin").write_bytes(b"LISTENER_SCHEMA=\xff\n")
    (line,) = problems({"DATABASE_URL": URL}, tmp_path / "latin")
    assert line.endswith("latin cannot be read (UnicodeDecodeError); expected lines such as NAME=value in UTF-8")


def test_nothing_is_read_behind_the_callers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTENER_SCHEMA", "elsewhere")
    assert load().schema_name == "public"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().schema_name = "x"  # type: ignore[misc]


def test_where_it_serves_is_read_without_a_database(tmp_path: Path) -> None:
    """A health check's container may have nothing else."""
    (tmp_path / ".env").write_text("LISTENER_HTTP=[::1]:81\nDATABASE_URL=nonsense\n")
    assert load_http_address({}, None) == ("127.0.0.1", 8080)
    assert load_http_address({}, tmp_path / ".env") == ("::1", 81)
    assert load_http_address({"LISTENER_HTTP": "0.0.0.0:82", "LISTENER_TYPO": "1"}, tmp_path / ".env") == (
        "0.0.0.0",
        82,
    )
    with pytest.raises(ConfigError, match=r"^LISTENER_HTTP: 'nowhere': "):
        load_http_address({"LISTENER_HTTP": "nowhere"}, None)


def test_names_of_the_older_workers() -> None:
    """R187: the one that is a setting of a process is an alias; ours wins; a pooler needs the way past it."""
    older = {"DATABASE_URL": "postgresql://u@h/d", "CELERY_WORKER_MAX_TASKS_PER_CHILD": "50"}
    assert load_environment(older, None).recycle_after == 50
    assert load_environment(older | {"LISTENER_RECYCLE_AFTER": "7"}, None).recycle_after == 7
    with pytest.raises(ConfigError, match=r"^CELERY_WORKER_MAX_TASKS_PER_CHILD: 'many': "):
        load_environment(older | {"CELERY_WORKER_MAX_TASKS_PER_CHILD": "many"}, None)
    with pytest.raises(ConfigError, match=r"^SUPABASE_USE_POOLER is true, .*set LISTENER_DIRECT_URL"):
        load_environment(older | {"SUPABASE_USE_POOLER": "True"}, None)
    pooled = older | {"SUPABASE_USE_POOLER": "true", "LISTENER_DIRECT_URL": "postgresql://u@h:5432/d"}
    assert load_environment(pooled, None).is_pooled
    assert not load_environment(older | {"SUPABASE_USE_POOLER": "false"}, None).is_pooled


def test_the_older_name_is_told_where_it_was_given() -> None:
    """A variable that nobody has set is not to be found."""
    older = {"CELERY_WORKER_MAX_TASKS_PER_CHILD": "abc", "DATABASE_URL": URL}
    assert problems(older)[0].startswith("CELERY_WORKER_MAX_TASKS_PER_CHILD: 'abc': ")
    assert problems({**older, "LISTENER_RECYCLE_AFTER": "x"})[0].startswith("LISTENER_RECYCLE_AFTER: 'x': ")
    assert load(CELERY_WORKER_MAX_TASKS_PER_CHILD="7").recycle_after == 7


def test_an_address_that_is_copied_knows_its_variable() -> None:
    address = Address("postgresql://h/d", "LISTENER_DIRECT_URL")
    for copied in (copy.copy(address), copy.deepcopy(address), pickle.loads(pickle.dumps(address))):
        assert (copied, copied.variable) == (address, "LISTENER_DIRECT_URL")
