"""A service in Node that checks tokens with jose: the example, beside a real server; and what jose accepts that a
`Verifier` refuses, which the page lists.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.b64 import b64
from tests.nodejs import node_environment
from tests.ports import free_port
from tests.running import running_server
from tests.server.running import clean_environment, command, eventually

from dutchdoor.errors import InvalidToken
from dutchdoor.jose.access_token import AccessTokenVerifier
from dutchdoor.jose.jwk import Key
from dutchdoor.model.policy import LONGEST_ACCESS

pytestmark = [pytest.mark.long]

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "node"
ADA = {"email": "ada@example.com", "password": "a door in two halves"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, nodejs: dict[str, str]) -> Path:
    """The example with what its lock file names."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("node") / "node"))
    install = ["npm", "ci", "--ignore-scripts", "--no-audit"]
    subprocess.run(install, cwd=folder, env=nodejs, check=True, capture_output=True)
    return folder


@contextlib.contextmanager
def node(folder: Path, **environment: str) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        ["node", "service.js"], cwd=folder,
        env={**clean_environment(), "PATH": node_environment()["PATH"], "PORT": str(port), **environment},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert str(port) in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_f41_a_service_in_node_verifies_and_asks_where_it_must_be_sure(installed: Path, tmp_path: Path) -> None:
    """The service knows the bearer by the public keys. After a fenced log-out, what asks the server is 401 at once, and
    what does not goes on until the token expires: jose has no fence. A new key is found, and an outage is 503.
    """
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(contextlib.ExitStack())
        port = home.enter_context(running_server(tmp_path))
        issuer = f"http://localhost:{port}"
        server = stack.enter_context(httpx2.Client(base_url=issuer))
        assert server.post("/auth/register", json=ADA).status_code == 201
        signed_in = server.post("/auth/login", json={**ADA, "mode": "hybrid", "transport": "body"}).json()
        token, subject = signed_in["access_token"], signed_in["user"]["id"]
        service = stack.enter_context(httpx2.Client(base_url=stack.enter_context(node(installed, ISSUER=issuer))))
        assert service.get("/").status_code == 401
        for forged in ("x", token[:-4] + "AAAA", signed_in["refresh_token"]):
            answer = service.get("/", headers=bearer(forged))
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        for method in ("GET", "POST"):
            assert service.request(method, "/", headers=bearer(token)).json()["hello"] == subject

        done = server.post("/auth/logout", headers={**bearer(token), "prefer": "wait=20"})
        assert done.json()["fenced"] is True
        assert service.post("/", headers=bearer(token)).status_code == 401
        assert service.get("/", headers=bearer(token)).status_code == 200, "no fence: it is valid until it expires"

        fresh = server.post("/auth/login", json={**ADA, "mode": "hybrid", "transport": "body"}).json()["access_token"]
        home.close()
        answer = service.post("/", headers=bearer(fresh))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert service.get("/", headers=bearer(fresh)).status_code == 200, "by the keys that it has"
    with node(installed, ISSUER=issuer) as cold:
        assert httpx2.get(cold, headers=bearer(fresh)).status_code == 503, "no keys: an outage, and no 401"


def test_f41_a_new_key_is_found(installed: Path, tmp_path: Path) -> None:
    """After a signing key was revoked, a token by the next one makes jose read the key set again."""
    with running_server(tmp_path) as port, node(installed, ISSUER=f"http://localhost:{port}") as url:
        issuer = f"http://localhost:{port}"
        assert httpx2.post(f"{issuer}/auth/register", json=ADA).status_code == 201
        log_in = {**ADA, "mode": "hybrid", "transport": "body"}

        def token() -> str:
            return str(httpx2.post(f"{issuer}/auth/login", json=log_in).json()["access_token"])

        first = token()
        assert httpx2.get(url, headers=bearer(first)).status_code == 200
        revoke = command("key", "revoke", kid_of(first), "--yes", "--no-wait")
        subprocess.run(revoke, cwd=tmp_path, env=clean_environment(), check=True, capture_output=True)
        eventually(lambda: kid_of(token()) != kid_of(first))
        # jose asks again for keys ten seconds after the last time.
        eventually(lambda: httpx2.get(url, headers=bearer(token())).status_code == 200, within=30)
        assert httpx2.get(url, headers=bearer(first)).status_code == 401, "the set that was read lacks it"


def kid_of(token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(token.split(".", maxsplit=1)[0] + "=="))["kid"])


# --- what jose accepts ------------------------------------------------------------------------------------------------

ISS = "http://localhost:8000"
KEY = Key.generate("ES256")
HEADER = {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}


def signed(payload: bytes, header: bytes) -> str:
    text = b64(header) + "." + b64(payload)
    return text + "." + b64(KEY.sign(text.encode()))


def tokens() -> dict[str, str]:
    """Tokens that each break one rule, by the rule's name on the page."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISS, "sub": "ada", "aud": ISS, "exp": now + 600, "iat": now, "jti": "one", "client_id": "web",
        "sid": "session", "epoch": 3, "auth_time": now - 100, "amr": ["pwd"], "roles": ["admin"],
    }  # fmt: skip
    header = json.dumps(HEADER).encode()
    plain = json.dumps(claims).encode()

    def with_claims(**changed: Any) -> str:
        return signed(json.dumps({k: v for k, v in {**claims, **changed}.items() if v is not ...}).encode(), header)

    def with_header(**changed: Any) -> str:
        kept = {name: value for name, value in {**HEADER, **changed}.items() if value is not ...}
        return signed(plain, json.dumps(kept).encode())

    good = signed(plain, header)
    head, body, signature = good.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = last[last.index(signature[-1]) + 1]
    return {
        "good": good,
        "a claim twice": signed(plain[:-1] + b', "sub": "root"}', header),
        "a header parameter twice": signed(plain, header[:-1] + b', "typ": "at+jwt"}'),
        "a byte that is not UTF-8": signed(plain[:-1] + b', "x": "\xff"}', header),
        "a byte order mark": signed(b"\xef\xbb\xbf" + plain, header),
        "bits after the signature": f"{head}.{body}.{signature[:-1]}{loose}",
        "padding": f"{head}.{body}.{signature}==",
        "white space": f"{head}.{body}.{signature[:10]} {signature[10:]}",
        "longer than 16 KiB": with_claims(x="x" * 20_000),
        "nested deeply": signed(plain[:-1] + b', "x": ' + b"[" * 2000 + b"]" * 2000 + b"}", header),
        "`cnf`": with_claims(cnf={"jkt": "x"}),
        "no `kid`": with_header(kid=...),
        "a key in the header": with_header(jwk={"kty": "EC"}),
        "an address of keys in the header": with_header(jku="https://evil.example/"),
        "`crit`": with_header(crit=["exp"]),
        "`typ` JWT": with_header(typ="JWT"),
        "no `typ`": with_header(typ=...),
        "`alg` none": with_header(alg="none"),
        "`sub` that is a number": with_claims(sub=5),
        "`sub` that is empty": with_claims(sub=""),
        "`roles` that are a text": with_claims(roles="admin"),
        "`jti` that is a number": with_claims(jti=1),
        "`exp` with a fraction": with_claims(exp=now + 600.5),
        "`exp` beyond 2^53": with_claims(exp=2**60),
        "`exp` in the past": with_claims(exp=now - 60),
        "no `exp`": with_claims(exp=...),
        "no `iat`": with_claims(iat=...),
        "`iat` in the future": with_claims(iat=now + 300),
        "`nbf` in the future": with_claims(nbf=now + 300),
        "a life of two hours": with_claims(exp=now + 7200),
        "no `client_id`": with_claims(client_id=...),
        "no `epoch`": with_claims(epoch=...),
        "`epoch` that is a text": with_claims(epoch="3"),
        "`aud` of another service": with_claims(aud="orders"),
        "`iss` of another server": with_claims(iss="https://evil.example"),
    }


def test_f42_the_page_lists_what_jose_accepts(installed: Path) -> None:
    """Of tokens that each break one rule, the page names those that the example accepts and a `Verifier` refuses."""
    shutil.copy(Path(__file__).with_name("node_judge.mjs"), installed)
    made = tokens()
    keys = json.dumps({"keys": [KEY.public_jwk()]})
    asked = "\n".join([keys, *(json.dumps(token) for token in made.values())])
    said = subprocess.run(
        ["node", "node_judge.mjs"], cwd=installed, input=asked, capture_output=True, text=True, check=True,
        env={**clean_environment(), "ISSUER": ISS},
    ).stdout.split("\n")  # fmt: skip
    ours = AccessTokenVerifier(keys=KEY.public(), issuer=ISS, audience=ISS, leeway=10.0, longest=LONGEST_ACCESS)
    looser, failed = set(), set()
    for (name, token), verdict in zip(made.items(), said, strict=False):
        if verdict.startswith("failed"):
            failed.add(f"{name}: {verdict}")
        try:
            ours(token, now=time.time())
        except InvalidToken:
            if verdict == "accepted":
                looser.add(name)
        else:
            assert verdict == "accepted", name
    assert failed == set()
    page = (ROOT / "docs" / "guides" / "other-languages.md").read_text()
    (table,) = re.findall(r"## What jose accepts.*?\n\n(\|.*?)\n\n", page, re.DOTALL)
    listed = {line.split("|")[1].strip() for line in table.splitlines()[2:]}
    assert listed == looser


def test_f42_the_page_shows_the_example() -> None:
    """Each line of JavaScript in the page is in the example, which runs."""
    page = (ROOT / "docs" / "guides" / "other-languages.md").read_text()
    example = {line.strip() for line in (EXAMPLE / "verify.js").read_text().splitlines()}
    blocks = re.findall(r"^```js\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    shown = [line.strip().removeprefix("const answer = ") for block in blocks for line in block.splitlines()]
    assert [line for line in shown if line not in example | {line.removeprefix("answer = ") for line in example}] == []


def test_f41_the_lock_file_names_no_registry() -> None:
    """What is installed is known by its hash, and comes from wherever the machine gets its packages."""
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    (jose,) = [each for name, each in lock["packages"].items() if name]
    assert "resolved" not in jose and jose["integrity"].startswith("sha512-")
