"""The manifests: valid by Kubernetes' own schemas, confined, in step with the service's limits; KEDA's query runs."""

import re
import shutil
from typing import Any

import pytest
import yaml
from conftest import Database

from deploy.tools import DEPLOY, RULES, documents, run
from listener.config.environment import Environment, load_environment

FOLDER = DEPLOY / "kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
CUSTOM = {"keda.sh", "monitoring.coreos.com"}


def manifests() -> list[dict[str, Any]]:
    """As they stand in the files; `kubectl` is not everywhere."""
    return [document for path in FILES for document in documents(path.read_text())]


def kind(name: str) -> dict[str, Any]:
    [found] = [document for document in manifests() if document["kind"] == name]
    return found


def pods() -> list[dict[str, Any]]:
    return [kind(name)["spec"]["template"]["spec"] for name in ("Deployment", "Job")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_manifest_fits_its_schema(path: Any) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in documents(path.read_text()):
        if document["apiVersion"].partition("/")[0] in CUSTOM:
            pytest.skip("a custom resource: its schema is the operator's")
        kubernetes_validate.validate(document, "1.32", strict=True)


def test_every_file_is_used() -> None:
    def used(folder: Any) -> set[Any]:
        text = yaml.safe_load((folder / "kustomization.yaml").read_text())
        below = [used(folder / name) for name in text.get("components", [])]
        return {folder / name for name in text.get("resources", [])}.union(*below)

    assert used(FOLDER) | used(FOLDER / "ingress") == set(FILES)


def test_the_pieces_name_one_another() -> None:
    """Ingress → Service → the container's port; the network lets out to each database port that the docs name."""
    [path] = kind("Ingress")["spec"]["rules"][0]["http"]["paths"]
    service = kind("Service")
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    assert path["path"] == "/webhooks/", "nothing else is open to the world"
    assert service["spec"]["selector"].items() <= kind("Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == pods()[0]["containers"][0]["ports"][0]["name"]
    out = kind("NetworkPolicy")["spec"]["egress"]
    assert {each["port"] for each in out[1]["ports"]} == {5432, 6432, 6543, 443}
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in out[0]["to"]


def test_pods_wait_for_the_migration_that_is_applied_with_them() -> None:
    environ = kind("ConfigMap")["data"] | {"DATABASE_URL": "postgresql://u@h/d"}
    assert load_environment(environ, None).await_migration is True


def test_kustomize_builds_them_all() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    done = run("kubectl", "kustomize", FOLDER)
    assert done.returncode == 0, done.stderr
    built = list(documents(done.stdout))
    assert sorted([*(each["kind"] for each in built), "Ingress"]) == sorted(each["kind"] for each in manifests())
    assert {each["metadata"].get("namespace", "order-listener") for each in built} == {"order-listener"}
    images = re.findall(r"image: (\S+)", done.stdout)
    assert len(images) == 2
    assert all(":" in image for image in images), "a tag, not latest"


def test_containers_are_confined() -> None:
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_a_pod_gets_more_time_than_the_service_takes_to_stop() -> None:
    shutdown_s = float(kind("ConfigMap")["data"]["LISTENER_SHUTDOWN_TIMEOUT"])
    [pre_stop] = re.findall(r"sleep\((\d+)\)", str(pods()[0]["containers"][0]["lifecycle"]["preStop"]))
    assert pods()[0]["terminationGracePeriodSeconds"] >= float(pre_stop) + shutdown_s + 5 + 5


def test_probes_ask_what_they_mean() -> None:
    """A database that is away makes a pod unready, and must not have it killed."""
    container = pods()[0]["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert paths == {"livenessProbe": "/livez", "readinessProbe": "/readyz", "startupProbe": "/livez"}
    assert container["ports"] == [{"name": "http", "containerPort": 8080}]


def test_settings_have_names_that_the_service_knows() -> None:
    known = {str(field.alias) for field in Environment.model_fields.values()}
    assert kind("ConfigMap")["data"].keys() <= known


def test_everything_selects_the_pods() -> None:
    labels = kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for name in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert kind(name)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    job = kind("Job")["spec"]["template"]["metadata"]["labels"]
    [wanted] = kind("NetworkPolicy")["spec"]["podSelector"]["matchExpressions"]
    assert {labels[wanted["key"]], job[wanted["key"]]} == set(wanted["values"])
    assert labels["app.kubernetes.io/name"] == "order-listener", (
        "PodMonitor's jobLabel: the rules say job=order-listener"
    )
    assert kind("PodMonitor")["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert kind("ScaledObject")["spec"]["scaleTargetRef"]["name"] == kind("Deployment")["metadata"]["name"]
    assert "replicas" not in kind("Deployment")["spec"]


def test_all_replicas_fit_into_two_hundred_connections() -> None:
    pool = int(kind("ConfigMap")["data"]["LISTENER_POOL_MAX"])
    most = kind("ScaledObject")["spec"]["maxReplicaCount"] + 1  # a rolling update has one more
    assert most * (pool + 1 + 1 + 2) < 200 / 2


def test_the_scaling_query_is_the_age_of_the_oldest_due_row(database: Database) -> None:
    [trigger] = kind("ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]

    def waiting_s() -> float:
        [(value,)] = database.execute(query)
        return float(value)

    assert waiting_s() == 0
    database.execute(
        "INSERT INTO orders_inbox (source, order_number, payload, scheduled_at) VALUES"
        " ('shop', '1', '{}', now() - interval '40 s'), ('shop', '2', '{}', now() + interval '1 h')"
    )
    assert 40 <= waiting_s() < 300
    early = "INSERT INTO {} VALUES ('http', 'x', '-infinity')"  # due since ever: no age that can be scaled by
    database.execute(early.format("orders_inbox (source, order_number, scheduled_at)"))
    database.execute(early.format("import_files (source, name, scheduled_at)"))
    assert 40 <= waiting_s() < 300
    database.execute(
        "INSERT INTO import_files (source, name, scheduled_at) VALUES ('http', 'x', now() - interval '1 h')"
    )
    assert waiting_s() >= 3600
    database.execute("DELETE FROM import_files")
    database.execute(
        "INSERT INTO api_budgets (connector, account, call_limit, window_s, remaining, paused_until)"
        " VALUES ('shipstation', 'a', 40, 60, 40, now() + interval '1 h')"
    )
    assert waiting_s() == 0, "rows of a paused account call nobody"


def test_prometheus_rules_fit_the_operator() -> None:
    """The runbook indents each file below `spec:`; a rule's labels must be texts there."""
    for path in RULES:
        text = "spec:\n" + "".join(f"  {line}" for line in path.read_text().splitlines(keepends=True))
        spec = yaml.safe_load(text)["spec"]
        assert spec.keys() == {"groups"}
        for group in spec["groups"]:
            for rule in group["rules"]:
                assert all(isinstance(value, str) for value in rule.get("labels", {}).values())
                assert all(isinstance(value, str) for value in rule.get("annotations", {}).values())
