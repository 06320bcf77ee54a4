"""A real Prometheus scrapes the real service, with the files of `deploy/` as they are: every query of the dashboard
and every recording rule has an answer, and no alert fires."""

import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.service import Service
from e2e.world import World, world
from waiting import until

from deploy.test_rules import exported, names_in
from deploy.tools import DEPLOY, RULES, program, recorded, run

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "order-listener.json").read_text())
XML = """<Orders><Order><OrderID>9</OrderID><OrderNumber>file-1</OrderNumber><OrderDate>11/20/2026 14:03</OrderDate>
<OrderStatus>paid</OrderStatus><LastModified>11/20/2026 14:03</LastModified><OrderTotal>9.99</OrderTotal>
<Customer><CustomerCode>a@example.org</CustomerCode>
<ShipTo><Name>A Buyer</Name><Address1>1 Main St</Address1><City>Austin</City><State>TX</State>
<PostalCode>78701</PostalCode><Country>US</Country></ShipTo></Customer>
<Items><Item><SKU>ABC</SKU><Name>Thing</Name><Quantity>1</Quantity><UnitPrice>9.99</UnitPrice></Item></Items></Order></Orders>"""


def queries() -> dict[str, list[str]]:
    """Panel's title → its queries, with Grafana's variable as it would be at a scrape interval of a second."""
    return {
        panel["title"]: [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]
        for panel in DASHBOARD["panels"]
        if panel["type"] != "row"
    }


@pytest.fixture(scope="module")
def everything(server: Any, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service whose three queues have all had work."""
    with world(server, template, tmp_path_factory.mktemp("prometheus")) as everything:
        everything.configure(fast_polling_interval=1, sync_interval=10)
        service = everything.start(
            LISTENER_QUEUES="upload,import,sync", SHIPSTATION_RATE_LIMIT="1000", SHIPSTATION_RATE_WINDOW="3600"
        )
        everything.orders.insert(3)
        until(lambda: service.metric("listener_jobs_settled_total", queue="sync", outcome="complete"), deadline_s=30)
        yield everything


class Prometheus:
    """A running server; `ask` is its API."""

    def __init__(self, service: Service, folder: Path) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(path) for path in RULES]
        [job] = config["scrape_configs"]
        del job["dns_sd_configs"]
        job |= {"static_configs": [{"targets": [service.address.removeprefix("http://")]}], "scrape_timeout": "1s"}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.log = folder / "prometheus.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    program("prometheus", "prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={self.address}",
                ],
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, **parameters: str) -> Any:
        assert self.process.poll() is None, self.log.read_text()
        try:
            url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 503:
                    return None  # it is starting
                pytest.fail(f"{parameters}: {error.read().decode()}")
        except urllib.error.URLError:
            return None

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = self.get("query", query=query)
        return answer["result"] if answer else []


@pytest.fixture(scope="module")
def prometheus(everything: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen work of every queue begin and end: what is counted before the first scrape grows in no window."""
    program("prometheus", "prometheus")
    prometheus = Prometheus(everything.listeners.all[0], tmp_path_factory.mktemp("server"))
    try:
        until(lambda: prometheus.ask('up{job="order-listener"} == 1'), deadline_s=30, what="the first scrape")
        everything.orders.insert(5, prefix="seen")
        everything.database.execute(
            "INSERT INTO import_files (source, name, content) VALUES ('inline', 'orders.xml', %s)", [XML]
        )
        yield prometheus
    finally:
        prometheus.process.terminate()
        prometheus.process.wait(30)


def test_dashboard_reads_what_the_service_exports() -> None:
    known = exported() | recorded()
    for title, expressions in queries().items():
        for expression in expressions:
            assert names_in(expression), f"{title}: {expression}"
            assert names_in(expression) <= known, f"{title}: {names_in(expression) - known}"


def test_dashboard_shows_every_key_figure() -> None:
    """What is recorded is there to be seen."""
    shown = {name for expressions in queries().values() for text in expressions for name in names_in(text)}
    unseen = {"account:listener_api_rate_limited:increase_1h", "queue:listener_jobs_rescued:increase_1d",
              "instance:listener_memory_growth:bytes_per_hour"}  # fmt: skip
    assert recorded() - shown == unseen, "these are for alerts alone: counts that are 0, and a slope of six hours"


def test_dashboard_is_sound() -> None:
    """Ids are unique, panels do not lie on each other, every query names the chosen data source."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
    assert all(re.fullmatch(r"[\w ,?-]+", panel["title"]) for panel in panels)


def test_exposition_passes_promtool(everything: World) -> None:
    text = everything.listeners.all[0].get("/metrics")[1]
    done = run(program("promtool", "prometheus"), "check", "metrics", input=text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_passes_promtool() -> None:
    done = run(program("promtool", "prometheus"), "check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_recording_rule_and_every_panel_has_data(prometheus: Prometheus) -> None:
    asked = {f"rule {name}": [name] for name in recorded()} | queries()
    missing: dict[str, str] = {}

    def all_answered() -> bool:
        missing.clear()
        for title, expressions in asked.items():
            for expression in expressions:
                values = [float(each["value"][1]) for each in prometheus.ask(expression)]
                if not values or all(value != value for value in values):  # NaN draws nothing
                    missing[f"{title}: {expression}"] = str(values)
        # no call was refused, which is no series; a slope of memory needs two samples and is there
        return not missing.keys() - {
            "rule account:listener_api_rate_limited:increase_1h: account:listener_api_rate_limited:increase_1h"
        }

    until(all_answered, deadline_s=60, what=f"an answer to every query; missing at the end: {missing}")


def test_no_alert_fires_on_a_service_that_is_well(prometheus: Prometheus) -> None:
    firing = prometheus.ask('ALERTS{alertstate="firing",severity!="info"}')
    assert [each["metric"]["alertname"] for each in firing] == []
    groups = prometheus.get("rules")["groups"]
    assert [rule for group in groups for rule in group["rules"] if rule["health"] == "err"] == []
