"""deploy/kubernetes fits the software: its ports, paths, settings, roles and times are those that there are."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.certificates import Authority
from tests.support.server import ROOT, TokMeshProcess, run_command
from tokmesh import __version__
from tokmesh.cluster.nats_conf import make_nkey
from tokmesh.config import load

FOLDER = ROOT / "deploy" / "kubernetes"
PAGE = (FOLDER / "README.md").read_text()
DOCUMENTS: list[dict[str, Any]] = [
    document for path in sorted(FOLDER.glob("*.yaml")) for document in yaml.safe_load_all(path.read_text())
]


def the(kind: str, name: str = "tokmesh") -> dict[str, Any]:
    """The one object of that kind and name."""
    (found,) = [each for each in DOCUMENTS if each["kind"] == kind and each.get("metadata", {}).get("name") == name]
    return found


POD: dict[str, Any] = the("StatefulSet")["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
CONFIG = the("ConfigMap")["data"]["tokmesh.yaml"]


def environment(pod_name: str) -> dict[str, str]:
    """What a pod's container has, as Kubernetes puts it together."""
    values = {"POD_NAME": pod_name}
    for each in CONTAINER["env"]:
        if "value" in each:
            values[each["name"]] = re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], each["value"])
        else:
            assert each["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    return values


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """The configuration file of a pod, and its environment, with the mounts below a folder of ours."""
    places = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    text, values = CONFIG, environment("tokmesh-0")
    for name, place in places.items():
        here = tmp_path / name
        here.mkdir()
        text = text.replace(place, str(here))
        values = {key: value.replace(place, str(here)) for key, value in values.items()}
    secret = next(each for each in POD["volumes"] if each["name"] == "nats")["secret"]["secretName"]
    assert set(the("Secret", secret)["stringData"]) == {"credentials", "ca.pem"}
    Authority(tmp_path / "nats", "ca")
    credentials = tmp_path / "nats" / "credentials"
    credentials.write_text(make_nkey().seed)
    credentials.chmod(next(each for each in POD["volumes"] if each["name"] == "nats")["secret"]["defaultMode"])
    file = tmp_path / "config" / "tokmesh.yaml"
    file.write_text(text)
    assert f"--config={places['config']}/{file.name}" == CONTAINER["args"][1]
    return file, values


def test_the_configuration_is_good_where_it_is_mounted(mounted: tuple[Path, dict[str, str]]) -> None:
    file, values = mounted
    del values["POD_NAME"]
    done = run_command("config", "check", f"--config={file}", env=values)
    assert done.returncode == 0, done.stderr
    settings = load([], environment=values, config_file=file).settings
    assert (settings.cluster.enabled, settings.cluster.node_id) == (True, "tmnd-tokmesh-0")
    assert settings.cluster.nats.replicas <= len(settings.cluster.nats.servers)
    assert POD["terminationGracePeriodSeconds"] * 1000 > settings.server.shutdown.timeout_ms + 5000
    assert settings.server.http.address.port == CONTAINER["ports"][0]["containerPort"]
    assert not settings.server.http.address.is_loopback
    assert settings.storage.dir.parent.name == "data"  # below the volume, never its root
    file.write_text(file.read_text().replace("credentials_file", "credential_file"))
    assert "cluster.nats.credential_file" in run_command("config", "check", f"--config={file}", env=values).stderr  # it bites


def test_a_node_id_follows_from_every_pod_name(mounted: tuple[Path, dict[str, str]]) -> None:
    file, _ = mounted
    for number in (0, 2, 63):
        values = {"TOKMESH_CLUSTER_NODE_ID": environment(f"tokmesh-{number}")["TOKMESH_CLUSTER_NODE_ID"]}
        assert load([], environment=values, config_file=file).settings.cluster.node_id == f"tmnd-tokmesh-{number}"


def test_probes_and_scrapes_ask_for_what_a_server_answers(tmp_path: Path) -> None:
    paths = {name: CONTAINER[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    (endpoint,) = the("ServiceMonitor")["spec"]["endpoints"]
    key = the("Secret", endpoint["authorization"]["credentials"]["name"])["stringData"]
    assert endpoint["authorization"]["credentials"]["key"] in key
    with TokMeshProcess(tmp_path) as server:
        for path in paths.values():
            assert server.request("GET", path, key=None)[0] == 200
        metrics = server.create_key("metrics")
        assert endpoint["authorization"]["type"] == "Bearer"  # as a request of the harness presents a key
        assert server.request("GET", endpoint["path"], key=metrics)[0] == 200


def test_names_and_ports_meet() -> None:
    stateful = the("StatefulSet")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"] == labels
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert the("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    names = {each["name"] for each in CONTAINER["ports"]}
    for name in ("tokmesh", stateful["serviceName"]):
        service = the("Service", name)
        assert service["spec"]["selector"] == labels and {each["targetPort"] for each in service["spec"]["ports"]} <= names
    headless = the("Service", stateful["serviceName"])
    assert headless["spec"]["clusterIP"] == "None"
    monitored = the("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitored.items() <= headless["metadata"]["labels"].items()
    assert not monitored.items() <= the("Service")["metadata"]["labels"].items()  # each node once
    volumes = {each["name"] for each in POD["volumes"]} | {each["metadata"]["name"] for each in stateful["volumeClaimTemplates"]}
    assert {each["name"] for each in CONTAINER["volumeMounts"]} == volumes
    assert set(the_kustomized()) == {path.name for path in FOLDER.glob("*.yaml")} - {
        "kustomization.yaml", "servicemonitor.yaml", "secrets.example.yaml",
    }  # fmt: skip


def the_kustomized() -> list[str]:
    names: list[str] = next(each for each in DOCUMENTS if each["kind"] == "Kustomization")["resources"]
    return names


def test_after_all_were_down_no_node_waits_for_another_to_be_ready() -> None:
    assert the("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"
    assert the("StatefulSet")["spec"]["replicas"] % 2 == 1


def test_the_pod_is_the_images_user_and_may_write_to_its_volume_only() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"--uid (\d+) --gid \d+ --home-dir /var/lib/tokmesh", dockerfile)
    security = POD["securityContext"]
    assert security["runAsNonRoot"] is True
    assert {security[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
    assert security["fsGroupChangePolicy"] == "OnRootMismatch"
    own = CONTAINER["securityContext"]
    assert own["readOnlyRootFilesystem"] is True and own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert all(each.get("readOnly") for each in CONTAINER["volumeMounts"] if each["name"] != "data")
    assert CONTAINER["image"] == f"tokmesh:{__version__}" and "cluster]" in dockerfile
    assert 'ENTRYPOINT ["tokmesh"]' in dockerfile and CONTAINER["args"][0] == "serve"


def test_the_pages_commands_exist() -> None:
    commands = re.findall(r"tokmesh-0 -- tokmesh ([a-z]+) ([a-z]+)", PAGE)
    assert len(commands) >= 4
    for command, action in commands:
        assert run_command(command, action, "--help").returncode == 0
    for file in re.findall(r"deploy/kubernetes/([a-z]+\.yaml)", PAGE):
        assert (FOLDER / file).is_file()
    for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL):
        subprocess.run(["sh", "-n", "-c", block], check=True)
