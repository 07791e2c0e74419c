"""The memory of a server after log-ins."""

from __future__ import annotations

import http.client
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.server.running import Running, eventually, running

from dutchdoor.credentials.hashing import available_cores

PERSON = {"email": "ada@example.com", "password": "a quiet heron at dusk"}
A_HASH, OTHERS = 19 * 1024, 6 * 1024


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_p47_hashing_gives_its_memory_back(tmp_path: Path) -> None:
    """Each hash takes 19 MiB. A server keeps some of it while people log in, and none when no one does."""
    with running(tmp_path) as server:
        assert status(server, "/auth/register") == 201
        before = resident(server)
        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(lambda _: status(server, "/auth/login"), range(24))) == {200}
        assert resident(server) - before <= (available_cores() + 1) * A_HASH + OTHERS
        eventually(lambda: resident(server) - before <= OTHERS)


def resident(server: Running) -> int:
    """In KiB."""
    found = re.search(r"^VmRSS:\s+([0-9]+) kB$", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def status(server: Running, path: str) -> int:
    connection = http.client.HTTPConnection("localhost", server.port, timeout=60)
    headers = {"content-type": "application/json", "origin": f"http://localhost:{server.port}"}
    connection.request("POST", path, json.dumps(PERSON), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status
