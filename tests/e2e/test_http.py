"""The HTTP interface of running processes: what it tells, whom, and what it never tells."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sandbox.server import Client
from waiting import until

from e2e.exposition import Exposition
from e2e.service import Orders, Service, Services, services
from e2e.world import World, world
from listener.db.embedded import Cluster

TOKEN = "an-api-token-9f2c"
PASSWORD = "a-password-51d0"
API_SECRET = "an-api-secret-77ab"

GUARDED = ["/api/health/pool", "/api/v1/operations", "/api/v1/queues"]
OPEN = ["/livez", "/readyz", "/metrics"]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """The machine code of an error, whose shape and sentence are checked on the way."""
        assert self.headers["Content-Type"] == "application/json"
        assert self.json.keys() == {"error"}
        error = self.json["error"]
        assert error.keys() == {"code", "message"}
        assert len(error["message"].split()) > 4, error
        return error["code"]


def ask(service: Service, path: str, *, method: str = "GET", **headers: str) -> Reply:
    """In header names _ stands for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{service.address}{path}", method=method, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return Reply(reply.status, reply.headers, reply.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read().decode())


@pytest.fixture(scope="module")
def town(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(server, template, tmp_path_factory.mktemp("http")) as town:
        yield town


@pytest.fixture(scope="module")
def service(town: World) -> Service:
    """Without a token."""
    return town.start()


@pytest.fixture(scope="module")
def guarded(town: World) -> Service:
    """With a token."""
    return town.start(LISTENER_API_TOKEN=TOKEN)


def with_password(url: str) -> str:
    """The server asks for none, so any will do."""
    address = urlsplit(url)
    return address._replace(netloc=f"{address.username}:{PASSWORD}@{address.netloc.rpartition('@')[2]}").geturl()


def test_livez_says_that_the_process_lives(service: Service) -> None:
    reply = ask(service, "/livez")
    assert (reply.status, reply.json) == (200, {"status": "ok"})


def test_readyz_names_each_part(service: Service) -> None:
    reply = ask(service, "/readyz")
    assert reply.status == 200
    parts = reply.json
    assert parts.pop("status") == "ready"
    assert parts.keys() == {"database", "session", "configuration", "connectors", "queues"}
    assert parts["database"] == {"status": "ok"}
    assert parts["session"]["status"] == "connected"
    assert parts["configuration"] == {"status": "ok", "version": 0, "invalid": {}, "missing": {}, "unknown": {}}
    assert parts["connectors"]["shipstation …-key"]["status"] == "ok"
    assert parts["queues"] == {"upload": {"status": "ok"}}


def test_a_process_shows_its_own_account_alone(service: Service, town: World) -> None:
    """Another key's pause is not its affair; `listener status` speaks of the whole database."""
    town.database.execute(
        "INSERT INTO api_budgets (connector, account, call_limit, window_s, remaining, paused_until)"
        " VALUES ('shipstation', '…other', 40, 60, 40, now() + interval '1 hour')"
    )
    shown = until(lambda: ask(service, "/readyz").json["connectors"], what="the first look at the queue")
    assert shown.keys() == {"shipstation …-key"}
    metrics = ask(service, "/metrics").text
    assert "…-key" in metrics
    assert "…other" not in metrics
    status = town.listeners.run("status").stdout
    assert "shipstation …-key: ok" in status
    assert "shipstation …other: paused" in status


def test_pool_tells_sizes_use_and_waiting(service: Service) -> None:
    reply = ask(service, "/api/health/pool")
    assert (reply.status, reply.json["status"]) == (200, "success")
    pool = reply.json["data"]
    assert pool.keys() == {"size", "checked_out", "overflow", "idle", "waiting", "active_operations", "min", "max"}
    assert all(isinstance(figure, int) and figure >= 0 for figure in pool.values())
    assert pool["size"] == pool["checked_out"] + pool["idle"]
    assert pool["min"] <= pool["size"] <= pool["max"] == 4
    assert pool["overflow"] == pool["active_operations"] == 0


def test_operations_and_queues_show_what_runs(service: Service, town: World) -> None:
    """While an upload is under way it is listed, counted, and its rows are processing; afterwards nothing is."""
    town.api.fault({"latency_s": 5})
    town.orders.insert(4, prefix="slow")
    running = until(lambda: ask(service, "/api/v1/operations").json["data"], deadline_s=30, what="a running operation")
    pool = ask(service, "/api/health/pool").json["data"]
    queues = ask(service, "/api/v1/queues").json
    town.api.fault()
    assert [(one["queue"], one["jobs"]) for one in running] == [("upload", 4)]
    assert running[0]["running_seconds"] >= 0
    assert running[0]["id"].startswith("upload-")
    assert service.events(f"Operation {running[0]['id']} started"), "the log calls it by the same name"
    assert pool["active_operations"] == 1
    assert queues["status"] == "success"
    assert queues["data"] == [
        {
            "queue": "upload",
            "table": "orders_inbox",
            "pending": 0,
            "processing": 4,
            "failed": 0,
            "oldest_pending_s": 0.0,
            "active_operations": 1,
        }
    ]
    until(lambda: ask(service, "/api/v1/operations").json["data"] == [], deadline_s=30, what="the end of the operation")


@pytest.mark.parametrize("path", GUARDED)
def test_without_a_token_figures_are_for_this_machine(path: str, service: Service) -> None:
    """A page elsewhere comes under its own Host, a proxy with a forwarding header."""
    port = urlsplit(service.address).port
    assert ask(service, path).status == 200
    assert ask(service, path, Host=f"localhost:{port}").status == 200
    for refused in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"X_Real_IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "evil.example", "Authorization": f"Bearer {TOKEN}"},
    ):
        reply = ask(service, path, **refused)
        assert (reply.status, reply.code) == (403, "loopback_only"), refused


@pytest.mark.parametrize("path", GUARDED)
def test_with_a_token_figures_are_for_whoever_shows_it(path: str, guarded: Service) -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert ask(guarded, path, **right).status == 200
    assert ask(guarded, path, **right, Host="listener.example", X_Forwarded_For="10.0.0.7").status == 200
    for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
        reply = ask(guarded, path, **wrong)
        assert (reply.status, reply.code) == (401, "unauthorized"), wrong
        assert reply.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_metrics_are_for_the_platform(path: str, guarded: Service) -> None:
    """Kubernetes and Prometheus come from another machine, under the pod's address, with no token."""
    assert ask(guarded, path, Host="10.0.0.7:8080").status == 200


@pytest.mark.parametrize("path", ["/", "/api", "/api/v1/nothing", "/livez/x", "/../etc/passwd"])
def test_unknown_paths_are_json_errors(path: str, service: Service) -> None:
    reply = ask(service, path)
    assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize("path", [*OPEN, *GUARDED])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_unknown_methods_are_json_errors(method: str, path: str, service: Service) -> None:
    reply = ask(service, path, method=method)
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert "GET" in reply.headers["Allow"]


def test_openapi_lists_the_routes(service: Service) -> None:
    reply = ask(service, "/openapi.json")
    assert reply.status == 200
    assert reply.json["openapi"].startswith("3.")
    assert {*OPEN, *GUARDED} <= reply.json["paths"].keys()
    for path, methods in reply.json["paths"].items():
        for method, route in methods.items():
            assert route.get("description"), f"{method} {path} is not described"


def test_operations_that_run_side_by_side_are_listed_one_by_one(
    listeners: Services, orders: Orders, api: Client, database: Any
) -> None:
    """One row a call: each is an operation of its own, with a name of its own."""
    database.execute(
        "INSERT INTO configuration_params VALUES ('upload_batch_size', '1'), ('upload_concurrency', '3')"
        " ON CONFLICT (param_key) DO UPDATE SET param_value = excluded.param_value"
    )
    api.fault({"latency_s": 5})
    service = listeners.start().wait_ready()
    orders.insert(3)
    api.until_in_flight(3)
    names = [one["id"] for one in ask(service, "/api/v1/operations").json["data"]]
    assert len(set(names)) == 3, names


def test_secrets_are_nowhere(listeners: Services, orders: Orders, database: Any) -> None:
    """Neither in a reply, nor in the log, nor in what commands print, also not when the credentials are refused."""
    address = urlsplit(database.service_url)
    if address.password:
        pytest.skip("the server's own password is in its address")
    login = with_password(database.service_url)
    environ = {"SHIPSTATION_API_SECRET": API_SECRET, "LISTENER_API_TOKEN": TOKEN, "DATABASE_URL": login}
    service = listeners.start(**environ).wait_ready()
    orders.insert(1)
    until(
        lambda: any(part["status"] == "paused" for part in ask(service, "/readyz").json["connectors"].values()),
        deadline_s=30,
        what="the pause after the refused call",
    )
    texts = {}
    for path in [*OPEN, *GUARDED, "/openapi.json", "/nothing"]:
        texts[path] = ask(service, path).text
        texts[f"{path} with the token"] = ask(service, path, Authorization=f"Bearer {TOKEN}").text
    away = login.replace(f":{address.port}/", ":1/")
    for command, url in ((["status"], login), (["status", "--json"], login), (["migrate"], away)):
        done = listeners.run(*command, **{**environ, "DATABASE_URL": url})
        texts[" ".join([*command, str(done.returncode)])] = done.stdout + done.stderr
    assert service.stop() == 0
    texts["log"] = service.log_text
    for where, text in texts.items():
        assert text, f"{where} is empty"
        for secret in (TOKEN, PASSWORD, API_SECRET):
            assert secret not in text, f"{where} tells {secret}"


def test_a_paused_connector_is_shown_and_does_not_make_the_process_unready(
    listeners: Services, orders: Orders, api: Client
) -> None:
    """Restarting the process would mend nothing; an operator must see why nothing is uploaded."""
    api.control("PUT", "credentials", {"key": "sandbox-key", "secret": "changed"})
    service = listeners.start().wait_ready()
    orders.insert(2)

    def connector() -> Any:
        return ask(service, "/readyz").json["connectors"].get("shipstation …-key")

    paused = until(lambda: (now := connector()) and now["status"] == "paused" and now, deadline_s=30, what="the pause")
    assert paused["reason"] == "credentials"
    assert "SHIPSTATION_API_SECRET" in paused["detail"]
    assert paused["probe_in_seconds"] >= 0
    assert paused["since"]
    reply = ask(service, "/readyz")
    assert (reply.status, reply.json["status"]) == (200, "ready")
    now = Exposition(ask(service, "/metrics").text)
    assert now.value("listener_connector_paused", connector="shipstation", account="…-key") == 1
    assert orders.counts() == {"Pending": 2}
    status = listeners.run("status")
    assert "paused (credentials)" in status.stdout
    assert service.stop() == 0


def test_while_the_database_is_away_every_answer_says_so_at_once(
    own_cluster: Cluster, own_service_url: str, api: Client, tmp_path: Path
) -> None:
    """Not ready, alive, JSON errors, and metrics without old figures; afterwards all is well again by itself."""
    with services(own_service_url, api, tmp_path) as group:
        service = group.start().wait_ready()
        assert ask(service, "/readyz").status == 200
        own_cluster.stop("immediate")
        reply = until(lambda: (now := ask(service, "/readyz")).status == 503 and now, deadline_s=30, what="503")
        parts = reply.json
        assert parts["status"] == "not ready"
        assert parts["database"]["status"] == "down"
        assert parts["database"]["detail"].startswith("no database session: "), "the pool was asked, and waited"
        assert parts["session"]["status"] == "reconnecting"
        assert parts["connectors"] is None, "not known now"
        assert parts["configuration"]["version"] == 0, "the last one that was read"
        assert ask(service, "/livez").status == 200
        assert ask(service, "/api/health/pool").status == 200
        queues = ask(service, "/api/v1/queues")
        assert (queues.status, queues.code) == (503, "database_unavailable")
        assert queues.json["error"]["message"].startswith("no database session: ")
        now = Exposition(ask(service, "/metrics").text)
        assert now.value("listener_session_connected") == 0
        assert now.value("listener_queue_pending", queue="upload") is None
        assert now.value("listener_jobs_claimed_total", queue="upload") == 0
        own_cluster.start()
        until(lambda: ask(service, "/readyz").status == 200, deadline_s=60, what="the way back")
        now = Exposition(ask(service, "/metrics").text)
        assert now.value("listener_session_connected") == 1
        assert now.value("listener_queue_pending", queue="upload") == 0
        assert service.stop() == 0
