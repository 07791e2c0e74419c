"""SIGHUP: what a running server takes over from its configuration, and what it says about the rest."""

from __future__ import annotations

import http.client
import logging
import os
import signal
from functools import partial
from pathlib import Path

import pytest
from tests.server.running import Running, eventually, running

from dutchdoor.server.config import Settings, read_settings
from dutchdoor.server.factory import make_auth
from dutchdoor.server.protocol import BoundedProtocol
from dutchdoor.server.reload import apply_to, reloaded
from dutchdoor.server.serve import refuse_unsafe

FIRST = """
host = "0.0.0.0"
public_url = "https://auth.example.com"
proxy = ["127.0.0.1"]
"""
NEXT = """
host = "0.0.0.0"
public_url = "https://auth.example.com"
proxy = ["127.0.0.1", "10.0.0.0/24"]
origin = ["https://app.example.com"]
max_connections = 64
access_for = "5m"
pepper = "an entirely random pepper"
"""


def configured(file: Path, text: str) -> Settings:
    file.write_text(text)
    return read_settings({"config": str(file)}, {"DUTCHDOOR_DATABASE": "memory:"})


def test_p46_settings_that_are_safe_are_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Proxies, origins and limits count from the next request on. The log names what changed and what needs a restart,
    and shows no value: it may be a secret. What needs a restart keeps its value.
    """
    file = tmp_path / "door.toml"
    settings = configured(file, FIRST)
    auth = make_auth(settings)
    assert not auth.site.cors.origins
    with caplog.at_level(logging.INFO, "dutchdoor"):
        taken = reloaded(settings, partial(configured, file, NEXT), refuse_unsafe)
    try:
        apply_to(auth, taken)
        assert auth.site is auth.api.site
        assert "https://app.example.com" in auth.site.cors.origins
        assert (BoundedProtocol.max_connections, len(BoundedProtocol.proxies)) == (64, 2)
    finally:
        BoundedProtocol.max_connections, BoundedProtocol.proxies = 4096, ()
    assert (taken.policy, taken.pepper) == (settings.policy, None)
    assert caplog.messages == [
        "settings reloaded: proxy, origin, max_connections",
        "settings changed that need a restart: pepper, access_for",
    ]
    assert reloaded(taken, partial(configured, file, NEXT), refuse_unsafe) == taken


@pytest.mark.parametrize(
    "broken",
    ["proxy = [", 'origin = ["no origin"]', 'nonsense = "x"', 'proxy = ["*"]', FIRST.replace("proxy", "#")],
)
def test_p46_a_configuration_that_cannot_be_used_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """A file that is broken, or would not be safe to serve with, is refused in one line, and the server goes on."""
    file = tmp_path / "door.toml"
    settings = configured(file, FIRST)
    text = broken if "host" in broken else f"{FIRST.replace('proxy', '#') if 'proxy' in broken else FIRST}\n{broken}"
    assert reloaded(settings, partial(configured, file, text), refuse_unsafe) is settings
    (line,) = caplog.messages
    assert line.startswith("settings not reloaded: ")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_p46_a_server_reloads_on_sighup(tmp_path: Path, workers: str) -> None:
    """SIGHUP ends no process and no connection: each process has the new origin, and one of them says so once."""
    file = tmp_path / "door.toml"
    file.write_text(FIRST)
    with running(tmp_path, "--config", str(file), "--workers", workers) as server:
        assert not listed(server)
        file.write_text(FIRST + 'origin = ["https://app.example.com"]\n')
        os.kill(server.process.pid, signal.SIGHUP)
        eventually(lambda: "settings reloaded: origin" in server.said)
        eventually(lambda: all(listed(server) for _ in range(10)))
        assert server.said.count("settings reloaded") == 1
        assert server.process.poll() is None


def listed(server: Running) -> bool:
    """Whether pages of the other origin may call the API."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    asked = {
        "Host": "auth.example.com", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1",
        "Origin": "https://app.example.com", "Access-Control-Request-Method": "POST",
    }  # fmt: skip
    connection.request("OPTIONS", "/auth/login", headers=asked)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.getheader("access-control-allow-origin") == "https://app.example.com"
