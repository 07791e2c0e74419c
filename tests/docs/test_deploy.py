"""What `deploy/` shows is true of this program: every setting in it exists and is accepted, every probe is answered,
and a real nginx runs the example in front of real servers. Docker and Kubernetes are not needed, and not tried.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import click
import pytest
import yaml
from tests.ports import free_port
from tests.server.certificates import write_certificate
from tests.server.running import Running, clean_environment, command, eventually, running

from dutchdoor.model.audit_events import EventName
from dutchdoor.model.durations import read_duration
from dutchdoor.model.master_key import MasterKey
from dutchdoor.server.check import findings
from dutchdoor.server.cli import cli
from dutchdoor.server.config import read_settings
from dutchdoor.server.factory import sqlite_file
from dutchdoor.server.metrics import Counters
from dutchdoor.server.serve import refuse_unsafe
from dutchdoor.server.settings import BY_NAME, SETTINGS
from dutchdoor.stores.file_access import is_closed_to_others
from dutchdoor.web.wellknown import ROUTES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and not path.name.startswith("."))
HOST = "auth.example.com"

SECRETS = {
    "dutchdoor.keys": "{key}",
    "database_url": "postgresql://dutchdoor:3c8f1f0f@postgres:5432/dutchdoor",
    "redis_url": "redis://:77aa31e5@valkey:6379/0",
    "mail_url": "smtps://user:password@mail.example.com:465",
    "metrics_token": "b4f0c3a1d2e94f6f8a7b",
}
"""What the heads of the files tell to put into each secret."""


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text()
    read: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{DUTCHDOOR_PUBLIC_URL:\?[^}]*\}", f"https://{HOST}", text))
    return read


def kubernetes() -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all((KUBERNETES / "dutchdoor.yaml").read_text())}


def pairs(text: str) -> dict[str, str]:
    """Read `NAME=value` lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def unit() -> dict[str, list[str]]:
    """The systemd unit's lines, by name, over all sections."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "dutchdoor.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def environments() -> dict[str, dict[str, str]]:
    """The environment that each example gives to the program."""
    return {
        **{name: each["environment"] for name, each in compose()["services"].items() if name.startswith("node")},
        "kubernetes": pairs((KUBERNETES / "settings.env").read_text()),
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_named_in_deploy_exists(path: Path) -> None:
    """No example names a variable or an option that this program does not have."""
    text = path.read_text()
    known = {setting.variable for setting in SETTINGS}
    known |= {f"{setting.variable}_FILE" for setting in SETTINGS if setting.hidden}
    assert set(re.findall(r"\bDUTCHDOOR_[A-Z_]*[A-Z]\b", text)) <= known
    options = {"--config", *(setting.option for setting in SETTINGS)}
    for line in text.splitlines():
        if re.search(r"\bdutchdoor (serve|check|migrate)\b", line) or "dutchdoor runs with" in line:
            assert set(re.findall(r"(?<!\S)`?(--[a-z-]+)", line)) <= options, line
    commands = set(re.findall(r"\bdutchdoor (serve|check|migrate|key|user|verifier|restored|client)\b", text))
    assert commands <= set(cli.list_commands(click.Context(cli)))


def files_for(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Give every file that an environment names a place here, with what belongs into it."""
    write_certificate(folder, HOST)
    (folder / "key.pem").chmod(0o600)
    placed = dict(environment)
    for variable, value in environment.items():
        if variable.endswith("_FILE"):
            file = folder / Path(value).name
            file.write_text(SECRETS[file.name].format(key=MasterKey.generate().text()))
            file.chmod(0o600)
            placed[variable] = str(file)
    if "DUTCHDOOR_TLS_CERT" in placed:
        placed |= {"DUTCHDOOR_TLS_CERT": str(folder / "cert.pem"), "DUTCHDOOR_TLS_KEY": str(folder / "key.pem")}
    return placed


def test_the_units_settings_are_accepted_and_safe(tmp_path: Path) -> None:
    """The file that the unit names is read, would be served, and `dutchdoor check` finds nothing in it that matters."""
    text = (DEPLOY / "dutchdoor.toml").read_text()
    for name in ("dutchdoor.keys", "mail_url"):
        file = tmp_path / name
        file.write_text(SECRETS[name].format(key=MasterKey.generate().text()))
        file.chmod(0o600)
        assert f'"/etc/dutchdoor/{name}"' in text
    file = tmp_path / "dutchdoor.toml"
    file.write_text(text.replace("/etc/dutchdoor", str(tmp_path)))
    settings = read_settings({"config": str(file)}, {})
    refuse_unsafe(settings)
    assert [each.what for each in findings(settings) if each.matters] == []
    allowed = {line.partition(":")[2] for line in unit()["SocketBindAllow"]}
    assert allowed == {str(settings.port), str(settings.metrics_port)}
    assert unit()["SocketBindDeny"] == ["any"]
    state = Path("/var/lib") / unit()["StateDirectory"][0]
    assert str(sqlite_file(settings)).startswith(f"{state}/")
    (started,) = unit()["ExecStart"]
    assert started.endswith("dutchdoor serve --config /etc/dutchdoor/dutchdoor.toml")


def test_the_page_installs_what_the_unit_says() -> None:
    """The commands of the page are those at the top of the unit, word for word."""
    page = (ROOT / "docs" / "operating" / "operating.md").read_text()
    head = (DEPLOY / "dutchdoor.service").read_text().partition("[Unit]")[0]
    (block,) = re.findall(r"```sh\n(make wheel\n.*?)```", page, re.DOTALL)
    assert "".join(f"#   {line}\n" for line in block.splitlines()) in head
    (command_line,) = re.findall(r"^#   (runuser .*)$", head, re.MULTILINE)
    assert f"    {command_line}\n" in page


NAMES = {
    r"/etc/dutchdoor/([\w.-]+\w)": {"dutchdoor.toml", "dutchdoor.keys", "mail_url", "database_url"},
    r"--config (?:\S*/)?([\w.-]+\.toml)": {"dutchdoor.toml"},
    r"sqlite:////(?!absolute)\S*?/([\w.-]+\.db)": {"dutchdoor.db"},
    r"postgres(?:ql)?://(\w+)[:@]\S*/\w": {"dutchdoor", "user"},
    r"key master > (?:secrets/)?([\w.-]+)": {"dutchdoor.keys"},
    r"DUTCHDOOR_MASTER_KEY_FILE[=:] ?\S*/([\w.-]+)": {"dutchdoor.keys"},
    r"(?:metrics-port |metrics_port = |127\.0\.0\.1:)(9\d{3})": {"9464"},
}


def test_each_file_of_a_deployment_has_one_name() -> None:
    """The pages, the files of deploy/ and the examples in the help texts name each file, and the port of the metrics,
    as the unit does: an operator who goes from one page to another looks for no file that is not there.
    """
    pages = [
        *(ROOT / "docs").rglob("*.md"),
        *DEPLOY.rglob("*.*"),
        *(ROOT / "src" / "dutchdoor" / "server").rglob("*.py"),
    ]
    text = "\n".join(page.read_text() for page in [*pages, ROOT / "README.md", ROOT / "llms.txt"])
    for pattern, names in NAMES.items():
        assert set(re.findall(pattern, text)) == names, pattern


@pytest.mark.parametrize("name", environments())
def test_every_example_is_accepted_and_safe(name: str, tmp_path: Path) -> None:
    """The program reads each example, would serve it, and `dutchdoor check` finds nothing in it that matters."""
    settings = read_settings({}, files_for(tmp_path, environments()[name]))
    refuse_unsafe(settings)
    assert [each.what for each in findings(settings) if each.matters] == []


def test_a_secret_that_a_platform_hands_over_is_read(tmp_path: Path) -> None:
    """A file of root's that only our group may read is closed, as Kubernetes and systemd make them; one of our own that
    the group may read is not, and neither is one that the world may.
    """
    file = tmp_path / "dutchdoor.keys"
    file.write_text("x")
    file.chmod(0o440)
    assert not is_closed_to_others(file.stat())
    file.chmod(0o600)
    assert is_closed_to_others(file.stat())
    for mode, closed in ((0o100440, True), (0o100400, True), (0o100444, False), (0o100460, False)):
        found = os.stat_result((mode, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
        assert is_closed_to_others(found) is closed


def test_every_metric_in_the_pages_exists() -> None:
    """The pages for operators name no metric, event or setting that this program does not have."""
    page = "\n".join(file.read_text() for file in sorted((ROOT / "docs" / "operating").glob("*.md")))
    there = {metric.name for metric in Counters().registry.collect()}
    named = {name.removesuffix("_total") for name in re.findall(r"`(dutchdoor_[a-z_]+)", page)}
    assert len(named) > 10
    assert named <= there
    assert set(re.findall(r"`((?:refresh|key|log|verifier)_[a-z]+)`", page)) <= set(get_args(EventName))
    commands = set(re.findall(r"`dutchdoor ([a-z]+)", page)) - {"serve"}
    assert commands <= set(cli.list_commands(click.Context(cli)))


# --- compose ---------------------------------------------------------------------------------------------------------


def test_compose_fits_together() -> None:
    """Nodes trust nginx's address and no one else's, secrets and networks that are used are declared, and stopping
    waits for what is being answered.
    """
    whole = compose()
    services = whole["services"]
    nodes = {name: each for name, each in services.items() if name.startswith("node")}
    nginx = services["nginx"]
    hosts = dict(entry.split(":") for entry in nginx["extra_hosts"])
    assert len(nodes) == 3
    for name, node in nodes.items():
        assert node["environment"]["DUTCHDOOR_PROXY"] == nginx["networks"]["inside"]["ipv4_address"]
        assert hosts[name] == node["networks"]["inside"]["ipv4_address"]
        assert read_duration(node["stop_grace_period"]) > float(str(BY_NAME["stop_for"].default))
        assert f"{name}:{node['environment']['DUTCHDOOR_PORT']}" in (DEPLOY / "nginx.conf").read_text()
        assert node["user"].split(":")[0] != "0"
    for service in services.values():
        assert set(service.get("secrets", ())) <= set(whole["secrets"])
        assert set(service["networks"]) <= set(whole["networks"])
        assert "ports" not in service or service is nginx
    assert (DEPLOY / services["node1"]["build"]["context"] / services["node1"]["build"]["dockerfile"]).is_file()


def test_compose_needs_no_value_that_its_head_does_not_give() -> None:
    """Each variable is written to `.env` first, where `docker compose logs` finds it too; each secret is created."""
    text = (DEPLOY / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{([A-Z_]+)", text))
    assert needed == set(re.findall(r"^# +echo ([A-Z_]+)=\S+ > \.env ", text, re.MULTILINE))
    head = text[: text.index("name: dutchdoor")]
    assert all(re.search(rf"(> |\s){re.escape(name)}\b", head) for name in compose()["secrets"])


def test_the_image_copies_what_is_there() -> None:
    """What the Dockerfile copies is let through, and is in the repository or what `make wheel` builds. Its user is not
    root.
    """
    text = (DEPLOY / "Dockerfile").read_text()
    let_through = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for copied in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE):
        for each in copied.split()[:-1]:
            assert (ROOT / each).exists() or each == "dist/*.whl", each
            assert any(each == pattern or Path(each).match(pattern) for pattern in let_through), each
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    assert text.count("pip install") == text.count("--require-hashes") + text.count("--no-index --no-deps") == 3
    built = re.search(r"^wheel:.*\n(?:\t.*\n)+", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert built is not None
    assert "rm -rf dist" in built[0], "an older wheel would be installed too"


@pytest.mark.long
@pytest.mark.timeout(900)  # it loads some twenty packages, three times
def test_the_image_and_the_unit_install_a_program_that_runs(tmp_path: Path) -> None:
    """The commands of the Dockerfile's build stage, run in a plain directory on the wheel of `make wheel`, install a
    program that accepts the example; the head of the unit installs in the same way.
    """
    uv = ROOT / ".tools" / "uv" / "bin" / "uv"
    if not uv.is_file():
        pytest.skip("needs uv, which `make test` installs")
    text = (DEPLOY / "Dockerfile").read_text()
    (tmp_path / "requirements").mkdir()
    for name in ("serve.txt", "otel.txt"):
        shutil.copy(ROOT / "requirements" / name, tmp_path / "requirements")
    build = [uv, "build", "--quiet", "--wheel", "--build-constraints", "requirements/build.txt", "--require-hashes"]
    subprocess.run([*build, "--out-dir", tmp_path / "dist"], cwd=ROOT, check=True)
    (stage,) = re.findall(r"^RUN ((?:.*\\\n)+.*)$", text, re.MULTILINE)
    steps = stage.replace("\\\n", "").replace("/opt/", f"{tmp_path}/opt/").replace("python -m", f"{sys.executable} -m")
    patient = {**os.environ, "PIP_RETRIES": "10", "PIP_TIMEOUT": "60"}  # with a network that is slow for a while
    subprocess.run(steps, shell=True, cwd=tmp_path, check=True, capture_output=True, env=patient)
    placed = files_for(tmp_path, environments()["kubernetes"])
    program = tmp_path / "opt" / "dutchdoor" / "bin" / "dutchdoor"
    found = subprocess.run([program, "check"], env=placed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    python = program.with_name("python")
    subprocess.run([python, "-c", "import dutchdoor.server.traces"], check=True, cwd=tmp_path)  # for --traces
    head = (DEPLOY / "dutchdoor.service").read_text().partition("[Unit]")[0]
    for install in re.findall(r"pip install .*?(?:serve\.txt|\.whl)", stage.replace("--no-cache-dir ", "")):
        assert f"/opt/dutchdoor/bin/{install}" in head


# --- Kubernetes ------------------------------------------------------------------------------------------------------


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


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_the_unit_is_one_and_is_closed(tmp_path: Path) -> None:
    """The unit has nothing that systemd finds wrong, and its exposure is low."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    # Its program is not installed here, and verify looks for it.
    text = (DEPLOY / "dutchdoor.service").read_text().replace("/opt/dutchdoor/bin/dutchdoor", "/bin/true")
    assert "\nStartLimitIntervalSec=0\n" in text, "it would be given up after five starts without its database"
    file = tmp_path / "dutchdoor.service"
    file.write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:]


# --- nginx -----------------------------------------------------------------------------------------------------------


class Site(NamedTuple):
    """nginx.conf at work: its TLS port, the nodes behind it, and what the application behind it was sent."""

    port: int
    nodes: list[Running]
    environment: dict[str, str]
    seen: list[dict[str, str]]
    folder: Path

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(self.connect()) as connection:
            return ask_on(connection, method, path, body, headers)

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        # The certificate is for the public name, as the Host header is.
        connection.sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), 20), server_hostname=HOST
        )
        return connection


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    sent = {"host": HOST, **(headers or {})}
    encoded = None if body is None else json.dumps(body)
    if encoded is not None:
        sent["content-type"] = "application/json"
    connection.request(method, path, encoded, sent)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


class Application(http.server.BaseHTTPRequestHandler):
    """Something behind nginx that says what it was sent."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815 - the name that the base class looks for

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def application(seen: list[dict[str, str]]) -> Iterator[int]:
    handler = type("Seeing", (Application,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def as_here(text: str, folder: Path, ports: list[int], tls: int, plain: int, app: int) -> str:
    """The shipped file with this machine's ports and paths, and nothing else changed."""
    for number in (1, 2, 3):
        line = f"    server node{number}:8000 max_fails=1 fail_timeout=1s;\n"
        assert text.count(line) == 2
        there = number <= len(ports)
        text = text.replace(line, line.replace(f"node{number}:8000", f"127.0.0.1:{ports[number - 1]}") if there else "")
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{tls}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "/run/secrets/tls_cert.pem": str(folder / "cert.pem"),
        "/run/secrets/tls_key.pem": str(folder / "key.pem"),
        "/var/log/nginx/access.log": str(folder / "access.log"),
        "application:9000": f"127.0.0.1:{app}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    if nginx_version() < (1, 25, 1):
        assert "\n    http2 on;\n" in text
        text = text.replace("    http2 on;\n", "").replace(f"{tls} ssl;", f"{tls} ssl http2;")
    return re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)


def nginx_version() -> tuple[int, ...]:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/([0-9.]+)", said)
    assert found, said
    return tuple(map(int, found[1].split(".")))


@contextlib.contextmanager
def nginx(folder: Path, text: str, tls: int) -> Iterator[None]:
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\n{temporary}{text}\n}}\n"
    )
    log = folder / "nginx.out"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")], stdout=out, stderr=out
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text() + (folder / "error.log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tls), 0.2):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Two nodes over one database, nginx as shipped in front of them, and an application."""
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dutchdoor-")))
        folder.chmod(0o755)  # nginx started by root works as another user
        write_certificate(folder, HOST)
        tls, plain = free_port(), free_port()
        environment = {
            # The public URL with its port, as people use it here; most tests ask as if the port were 443.
            "DUTCHDOOR_PUBLIC_URL": f"https://{HOST}:{tls}",
            "DUTCHDOOR_OTHER_HOST": HOST,
            "DUTCHDOOR_PROXY": "127.0.0.1",
            "DUTCHDOOR_DATABASE": f"sqlite:///{folder}/door.db",
            "DUTCHDOOR_MASTER_KEY_FILE": str(folder / "keys"),
            "DUTCHDOOR_ACCESS_LOG": "true",
        }
        nodes = [stack.enter_context(running(folder, environment=environment)) for _ in range(2)]
        seen: list[dict[str, str]] = []
        app = stack.enter_context(application(seen))
        shipped = (DEPLOY / "nginx.conf").read_text()
        text = as_here(shipped, folder, [node.port for node in nodes], tls, plain, app)
        stack.enter_context(nginx(folder, text, tls))
        yield Site(tls, nodes, environment, seen, folder)


POLL = "/auth/revocations/poll"
ACCOUNT = {"email": "ada@example.com", "password": "a quiet heron at dusk"}


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    assert site.ask("POST", "/auth/register", ACCOUNT)[0] in {201, 202}
    status, _, body = site.ask("POST", "/auth/login", {**ACCOUNT, "mode": "hybrid", "transport": "body"})
    assert status == 200, body
    found: str = json.loads(body)["access_token"]
    return found


def test_nginx_names_the_client_and_no_client_names_itself(site: Site) -> None:
    """Behind nginx.conf the audit log has the connection's address; a client's own forwarding headers change nothing
    and are no error.
    """
    claims = {
        "x-forwarded-for": "203.0.113.9",
        "x-real-ip": "203.0.113.9",
        "forwarded": "for=203.0.113.9;proto=http",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "http",
    }
    account = {"email": "grace@example.com", "password": "a quiet heron at dawn"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    status, headers, body = site.ask("POST", "/auth/login", {**account, "mode": "session"}, claims)
    assert status == 200, body
    assert "__Host-dd_session=" in str(headers.get_all("set-cookie"))
    told = "".join(said for node in site.nodes for said in node.err)
    assert "203.0.113.9" not in told
    assert "address=127.0.0.1" in told


def test_nginx_asks_before_the_application_sees_anything(site: Site, token: str) -> None:
    """An application behind auth_request sees requests with a proof only, with headers that the client cannot write."""
    assert site.ask("GET", "/app/x")[0] == 401
    assert site.seen == []
    spoofed = {"x-auth-subject": "root", "x-auth-roles": "admin", "x-auth-token": "t", "x-auth-session": "s"}
    assert site.ask("GET", "/app/x", None, spoofed)[0] == 401
    assert site.seen == []
    status, _, _ = site.ask("GET", "/app/x", None, {"authorization": f"Bearer {token}", **spoofed})
    assert status == 200
    (sent,) = site.seen
    assert sent["x-auth-token"].count(".") == 2
    assert "root" not in sent["x-auth-subject"]
    assert "admin" not in sent.get("x-auth-roles", "")
    assert site.ask("GET", "/_check")[0] == 404
    site.seen.clear()


def test_nginx_tells_the_check_the_method(site: Site) -> None:
    """A cookie alone lets no POST of another site through to the application."""
    account = {"email": "mary@example.com", "password": "a quiet heron at noon"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    _, headers, _ = site.ask("POST", "/auth/login", {**account, "mode": "session"})
    cookie = "; ".join(line.split(";")[0] for line in headers.get_all("set-cookie") or [])
    site.seen.clear()
    assert site.ask("GET", "/app/x", None, {"cookie": cookie})[0] == 200
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie, "sec-fetch-site": "cross-site"})[0] == 403
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie})[0] == 403
    assert len(site.seen) == 1
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie, "sec-fetch-site": "same-origin"})[0] == 200
    site.seen.clear()


def test_nginx_lets_only_our_own_origin_open_a_websocket(site: Site) -> None:
    """A handshake by cookie reaches the application, with Upgrade and Connection, from our own origin alone."""
    account = {"email": "joan@example.com", "password": "a quiet heron at three"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    _, headers, _ = site.ask("POST", "/auth/login", {**account, "mode": "session"})
    cookie = "; ".join(line.split(";")[0] for line in headers.get_all("set-cookie") or [])
    site.seen.clear()
    handshake = {"cookie": cookie, "connection": "Upgrade", "upgrade": "websocket"}
    for origin in ({"origin": "https://forum.example.com"}, {"origin": "null"}, {}):
        assert site.ask("GET", "/app/socket", None, {**handshake, **origin})[0] == 403
    assert site.seen == []
    assert site.ask("GET", "/app/socket", None, {**handshake, "origin": f"https://{HOST}"})[0] == 200
    (sent,) = site.seen
    assert (sent["upgrade"], sent["connection"]) == ("websocket", "upgrade")
    site.seen.clear()


def test_nginx_passes_on_the_port_of_the_public_url(site: Site) -> None:
    """A site on another port than 443 is known by the host name with its port."""
    assert site.ask("GET", "/auth/me", None, {"host": f"{HOST}:{site.port}"})[0] == 401
    status, _, body = site.ask("GET", "/auth/me", None, {"host": f"{HOST}:1"})
    assert (status, json.loads(body)["code"]) == (400, "unknown_host")


def test_nginx_bounds_our_bodies_and_not_the_applications(site: Site, token: str) -> None:
    """A megabyte reaches the application behind the check, and no byte of it does without a proof; for dutchdoor's own
    endpoints nginx refuses it.
    """
    large = {"text": "x" * 1_000_000}
    proof = {"authorization": f"Bearer {token}"}
    assert site.ask("POST", "/app/upload", large, proof)[0] == 200
    assert site.seen.pop()["content-length"] == str(len(json.dumps(large)))
    assert site.ask("POST", "/app/upload", large)[0] == 401
    assert site.seen == []
    assert site.ask("POST", "/auth/login", large)[0] == 413


def test_nginx_gives_each_request_an_id(site: Site) -> None:
    """The id that nginx makes is in its log, in the response and in the node's log; a client's own is not used."""
    own = "client-1234567890"
    _, headers, _ = site.ask("GET", "/auth/me", None, {"x-request-id": own})
    given = str(headers["x-request-id"])
    assert re.fullmatch(r"[0-9a-f]{32}", given)
    eventually(lambda: any(f"request_id={given}" in node.said for node in site.nodes))
    eventually(lambda: given in (site.folder / "access.log").read_text())
    assert not any(own in node.said for node in site.nodes)


def test_nginx_says_503_where_no_node_answers(site: Site, token: str) -> None:
    """With no node up, the application is not asked, and the caller is asked to come back and not sent away."""
    folder, tls = site.folder / "alone", free_port()
    folder.mkdir()
    write_certificate(folder, HOST)
    text = as_here((DEPLOY / "nginx.conf").read_text(), folder, [free_port()], tls, free_port(), free_port())
    without = re.sub(
        r" *# --- an application behind it.*# --- the end of the application -+\n", "", text, flags=re.DOTALL
    )
    without = re.sub(r"\nupstream application \{.*?\n\}", "", without, flags=re.DOTALL)
    with nginx(folder, without, tls):  # as the guide says to cut it
        assert "application" not in re.sub("#.*|application/problem", "", without)
        status, headers, _ = site._replace(port=tls, folder=folder).ask("GET", "/app/x")
        assert (status, headers["retry-after"]) == (503, "1")
    with nginx(folder, text, tls):
        alone = site._replace(port=tls, folder=folder)
        for method, path in (("GET", "/app/x"), ("GET", "/auth/me"), ("POST", "/auth/refresh"), ("POST", POLL)):
            status, headers, body = alone.ask(method, path, None, {"authorization": f"Bearer {token}"})
            assert (status, headers["retry-after"]) == (503, "1"), path
            assert json.loads(body)["code"] == "unavailable"
            assert headers.get_all("set-cookie") is None


def test_a_poll_hangs_through_nginx_and_keeps_to_one_node(site: Site, token: str) -> None:
    """A follower's polls reach one node as long as its connection lives, hang there, and are answered the moment that
    a person logs out at any node.
    """
    made = subprocess.run(
        command("verifier", "add", "orders", "--json"),
        cwd=site.folder,
        env=clean_environment(site.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    proof = {"authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    poll = {"holder": "a" * 22, "log_epoch": 0, "applied_seq": 0, "wait_ms": 0}
    before = [polls_at(node) for node in site.nodes]
    with contextlib.closing(site.connect()) as connection:
        for _ in range(4):
            status, headers, body = ask_on(connection, "POST", "/auth/revocations/poll", poll, proof)
            assert status == 200, body
            assert headers["cache-control"] == "no-store"
            answer = json.loads(body)
            poll |= {"log_epoch": answer["log_epoch"], "applied_seq": answer["upto_seq"]}
        answers: list[tuple[float, dict[str, Any]]] = []

        def hang() -> None:
            found = json.loads(
                ask_on(connection, "POST", "/auth/revocations/poll", {**poll, "wait_ms": 2500}, proof)[2]
            )
            answers.append((time.monotonic(), found))

        hanging = threading.Thread(target=hang)
        hanging.start()
        for _ in range(2):  # at one node and at the other, whichever comes first
            _, _, body = site.ask("POST", "/auth/login", {**ACCOUNT, "mode": "hybrid", "transport": "body"})
            ended = {"authorization": f"Bearer {json.loads(body)['access_token']}"}
            assert site.ask("POST", "/auth/logout", None, {**ended, "prefer": "wait=0"})[0] in {200, 202}
        hanging.join(20)
    ((_, told),) = answers
    assert told["entries"]
    deadline = time.monotonic() + 60
    while sum(reached := [polls_at(node) - was for node, was in zip(site.nodes, before, strict=True)]) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sorted(reached) == [0, 5]


def polls_at(node: Running) -> int:
    return sum("route=/auth/revocations/poll" in line for line in list(node.err))


ROLLS = pytest.mark.parametrize(
    "rolls", [pytest.param(1, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.soak)], ids=str
)


@ROLLS
@pytest.mark.timeout(600)
def test_p25_a_rolling_restart_loses_no_request(site: Site, token: str, rolls: int) -> None:
    """Stop a node, start it, wait for `/readyz`, go on with the other: behind nginx reads are answered at the first
    try, and writes at the first or after `Retry-After`.
    """
    folder, tls, ports = site.folder / f"rolling{rolls}", free_port(), [free_port(), free_port()]
    folder.mkdir()
    write_certificate(folder, HOST)
    text = as_here((DEPLOY / "nginx.conf").read_text(), folder, ports, tls, free_port(), free_port())
    outcomes = rolled(site, site._replace(port=tls, folder=folder), nginx(folder, text, tls), ports, token, rolls)
    assert [tries for method, tries in outcomes if method == "GET" and tries != [200]] == []
    assert [tries for method, tries in outcomes if method == "POST" and tries not in ([200], [503, 200])] == []
    assert {method for method, _ in outcomes} == {"GET", "POST"}


@ROLLS
@pytest.mark.timeout(600)
def test_p25_behind_a_proxy_that_asks_readyz_no_request_needs_a_second_try(site: Site, token: str, rolls: int) -> None:
    """Behind HAProxy, as the page sets it up, each read and each write of a rolling restart is answered at the first
    try.
    """
    if shutil.which("haproxy") is None:
        pytest.skip("needs haproxy")
    folder, tls, ports = site.folder / f"haproxy{rolls}", free_port(), [free_port(), free_port()]
    folder.mkdir()
    write_certificate(folder, HOST)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    page = (ROOT / "docs" / "guides" / "nodes.md").read_text()
    (text,) = re.findall(r"```haproxy\n(.*?)```", page, re.DOTALL)
    for old, new in {
        ":443": f"127.0.0.1:{tls}",
        "/etc/haproxy/auth.example.com.pem": str(folder / "both.pem"),
        "10.0.0.11:8000": f"127.0.0.1:{ports[0]}",
        "10.0.0.12:8000": f"127.0.0.1:{ports[1]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    outcomes = rolled(site, site._replace(port=tls, folder=folder), haproxy(folder, text, tls), ports, token, rolls)
    assert [(method, tries) for method, tries in outcomes if tries != [200]] == []
    assert {method for method, _ in outcomes} == {"GET", "POST"}


@contextlib.contextmanager
def haproxy(folder: Path, text: str, tls: int) -> Iterator[None]:
    file = folder / "haproxy.cfg"
    file.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 90s\n    timeout server 90s\n" + text
    )
    process = subprocess.Popen(["haproxy", "-q", "-db", "-f", str(file)])
    try:
        eventually(lambda: process.poll() is None and not refuses(tls))
        yield
    finally:
        process.terminate()
        process.wait(20)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return True
    return False


def rolled(
    site: Site,
    here: Site,
    proxy: contextlib.AbstractContextManager[None],
    ports: list[int],
    token: str,
    rolls: int,
) -> list[tuple[str, list[int]]]:
    """Restart two nodes in turn, so many times, while clients ask; give the statuses of each request's tries."""
    environment = {**site.environment, "DUTCHDOOR_HANDOVER_FOR": f"{BY_NAME['handover_for'].default}s"}
    outcomes: list[tuple[str, list[int]]] = []
    done = threading.Event()

    def reading() -> None:
        while not done.is_set():
            outcomes.append(("GET", [here.ask("GET", "/auth/me", None, {"authorization": f"Bearer {token}"})[0]]))

    def writing() -> None:
        first = {**ACCOUNT, "mode": "hybrid", "transport": "body"}
        held = [json.loads(site.ask("POST", "/auth/login", first)[2])["refresh_token"] for _ in range(8)]
        while not done.is_set():
            tries: list[int] = []
            while not tries or (tries[-1] == 503 and len(tries) < 3):
                status, headers, body = here.ask("POST", "/auth/refresh", {"refresh_token": held[0]})
                tries.append(status)
                # One session may be refreshed once a second.
                time.sleep(float(headers["retry-after"] or 0) if status == 503 else 0.15)
            outcomes.append(("POST", tries))
            held = [*held[1:], json.loads(body).get("refresh_token", held[0]) if body[:1] == b"{" else held[0]]

    def started(stack: contextlib.ExitStack, port: int) -> Running:
        node = stack.enter_context(running(site.folder, "--port", str(port), environment=environment))
        eventually(lambda: is_ready(port))
        return node

    with contextlib.ExitStack() as stack:
        nodes = [started(stack, port) for port in ports]
        stack.enter_context(proxy)
        eventually(lambda: here.ask("GET", "/auth/me")[0] == 401)
        threads = [threading.Thread(target=asking) for asking in (reading, reading, writing)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(rolls):
                for index, port in enumerate(ports):
                    assert nodes[index].stop()[0] == 0
                    nodes[index] = started(stack, port)
        finally:
            done.set()
            for thread in threads:
                thread.join(30)
    return outcomes


def is_ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return ask_on(connection, "GET", "/readyz")[0] == 200


def test_nginx_shows_no_probe_and_logs_no_query(site: Site) -> None:
    """Probes and metrics stay inside, and a query string is not in the log of requests, that of plain HTTP neither."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert site.ask("GET", path)[0] == 404
    site.ask("GET", "/auth/me?token=canary-1f2e")
    deadline = time.monotonic() + 60
    while "/auth/me" not in (log := (site.folder / "access.log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "canary" not in log
    servers = (DEPLOY / "nginx.conf").read_text().split("\nserver {")[1:]
    assert len(servers) == 2
    assert all("\n    access_log " in server for server in servers), "nginx's own form has the query"


def test_every_setting_of_the_nodes_fits_what_nginx_expects() -> None:
    """The proxy gives up its idle connections before the nodes do, and waits for answers as long as they may take."""
    text = (DEPLOY / "nginx.conf").read_text()
    kept = float(str(BY_NAME["keep_alive_for"].default))
    assert all(float(seconds) < kept for seconds in re.findall(r"keepalive_timeout (\d+)s", text))
