"""The two services of a lab: one that checks tokens with a `Verifier`, and one with a JWT as people know it.

They are as short as in a tutorial, and speak HTTP on loopback.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

from dutchdoor.choice.plain_jwt import PlainJwt
from dutchdoor.errors import InvalidToken, Unavailable, UseDpopNonce
from dutchdoor.jose.dpop import DpopProof
from dutchdoor.verifier import Verifier

__all__ = ["Orders", "PlainShop", "Service"]

AT_MOST: Final = 4096
"""Bytes of a body."""


class Asked(NamedTuple):
    """A request, as far as a service looks at it."""

    method: str
    path: str
    token: str
    proof: str | None
    """The DPoP header. None: the token was not sent as one that is bound to a key."""
    body: bytes


Said = tuple[HTTPStatus, Mapping[str, Any]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a request that ends in an error ends its connection."""


class Service:
    """An HTTP server on a free port of loopback, in threads of this process."""

    def __init__(self, answer: Callable[[Asked], Said]) -> None:

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version, sys_version = "lab", ""
            disable_nagle_algorithm: ClassVar[bool] = True

            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                if not 0 <= length <= AT_MOST:  # a negative one would read without an end
                    self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                else:
                    self._answer(self.rfile.read(length))

            def _answer(self, body: bytes) -> None:
                scheme, _, token = (self.headers.get("authorization") or "").partition(" ")
                proof = self.headers.get("dpop") if scheme == "DPoP" else None
                status, said = answer(Asked(self.command, self.path, token, proof, body))
                text = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                if status == HTTPStatus.UNAUTHORIZED:
                    self.send_header("WWW-Authenticate", f'{scheme or "Bearer"} error="{said["code"]}"')
                if "nonce" in said:
                    self.send_header("DPoP-Nonce", said["nonce"])
                self.end_headers()
                with suppress(OSError):  # the browser has gone
                    self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                """Log nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Orders(Service):
    """A service of a team's own, which checks access tokens by itself and follows what was revoked."""

    def __init__(self, authority: str) -> None:
        self._verify = Verifier(authority, stale="refuse", key="", leeway=0)  # one machine, one clock
        super().__init__(self._orders)

    def _orders(self, asked: Asked) -> Said:
        url = f"{self.origin}{asked.path}"
        proof = None if asked.proof is None else DpopProof(asked.proof, asked.method, url)
        try:
            principal = self._verify(asked.token, proof)
        except UseDpopNonce as refusal:
            return HTTPStatus.UNAUTHORIZED, {"code": refusal.code, "nonce": refusal.nonce}
        except InvalidToken as refusal:
            return HTTPStatus.UNAUTHORIZED, {"code": refusal.code}
        except Unavailable:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"code": "unavailable"}
        return HTTPStatus.OK, {"for": principal.subject, "roles": sorted(principal.roles), "orders": []}

    def close(self) -> None:
        super().close()
        self._verify.close()


class PlainShop(Service):
    """A service that issues and checks a plain JWT. It has a table of users, and no table of sign-ins."""

    def __init__(self, email: str, password: str) -> None:
        self._jwt = PlainJwt()
        self._email, self._password = email, password
        self.roles: tuple[str, ...] = ()
        """What its table of users says of the account now."""
        super().__init__(self._shop)

    def _shop(self, asked: Asked) -> Said:
        now = time.time()
        if (asked.method, asked.path) == ("POST", "/login"):
            given = json.loads(asked.body)
            if (given.get("email"), given.get("password")) != (self._email, self._password):
                return HTTPStatus.UNAUTHORIZED, {"code": "wrong_credentials"}
            return HTTPStatus.OK, {"access_token": self._jwt.issue(self._email, now, roles=list(self.roles))}
        try:
            claims = self._jwt.check(asked.token, now)
        except (ValueError, KeyError):
            return HTTPStatus.UNAUTHORIZED, {"code": "invalid_token"}
        return HTTPStatus.OK, {"for": claims["sub"], "roles": claims["roles"], "orders": []}
