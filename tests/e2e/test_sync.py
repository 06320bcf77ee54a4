"""The synchronisation with real processes: its schedule, its command, its webhooks, its figures."""

import json
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sandbox.server import order
from waiting import until

from e2e.service import Service
from e2e.world import World, world

SECRET = "a-long-random-token-0123456789"
BOTH = {"LISTENER_QUEUES": "upload,sync", "SHIPSTATION_WEBHOOK_SECRET": SECRET}


@pytest.fixture(scope="module")
def town(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests of this module; they do not look at each other's orders."""
    with world(server, template, tmp_path_factory.mktemp("sync")) as town:
        town.configure(sync_interval=86_400)
        yield town


@pytest.fixture(scope="module")
def pair(town: World) -> tuple[Service, Service]:
    """Two replicas that upload and sync."""
    return town.start(**BOTH), town.start(**BOTH)


def runs(town: World, where: str = "true") -> list[tuple[Any, ...]]:
    return town.database.execute(
        f"SELECT id, status, reason, stats, last_error FROM sync_runs WHERE {where} ORDER BY id"
    )


def idle(town: World) -> None:
    until(lambda: not runs(town, "status IN ('Pending', 'Processing')"), deadline_s=30, what=f"idle: {runs(town)}")


def status_of(town: World, number: str) -> Any:
    return town.database.execute(
        "SELECT fulfillment_status, tracking_number FROM orders_inbox WHERE order_number = %s", [number]
    )


def age(town: World, **by: float) -> None:
    """Let the runs so far be older."""
    town.database.execute("UPDATE sync_runs SET started_at = started_at - %s", [timedelta(**by)])


def post(service: Service, body: bytes, secret: str = SECRET) -> tuple[int, Any]:
    request = urllib.request.Request(f"{service.address}/webhooks/shipstation/{secret}", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=15) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def notice(town: World, path: str) -> bytes:
    host, port = town.api.address
    return json.dumps({"resource_url": f"http://{host}:{port}{path}", "resource_type": "SHIP_NOTIFY"}).encode()


def test_the_command_alone_tries_again_when_a_pause_is_over(town: World) -> None:
    """No service runs yet, nor ever where a timer starts the command."""
    town.database.execute(
        "INSERT INTO api_budgets (connector, account, call_limit, window_s, remaining, paused_until, pause_reason)"
        " SELECT 'shipstation', account, 40, 60, 40, now() + until, 'outage'"
        " FROM (VALUES ('…-key', interval '-1 minute'), ('…gone', interval '1 hour')) AS paused (account, until)"
    )
    done = town.listeners.run("sync", "shipstation")
    assert done.returncode == 0, done.stderr
    town.database.execute("DELETE FROM api_budgets WHERE account = '…gone'")


def test_the_command_alone_goes_on_with_what_a_killed_one_left(town: World) -> None:
    town.database.execute(
        "INSERT INTO sync_runs (account, status, claim_id, claimed_by, claimed_at, scheduled_at)"
        " SELECT '…-key', 'Processing', 1, 999999999, at, at FROM (SELECT now() - interval '1 minute') AS made (at)"
    )
    done = town.listeners.run("sync", "shipstation", "--lookback-minutes", "60")
    assert done.returncode == 0, done.stderr
    assert [(run[1], run[2]) for run in runs(town)][-1] == ("Succeeded", "manual")
    assert runs(town, "status <> 'Succeeded'") == []


def test_the_command_alone_goes_on_after_an_outage(town: World) -> None:
    town.api.fault({"status": 503})
    for _ in range(2):  # the second one finds the run of the first
        paused = town.listeners.run("sync", "shipstation")
        assert (paused.returncode, "paused (outage)" in paused.stderr) == (1, True), paused.stderr
        assert "Another instance" not in paused.stderr
    town.api.control("DELETE", "faults")
    town.database.execute("UPDATE api_budgets SET paused_until = now() + interval '1 hour'")
    dry = town.listeners.run("sync", "shipstation", "--dry-run")
    assert (dry.returncode, "is waiting" in dry.stderr, "the account is paused" in dry.stderr) == (1, True, True)
    town.database.execute("UPDATE api_budgets SET paused_until = now()")
    done = town.listeners.run("sync", "shipstation")
    assert done.returncode == 0, done.stderr
    assert runs(town, "status <> 'Succeeded'") == []


def test_the_command_fails_when_a_list_cannot_be_read(town: World) -> None:
    """Who starts it from a timer looks at the exit code."""
    town.api.fault({"status": 503, "path": "/shipments"})
    failed = town.listeners.run("sync", "shipstation", "--json")
    town.api.control("DELETE", "faults")

    assert failed.returncode == 1, failed.stderr
    assert "could not read shipments (ShipStation answered 503" in failed.stderr
    assert "Traceback" not in failed.stderr
    run = json.loads(failed.stdout)
    assert (run["status"], run["stats"]["complete"], list(run["stats"]["lists_failed"])) == (
        "Succeeded",
        False,
        ["shipments"],
    )
    assert town.listeners.run("sync", "shipstation").returncode == 0


def start_sync(town: World) -> Service:
    """A `listener sync` in the background."""
    command = Service(
        town.listeners.environ, town.listeners.folder, (sys.executable, "-m", "listener", "sync", "shipstation")
    )
    town.listeners.all.append(command)
    return command


def at_work(town: World) -> Service:
    """A `listener sync` that waits for a reply to its first call."""
    town.api.until_in_flight(0)
    command = start_sync(town)
    town.api.until_in_flight(1)
    return command


def test_the_command_alone_goes_on_after_a_kill_and_after_a_stop(town: World) -> None:
    town.api.fault({"latency_s": 2.0, "method": "GET"})
    at_work(town).kill()
    [(run_id, *_)] = runs(town, "status = 'Processing'")

    stopped = at_work(town)
    stopped.signal(signal.SIGINT)
    stopped.signal(signal.SIGTERM)  # a second one; two of a kind may arrive as one
    assert stopped.process.wait(30) == 1
    assert f"interrupted; sync run {run_id} waits in sync_runs" in stopped.log_text

    town.api.until_in_flight(0)
    both = [start_sync(town) for _ in range(2)]  # the run is one's, and the other one says so
    until(lambda: any(each.process.poll() is not None for each in both), deadline_s=30, what="the end of one")
    [refused] = [each for each in both if each.process.poll() is not None]
    [once] = [each for each in both if each is not refused]
    assert (refused.process.returncode, "Another instance is already" in refused.log_text) == (1, True), (
        refused.log_text
    )

    town.api.until_in_flight(1)
    town.api.control("DELETE", "faults")
    once.signal(signal.SIGINT)
    assert once.process.wait(30) == 0, once.log_text
    assert f"sync run {run_id} Succeeded" in once.log_text
    assert runs(town, "status <> 'Succeeded'") == []


def test_the_command_that_fails_stands_by_its_run_no_more(town: World) -> None:
    """Else the next one takes it for another that works, until that one counts as dead."""
    nowhere = f"{town.database.service_url}_that_nobody_made"
    failed = town.listeners.run("sync", "shipstation", LISTENER_DIRECT_URL=nowhere)
    assert (failed.returncode, "does not exist" in failed.stderr) == (1, True), failed.stderr
    assert town.database.execute("SELECT claimed_at FROM sync_runs WHERE status = 'Pending'") == [(None,)]
    town.database.execute("DELETE FROM sync_runs WHERE status = 'Pending'")


def test_the_command_tells_that_its_run_was_deleted(town: World) -> None:
    town.api.fault({"latency_s": 1.0, "method": "GET"})
    command = at_work(town)
    [(run_id,)] = town.database.execute("DELETE FROM sync_runs WHERE status = 'Processing' RETURNING id")
    town.api.control("DELETE", "faults")
    assert command.process.wait(30) == 1, command.log_text
    assert f"listener: sync run {run_id} was deleted" in command.log_text
    assert "Traceback" not in command.log_text


def test_the_schedule_starts_one_run_on_any_number_of_replicas(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    town.orders.insert(1)
    until(lambda: town.orders.counts() == {"Uploaded": 1}, what="the upload")
    town.api.control("POST", "ship", {"orderNumber": "A-1", "trackingNumber": "T1"})
    before = len(runs(town))
    age(town, seconds=500)
    for service in pair:
        assert service.events("Unified sync started (interval=86400s)")

    town.configure(sync_interval=900)  # a change acts at once, and 500 s are not enough
    town.until_heard(*pair)
    assert len(runs(town)) == before
    town.configure(sync_interval=400)

    until(lambda: status_of(town, "A-1") == [("shipped", "T1")], deadline_s=20, what=f"the state: {runs(town)}")
    idle(town)
    town.configure(sync_interval=86_400)
    town.until_heard(*pair)
    added = runs(town)[before:]
    assert [(status, reason) for _, status, reason, _, _ in added] == [("Succeeded", "schedule")]
    assert sum(len(service.events("Sync cycle completed")) for service in pair) >= 1


def test_a_workflow_that_is_off_starts_none(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    before = len(runs(town))
    town.configure(sync_enabled=False)
    age(town, days=3)
    town.configure(sync_interval=10)
    town.until_heard(*pair)
    assert len(runs(town)) == before
    asked = town.listeners.run("sync", "shipstation")
    assert (asked.returncode, "sync_enabled is false; the run waits" in asked.stderr) == (1, True), asked.stderr

    town.configure(sync_interval=86_400)
    town.configure(sync_enabled=True)

    until(lambda: len(runs(town)) == before + 1, what=f"the run: {runs(town)}")
    idle(town)


def test_the_command_brings_back_what_happened(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    town.orders.insert(1, prefix="B")
    until(lambda: set(town.orders.counts()) == {"Uploaded"}, what="the upload")
    town.api.control("POST", "ship", {"orderNumber": "B-1", "trackingNumber": "T2"})

    dry = town.listeners.run("sync", "shipstation", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would have" in dry.stdout
    assert status_of(town, "B-1") == [(None, None)]

    done = town.listeners.run("sync", "shipstation", "--lookback-minutes", "60", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stats"]["complete"] is True
    assert status_of(town, "B-1") == [("shipped", "T2")]


def test_a_second_run_of_one_account_is_refused(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    town.database.execute("INSERT INTO sync_runs (account, scheduled_at) VALUES ('…-key', now() + interval '1 hour')")
    try:
        refused = town.listeners.run("sync", "shipstation")
    finally:
        town.database.execute("DELETE FROM sync_runs WHERE status = 'Pending'")

    assert refused.returncode == 1
    assert "Another instance is already running" in refused.stderr
    assert "is waiting until 20" in refused.stderr


def test_an_insert_that_names_no_account_is_a_run_of_ours(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    [(run_id,)] = town.database.execute("INSERT INTO sync_runs DEFAULT VALUES RETURNING id")
    idle(town)
    assert town.database.execute("SELECT account, status FROM sync_runs WHERE id = %s", [run_id]) == [
        ("…-key", "Succeeded")
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("sync", "ebay"), "'ebay' is no connector"),
        (("sync", "shipstation", "--account", "other"), "--account 'other'"),
        (("webhooks", "shipstation", "--subscribe", "https://shop.example"), "SHIPSTATION_WEBHOOK_SECRET is not set"),
        (("webhooks", "shipstation", "--subscribe", "https://shop.example/?a=1"), "leave out what stands behind"),
        (("webhooks", "shipstation", "--subscribe", "https://shop.example/#a"), "leave out what stands behind"),
        (("webhooks", "shipstation", "--subscribe", "http://shop.example"), "expected https://host"),
        (("webhooks", "shipstation", "--subscribe", "https://"), "expected https://host"),
        (("webhooks", "shipstation", "--subscribe", "https://shop.example:x"), "expected https://host"),
        (("webhooks", "shipstation", "--subscribe", "https://me:pw@shop.example"), "with a user before 'shop.example'"),
    ],
)
def test_wrong_usage_is_told(town: World, arguments: tuple[str, ...], words: str) -> None:
    environ = {} if "is not set" in words else {"SHIPSTATION_WEBHOOK_SECRET": SECRET}
    done = town.listeners.run(*arguments, **environ)

    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_a_webhook_becomes_a_row(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    town.orders.insert(1, prefix="C")
    until(lambda: set(town.orders.counts()) == {"Uploaded"}, what="the upload")
    assert town.listeners.run("sync", "shipstation").returncode == 0
    shipment = town.api.control("POST", "ship", {"orderNumber": "C-1", "trackingNumber": "T3"})
    body = notice(town, f"/shipments?orderId={shipment['orderId']}&page=1&pageSize=10")

    assert post(pair[0], body)[1]["status"] == "accepted"

    until(lambda: status_of(town, "C-1")[0][1] == "T3", what=f"the tracking number: {runs(town)}")
    assert post(pair[1], body)[1]["status"] == "repeated"
    idle(town)
    [(stored, deliveries)] = town.database.execute("SELECT body, deliveries FROM webhook_events")
    assert (bytes(stored), deliveries) == (body, 2)
    [(_, status, reason, stats, _)] = runs(town, "reason = 'webhook'")
    assert (status, reason, stats["calls"]) == ("Succeeded", "webhook", 1)


def test_webhooks_that_are_not_theirs_are_refused(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    service, before = pair[0], town.database.execute("SELECT count(*) FROM webhook_events")
    foreign = json.dumps({"resource_url": "https://ssapi.shipstation.com.evil.example/orders", "resource_type": "X"})

    assert post(service, notice(town, "/orders"), secret="wrong")[0] == 401
    assert post(service, notice(town, "/orders?" + "x" * 70_000))[0] == 413
    assert post(service, b"\xff{")[0] == 400
    assert post(service, foreign.encode())[1]["error"]["code"] == "foreign_address"
    assert (
        post(service, rb'{"resource_url": "/orders?\ud800", "resource_type": "A\ud800"}')[1]["error"]["code"]
        == "unreadable"
    )
    assert post(service, b"[]")[1]["error"]["code"] == "unreadable"

    for _ in range(5):  # the first one is told of, the others are counted for the next line
        post(service, notice(town, "/orders"), secret="another-wrong-secret")
    [refused] = service.events("Webhooks refused")
    assert (refused["level"], refused["connector"], refused["count"]) == ("warning", "shipstation", 1)
    assert "wrong" not in str({**refused, "why": ""})
    assert town.database.execute("SELECT count(*) FROM webhook_events") == before
    assert not runs(town, "status = 'Pending'")


def test_the_monitor_and_the_statistics_tell_how_it_goes(town: World, pair: tuple[Service, Service]) -> None:
    idle(town)
    status, answer = pair[0].get("/api/v1/sync/monitor/status")
    assert status == 200
    assert answer["data"]["scheduler"] == {"running": True, "enabled": True, "interval_seconds": 86_400}
    assert set(answer["data"]["watermarks"]) == {"orders", "shipments", "voids", "fulfillments"}

    shown = json.loads(town.listeners.run("stats", "--json").stdout)
    assert shown["runs"] >= 1
    assert shown["last_run"]["status"] == "Succeeded"
    assert json.loads(town.listeners.run("stats", "--json", "--reset").stdout)["runs"] == 0
    assert "watermarks orders" in town.listeners.run("stats").stdout


def test_subscribing_twice_is_subscribing_once(town: World) -> None:
    town.api.create(order("W"))
    environ = {"SHIPSTATION_WEBHOOK_SECRET": SECRET}
    first = town.listeners.run("webhooks", "shipstation", "--subscribe", "https://shop.example/", **environ)
    again = town.listeners.run("webhooks", "shipstation", "--subscribe", "https://shop.example", **environ)

    assert first.returncode == 0, first.stderr
    assert first.stdout == again.stdout
    assert SECRET not in first.stdout
    assert SECRET not in town.listeners.run("webhooks", "shipstation").stdout  # also who does not know it now
    listed = town.api.get("/webhooks")["webhooks"]
    assert {each["HookType"] for each in listed} == {"ORDER_NOTIFY", "SHIP_NOTIFY", "FULFILLMENT_SHIPPED"}
    assert {each["Url"] for each in listed} == {f"https://shop.example/webhooks/shipstation/{SECRET}"}
