"""What `deploy/` shows is true of this program: every setting in it exists and is accepted, and what it installs runs.
Docker and Kubernetes are not needed, and not tried.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import click
import pytest
from tests.docs.deployment import DEPLOY, HOST, ROOT, compose, environments, unit
from tests.server.certificates import write_certificate

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

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and not path.name.startswith("."))
SECRETS = {
    "dutchdoor.keys": "{key}",
    "database_url": "postgresql://dutchdoor:3c8f1f0f@postgres:5432/dutchdoor",
    "redis_url": "redis://:77aa31e5@valkey:6379/0",
    "mail_url": "smtps://user:password@mail.example.com:465",
    "metrics_token": "b4f0c3a1d2e94f6f8a7b",
}
"""What the heads of the files tell to put into each secret."""


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
    assert "sqlite:////var/lib/dutchdoor/" in text
    state = tmp_path / unit()["StateDirectory"][0]  # which systemd makes in /var/lib
    state.mkdir()
    file.write_text(text.replace("/etc/dutchdoor", str(tmp_path)).replace("/var/lib", str(tmp_path)))
    settings = read_settings({"config": str(file)}, {})
    refuse_unsafe(settings)
    assert [each.what for each in findings(settings) if each.matters] == []
    allowed = {line.partition(":")[2] for line in unit()["SocketBindAllow"]}
    assert allowed == {str(settings.port), str(settings.metrics_port)}
    assert unit()["SocketBindDeny"] == ["any"]
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
