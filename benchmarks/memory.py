"""How much memory a server takes before and after steady load, and where it goes.

    python -m benchmarks.memory [--minutes 10]

One process of `dutchdoor serve` on SQLite. The load is two log-ins a second with Argon2id (19 MiB each), four at once
every tenth second, and 50 requests with a cookie a second. Read from /proc (Linux), in MiB: what is resident, and how
much of it is the heap of C, that of Python with the stacks of threads, and the code of Python and of libraries.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path

from benchmarks.databases import end_in_order

PERSON = {"email": "ada@example.com", "password": "a quiet heron at dusk"}
SECOND = 1.0


def resident(pid: int) -> dict[str, int]:
    """What is resident, in KiB, by kind of mapping."""
    found: dict[str, int] = {}
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        mapping = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)", line)
        if mapping:
            name = mapping[1]
            kind = "heap of C" if name == "[heap]" else "libraries" if name.startswith("/") else "Python and stacks"
        elif line.startswith("Rss:"):
            found[kind] = found.get(kind, 0) + int(line.split()[1])
    return found


def show(pid: int, when: str) -> None:
    found = resident(pid)
    parts = ", ".join(f"{kind} {size / 1024:.0f}" for kind, size in sorted(found.items()))
    print(f"{when:28} {sum(found.values()) / 1024:4.0f} MiB  ({parts})", flush=True)


class Person:
    """A client that logs in, and asks who it is with its cookie."""

    def __init__(self, port: int) -> None:
        self.port, self.cookie = port, ""

    def ask(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=60)
        headers = {"origin": f"http://localhost:{self.port}"}
        headers |= {"cookie": self.cookie} if body is None else {"content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def log_in(self, _: object = None) -> None:
        answer = self.ask("POST", "/auth/login", PERSON)
        assert answer.status == HTTPStatus.OK, answer.status
        self.cookie = "; ".join(cookie.partition(";")[0] for cookie in answer.headers.get_all("set-cookie", []))


def main() -> None:
    end_in_order()
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--minutes", type=float, default=10.0)
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory(prefix="dutchdoor-memory-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "dutchdoor.server", "serve", "--port", "0"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert server.stdout is not None
            ready = re.search(r":([0-9]+)", server.stdout.readline().partition("//")[2])
            assert ready is not None
            person = Person(int(ready[1]))
            show(server.pid, "ready")
            assert person.ask("POST", "/auth/register", PERSON).status == HTTPStatus.CREATED
            show(server.pid, "after a registration")
            load(person, asked.minutes * 60)
            show(server.pid, f"after {asked.minutes:g} minutes of load")
            time.sleep(10)
            show(server.pid, "10 s later")
        finally:
            server.terminate()
            server.wait(30)


def load(person: Person, seconds: float) -> None:
    until, turn = time.monotonic() + seconds, 0
    with ThreadPoolExecutor(4) as pool:
        while time.monotonic() < until:
            turn += 1
            began = time.monotonic()
            list(pool.map(person.log_in, range(4 if turn % 10 == 0 else 2)))
            for _ in range(50):
                assert person.ask("GET", "/auth/me").status == HTTPStatus.OK
            time.sleep(max(0.0, SECOND - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
