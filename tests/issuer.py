"""An issuer of our own that answers as each is documented to, or wrongly in one way: a real server on this machine.

`answer` stands for the person and the issuer's pages: it takes the address that a browser was sent to, and returns the
parameters that the browser comes back with.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from email.message import Message
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, TypeVar
from urllib.parse import parse_qs, urlencode, urlsplit

import pyotp.totp
from msgspec.structs import replace
from starlette.testclient import TestClient
from tests.standins import Mailbox
from tests.web.test_form_pages import FORM, PAGE

from dutchdoor import issuers
from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.jose import jws
from dutchdoor.jose.jwk import Key
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.stores.base import Add, Swap

T = TypeVar("T")

ADA = "ada@example.com"
CLIENT, SECRET = "our-client", "our-secret-at-the-issuer"


class FaultyIssuer:
    """Runs while it is entered. Every part of it may be replaced between two requests."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.key = Key.generate("ES256", kid="first")
        self.published: list[Any] = [self.key.public_jwk()]
        self.person: dict[str, Any] = {"sub": "ada-1", "email": "ada@example.com", "email_verified": True}
        self.claims: dict[str, Any] = {}
        """Claims that are replaced in the next ID token; None leaves one out."""
        self.metadata: dict[str, Any] = {}
        self.sign: Callable[[bytes], str] = lambda payload: jws.sign(payload, self.key)
        self.replies: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        """What answers a path in place of the issuer."""
        self.codes: dict[str, dict[str, Any]] = {}
        self.seen: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.tokens: dict[str, Any] = {}
        self.last_body = b""

    def __enter__(self) -> Self:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.serve(self)

            do_POST = do_GET  # noqa: N815 - the server looks for this name

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # For a test

    def answer(self, way: str, **changed: str) -> dict[str, str]:
        """Log the person in, and return what the browser brings back."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(way).query).items()}
        code = f"code-{time.monotonic_ns()}"
        self.codes[code] = asked
        back = {"code": code, "state": asked["state"], **changed}
        if self.metadata.get("authorization_response_iss_parameter_supported"):
            back.setdefault("iss", self.url)
        return back

    def rotate(self, *, publish: bool = True) -> None:
        self.key = Key.generate("ES256", kid=f"key-{len(self.published)}-{time.monotonic_ns()}")
        if publish:
            self.published = [self.key.public_jwk()]

    def logout_token(self, *, typ: str | None = "logout+jwt", **changed: Any) -> str:
        now = int(self.clock())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": f"out-{time.monotonic_ns()}",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}}, "sub": self.person["sub"], **changed,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jws.sign(json.dumps(claims).encode(), self.key, typ=typ)

    # The server

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        self.seen.append(path)
        length = int(request.headers.get("content-length") or 0)
        body = self.last_body = request.rfile.read(length) if length else b""
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if path in self.replies:
            self.replies[path](request)
            return
        match path:
            case "/.well-known/openid-configuration":
                give(request, 200, self.document())
            case "/keys":
                give(request, 200, {"keys": self.published})
            case "/token":
                give(request, *self.exchange(request.headers, form))
            case "/userinfo":
                give(request, 200, {**self.person})
            case _:
                give(request, 404, {})

    def document(self) -> dict[str, Any]:
        found = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "id_token_signing_alg_values_supported": ["ES256", "RS256", "HS256", "none"],
            **self.metadata,
        }
        return {name: value for name, value in found.items() if value is not None}

    def exchange(self, headers: Mapping[str, str] | Message, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.forms.append(form)
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None:
            return 400, {"error": "invalid_grant"}
        given = headers.get("authorization", "")
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if given != f"Basic {basic}" and form.get("client_secret") != SECRET:
            return 401, {"error": "invalid_client"}
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        if proof != asked["code_challenge"] or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        now = int(self.clock())
        claims = {
            "iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked.get("nonce"),
            **({"auth_time": now} if "max_age" in asked else {}), **self.person, **self.claims,
        }  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        token = self.sign(json.dumps(claims).encode())
        return 200, {"access_token": "at", "token_type": "Bearer", "id_token": token, **self.tokens}


def give(request: BaseHTTPRequestHandler, status: int, value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)


class House:
    """A server with one issuer, its clock, and browsers that can only send forms."""

    def __init__(
        self, issuer: FaultyIssuer, policy: Policy = STANDARD, *, also: Sequence[Issuer] = (), **more: Any
    ) -> None:
        self.clock, self.issuer, self.mail = issuer.clock, issuer, Mailbox()
        given: dict[str, Any] = {"name": "corp", "title": "Corp", "url": issuer.url, "trusted_for": ["example.com"]}
        given |= {"client_id": CLIENT, "client_secret": SECRET, **more}
        self.configured = issuers.openid(**given)
        self.auth = Auth(
            "memory:",
            policy=policy,
            hasher=PasswordHasher(CHEAPEST),
            clock=self.clock,
            mail=self.mail,
            issuers=[self.configured, *also],
        )
        self.app = self.auth.asgi()

    def browser(self) -> TestClient:
        return TestClient(self.app, headers=PAGE, follow_redirects=False)

    def program(self) -> TestClient:
        return TestClient(self.app)

    def csrf(self, client: TestClient, path: str = "/auth/account") -> dict[str, str]:
        found = re.findall(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
        return {"csrf_token": found[0]} if found else {}

    def enrol(self, client: TestClient) -> str:
        """Set up an app, and return its secret."""
        page = client.post("/auth/factors/totp/enrol", data=self.csrf(client), headers=FORM).text
        secret = re.findall(r"<code>([A-Z2-7 ]+)</code>", page)[0].replace(" ", "")
        enrolment = re.findall(r'name="enrolment" value="([^"]+)"', page)[0]
        shown = {"enrolment": enrolment, "response": self.code(secret), **self.csrf(client)}
        assert client.post("/auth/factors/totp/confirm", data=shown, headers=FORM).status_code == 200
        return secret

    def code(self, secret: str) -> str:
        return pyotp.totp.TOTP(secret).at(int(self.clock()))

    def set_password(self, email: str, password: str) -> None:
        proof = self.run(self.auth.directory.hasher.hash(password))
        subject = self.account(email).subject
        record = Credential(subject=subject, method="password", handle="", proof=proof, created_at=self.clock())
        self.run(self.auth.store.commit(Add(record)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a verb. The store is in memory, and needs no loop of its own."""
        return asyncio.run(work)

    def wait(self) -> None:
        """Wait until the mail that is being written was sent."""
        deadline = time.monotonic() + 60
        while self.auth.directory.post._posting and time.monotonic() < deadline:
            time.sleep(0.01)

    def account(self, email: str) -> Account:
        found = self.run(self.auth.store.account_by_email(email))
        assert found is not None
        return found

    def change(self, email: str, **changed: Any) -> None:
        self.run(self.auth.store.commit(Swap(replace(self.account(email), **changed))))
        self.auth.authority.forget_remembered()

    def verify(self, email: str) -> None:
        self.change(email, email_verified_at=self.clock())

    def unverify(self, email: str) -> None:
        self.change(email, email_verified_at=None)

    def identities(self, email: str) -> list[Any]:
        return self.run(self.auth.directory.identities.of(self.account(email).subject))


def begin(client: TestClient, path: str = "/auth/issuers/corp/start", **fields: str) -> str:
    """Press a button, and return the address of the issuer that the page leads on to."""
    answer = client.post(path, data={"next": "/after", **fields}, headers=FORM)
    assert answer.status_code == 200, answer.text
    return answer.headers["refresh"].removeprefix("0;url=")


def come_back(client: TestClient, back: dict[str, str], name: str = "corp") -> Any:
    """Bring back what the issuer sent, and follow the page that leads on."""
    page = client.get(f"/auth/issuers/{name}/callback?{urlencode(back)}")
    assert page.status_code == 200, page.text
    return client.get(page.headers["refresh"].removeprefix("0;url="))


def sign_in(client: TestClient, issuer: FaultyIssuer) -> Any:
    return come_back(client, issuer.answer(begin(client)))


def me(client: TestClient) -> Any:
    """What the API says of who is signed in; None for no one."""
    answer = client.get("/auth/me", headers={"accept": "application/json"})
    return answer.json() if answer.status_code == 200 else None


def words(answer: Any) -> str:
    found = re.findall(r'role="alert"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
    return unescape(found[0]) if found else ""
