"""The manifests in deploy/kubernetes fit together, and a pod has no privilege."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.deployment import KUBERNETES, ROOT, compose, environments, unit

from dutchdoor.model.durations import read_duration
from dutchdoor.server.settings import BY_NAME, SETTINGS
from dutchdoor.web.wellknown import ROUTES


def kubernetes() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((KUBERNETES / "dutchdoor.yaml").read_text())}


@pytest.fixture(scope="module")
def built() -> Iterator[list[dict[str, Any]]]:
    """What `kubectl apply --kustomize` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, for `kubectl kustomize`")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(KUBERNETES, Path(folder) / "kubernetes"))
        kustomization = yaml.safe_load((copy / "kustomization.yaml").read_text())
        (copy / "secrets").mkdir(exist_ok=True)
        for file in kustomization["secretGenerator"][0]["files"]:
            (copy / file).write_text("x")
        text = subprocess.run(["kubectl", "kustomize", copy], capture_output=True, text=True, check=True).stdout
        yield list(yaml.safe_load_all(text))


def test_the_kustomization_builds_what_its_parts_name(built: list[dict[str, Any]]) -> None:
    """The built Deployment has the image, the settings under their hashed name, and each secret that it mounts."""
    by_kind = {each["kind"]: each for each in built}
    assert set(by_kind) == {*kubernetes(), "ConfigMap", "Secret"}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "registry.example.com/dutchdoor:0.1.0"
    assert container["envFrom"] == [{"configMapRef": {"name": by_kind["ConfigMap"]["metadata"]["name"]}}]
    assert by_kind["ConfigMap"]["data"] == environments()["kubernetes"]
    mounted = {Path(value).name for name, value in environments()["kubernetes"].items() if name.endswith("_FILE")}
    assert mounted <= set(by_kind["Secret"]["data"])
    assert {each["metadata"].get("namespace", "dutchdoor") for each in built} == {"dutchdoor"}


@pytest.mark.long
def test_the_manifest_has_the_form_of_its_kinds(built: list[dict[str, Any]], tmp_path: Path) -> None:
    """Each built document is valid, strictly, against the schemas of the oldest and the newest Kubernetes."""
    if not (ROOT / ".tools" / "uv" / "bin" / "uv").is_file():
        pytest.skip("needs uv, which `make test` installs")
    subprocess.run(["make", "--silent", ".tools/kubernetes/.ready"], cwd=ROOT, check=True)
    file = tmp_path / "built.yaml"
    file.write_text(yaml.safe_dump_all(built))
    for version in ("1.30", "1.37"):
        program = [ROOT / ".tools" / "kubernetes" / "bin" / "kubernetes-validate", "--strict", "-k", version, file]
        found = subprocess.run(program, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


def test_prometheus_can_send_the_metrics_token() -> None:
    """No annotation asks for a scrape without a token. The PodMonitor names the port, the secret and the pods."""
    deployment = kubernetes()["Deployment"]["spec"]["template"]
    assert "annotations" not in deployment["metadata"]
    monitor = yaml.safe_load((KUBERNETES / "pod-monitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= deployment["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in deployment["spec"]["containers"][0]["ports"]}
    secret = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["secretGenerator"][0]
    named = endpoint["authorization"]["credentials"]
    assert named["name"] == secret["name"]
    assert f"secrets/{named['key']}" in secret["files"]
    assert secret["options"] == {"disableNameSuffixHash": True}


def test_the_probes_are_endpoints_that_answer_anyone() -> None:
    """Each probe asks an endpoint that is there, needs no proof and looks at no host name; alive is not ready."""
    container = kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    probes = {route.path for route in ROUTES if route.probe}
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {each["path"] for each in asked.values()} <= probes
    assert asked["livenessProbe"]["path"] == "/livez"  # else an outage of the database restarts every node
    assert asked["readinessProbe"]["path"] == "/readyz"
    (port,) = container["ports"]
    assert all(each["port"] == port["name"] and each["scheme"] == "HTTPS" for each in asked.values())
    assert "127.0.0.1:8000/readyz" in str(compose()["services"]["node1"]["healthcheck"]["test"])


def test_a_rolling_update_drops_nothing() -> None:
    """A new node is ready before an old one is stopped; a node that goes serves until each proxy knows, and is killed
    only after it had the time to answer what it was asked.
    """
    spec = kubernetes()["Deployment"]["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = spec["template"]["spec"]
    drains = read_duration(environments()["kubernetes"]["DUTCHDOOR_HANDOVER_FOR"])
    assert drains >= 5
    assert pod["terminationGracePeriodSeconds"] >= drains + float(str(BY_NAME["stop_for"].default)) + 5
    assert spec["replicas"] > kubernetes()["PodDisruptionBudget"]["spec"]["minAvailable"] > 0
    takes = sum(float(str(BY_NAME[name].default)) for name in ("handover_for", "stop_for"))
    assert float(unit()["TimeoutStopSec"][0]) > takes
    assert read_duration(compose()["services"]["node1"]["stop_grace_period"]) > takes


def test_a_pod_has_no_privilege_and_no_secret_in_its_environment() -> None:
    """A pod runs without a user name, can raise itself to nothing, writes nowhere but /tmp, and gets its secrets as
    files.
    """
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
    hidden = {setting.variable for setting in SETTINGS if setting.hidden}
    assert "env" not in container
    for name, value in environments()["kubernetes"].items():
        assert name not in hidden
        if value.startswith("/run/"):
            assert mounts[str(Path(value).parent)] in secrets
    labels = kubernetes()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes()["Service"]["spec"]["selector"].items() <= labels.items()
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert kubernetes()[kind]["spec"]["selector"]["matchLabels"].items() <= labels.items()
