"""A function that checks tokens, cold, warm and thawed: `python -m benchmarks.serverless [--quick]`.

Each cold start is a process of its own, and counts from the first line of the function to its first answer, in time of
the processor. Only what a freeze costs is in time by the clock: it is a call to the server. The peer is what a function
would do by hand: PyJWT, with a key set that `PyJWKClient` keeps. It knows of no log-out. Both talk to one
`dutchdoor serve` on loopback, and check tokens of that server.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

FUNCTION = """
import json, sys, time
began = time.process_time()
{first}
first = time.process_time()
issuer, token = sys.argv[1:3]
{make}
check(token)
cold = time.process_time()
for _ in range(200):
    check(token)
best = []
for _ in range({rounds}):
    start = time.process_time()
    for _ in range(1000):
        check(token)
    best.append((time.process_time() - start) / 1000)
{after}
print(json.dumps(dict(imported=first - began, cold=cold - began, warm=min(best), thawed=thawed)))
"""

OURS = {
    "first": "from dutchdoor import Verifier",
    "make": 'check = Verifier(issuer, follow="on demand")',
    # What a freeze costs is a poll. The lease lasts one to two seconds.
    "after": """
thawed = []
for _ in range({thaws}):
    time.sleep(check.lease_left + 0.05)
    start = time.perf_counter()
    check(token)
    thawed.append(time.perf_counter() - start)
""",
}
PYJWT = {
    "first": "import jwt",
    "make": """
keys = jwt.PyJWKClient(issuer + "/.well-known/jwks.json")
def check(token):
    key = keys.get_signing_key_from_jwt(token)
    jwt.decode(token, key, algorithms=["ES256"], audience=issuer, issuer=issuer, leeway=10)
""",
    "after": "thawed = []",
}
PASSWORD = "a quiet heron at dusk"


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        said: dict[str, Any] = json.loads(answer.read())
        return said


def measured(parts: dict[str, str], issuer: str, token: str, *, runs: int, rounds: int, thaws: int) -> dict[str, float]:
    """Run a function in so many environments; give the medians, in seconds."""
    code = FUNCTION.format(**{**parts, "after": parts["after"].format(thaws=thaws)}, rounds=rounds)
    found: list[dict[str, Any]] = []
    for number in range(runs + 1):
        said = subprocess.run([sys.executable, "-c", code, issuer, token], capture_output=True, text=True, check=True)
        if number:  # the first one fills the disk's cache
            found.append(json.loads(said.stdout))
    thawed = [each for one in found for each in one["thawed"]]
    medians = {name: statistics.median(one[name] for one in found) for name in ("imported", "cold", "warm")}
    return {**medians, "thawed": statistics.median(thawed) if thawed else 0.0}


def calls(log: Path) -> dict[str, int]:
    """How often the server was asked for keys, for news and about a token, by its log of requests."""
    text = log.read_text()
    return {
        name: len(re.findall(rf"route={re.escape(path)}\b", text))
        for name, path in (
            ("key set", "/.well-known/jwks.json"),
            ("poll", "/auth/revocations/poll"),
            ("introspection", "/oauth2/introspect"),
        )
    }


def main() -> None:
    quick = "--quick" in sys.argv
    runs, rounds, thaws = (3, 5, 2) if quick else (11, 10, 5)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as told:
            server = subprocess.Popen(
                [sys.executable, "-m", "dutchdoor.server", "serve", "--port", "0", "--access-log"],
                cwd=folder, stdout=subprocess.PIPE, stderr=told, text=True,
            )  # fmt: skip
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+?:(\d+)", server.stdout.readline())
            assert found is not None
            issuer = f"http://localhost:{found[1]}"
            account = {"email": "ada@example.com", "password": PASSWORD}
            post(f"{issuer}/auth/register", account)
            token = post(f"{issuer}/auth/login", {**account, "mode": "hybrid", "transport": "body"})["access_token"]
            peer = measured(PYJWT, issuer, token, runs=runs, rounds=rounds, thaws=thaws)
            before = calls(log)
            ours = measured(OURS, issuer, token, runs=runs, rounds=rounds, thaws=thaws)
            after = calls(log)
        finally:
            server.terminate()
            server.wait(20)
            assert server.stdout is not None
            server.stdout.close()
    print(f"{'':34}{'Verifier':>12}{'PyJWT':>12}{'PyJWT / ours':>14}")
    for name, key, unit, by in (
        ("import", "imported", "ms", 1e3),
        ("cold: import, first check", "cold", "ms", 1e3),
        ("warm: one check", "warm", "µs", 1e6),
    ):
        ratio = peer[key] / ours[key]
        print(f"{name:34}{ours[key] * by:>9.1f} {unit}{peer[key] * by:>9.1f} {unit}{ratio:>13.2f}x")
    print(f"{'after a freeze: one poll':34}{ours['thawed'] * 1e3:>9.1f} ms{'-':>12}{'':>14}")
    for name, count in after.items():
        print(f"{'calls a function: ' + name:34}{(count - before[name]) / (runs + 1):>12.1f}")
    print(
        f"each function: {200 + rounds * 1000 + 1:,} checks, and {thaws} after its lease had run out; {runs} functions"
    )


if __name__ == "__main__":
    main()
