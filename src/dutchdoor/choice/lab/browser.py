"""One browser of the lab: a cookie jar, what its page keeps in memory, and each exchange as it was on the wire."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.cookiejar import Cookie
from typing import Any, Final, Literal

import httpx2
from msgspec import Struct

from dutchdoor.choice.lab.patterns import Piece
from dutchdoor.client.dpop import Nonces, ProofKey
from dutchdoor.model.ids import decode
from dutchdoor.web.cookies import PREFIX

__all__ = ["Browser", "Exchange", "Held", "Signer", "Who", "claims_of", "shortened"]

Who = Literal["owner", "thief"]

ANSWERS_WITHIN: Final = 3.0
"""Seconds. A server that is away costs the page this at most: a port that is closed refuses at once."""
_AGENTS: Final[Mapping[Who, str]] = {
    "owner": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "thief": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
    "Safari/537.36",
}
_NOT_SHOWN: Final = frozenset({"accept-encoding", "connection", "date", "user-agent", "accept"})
_MARK: Final = f"{PREFIX}mark"


class Exchange(Struct, frozen=True, kw_only=True):
    """One request and its answer: their lines as they were sent, without what says nothing here."""

    who: Who
    at: float
    took: float
    """Seconds."""
    method: str
    path: str
    to: str
    """Host and port."""
    sent: tuple[str, ...]
    status: int
    """0: no answer came."""
    received: tuple[str, ...]
    body: Mapping[str, Any]


class Held(Struct, frozen=True, kw_only=True):
    """Something in a browser. `name` is that of the cookie, or of the variable."""

    name: str
    value: str
    attributes: tuple[str, ...] = ()
    in_reach: bool
    """Whether a script of the page can read it."""
    piece: Piece | None
    """None: it signs no one in."""
    expires_at: float | None = None
    claims: Mapping[str, Any] | None = None


class Signer(Struct, frozen=True):
    """A key that does not leave its browser, and what is known of the servers' nonces (RFC 9449)."""

    key: ProofKey
    nonces: Nonces

    def sign(self, method: str, url: str, token: str) -> str:
        """Return the DPoP header of one request."""
        return self.nonces.proof(self.key, method, url, token)

    def learn(self, url: str, headers: Mapping[str, str]) -> bool:
        """Keep the nonce of an answer. Returns whether another proof may be right where this one was refused."""
        return self.nonces.learn(url, headers)


class Browser:
    """The browser of the owner, or that of the thief."""

    def __init__(self, who: Who, origin: str, *, bound: bool = False) -> None:
        """`origin` is that of the page it shows. `bound` creates a key, for a sign-in that is bound to it."""
        self.who: Who = who
        self._origin = origin
        self.signer = Signer(ProofKey.generate(), Nonces(time.time)) if bound else None
        self._scheme = "Bearer"
        self._client = httpx2.Client(
            timeout=ANSWERS_WITHIN, headers={"user-agent": _AGENTS[who]}, trust_env=False, follow_redirects=False
        )
        self.memory: dict[str, str] = {}
        """The variables of the page, or of the program: `access_token`, `refresh_token`, `csrf_token`."""

    def send(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None = None,
        *,
        with_token: bool = True,
        again: bool = False,
    ) -> Exchange:
        """Send a request with what this browser holds: it adds its cookies, and its page the access token.

        Where a server asks for a nonce, the request is sent `again` with it, as each client does.
        """
        token = self.memory.get("access_token", "") if with_token else ""
        headers = {"authorization": f"{self._scheme} {token}"} if token else {}
        if self.signer is not None:
            headers["dpop"] = self.signer.sign(method, url, token)
        if method == "POST" and (self._origin or self.holds_cookie):
            headers["origin"] = self._origin or url.rpartition("/auth")[0]
        if method == "POST" and self.memory.get("csrf_token"):
            headers["x-csrf-token"] = self.memory["csrf_token"]
        request = self._client.build_request(method, url, headers=headers, json=body)
        at, begun = time.time(), time.perf_counter()
        try:
            answer = self._client.send(request)
        except httpx2.HTTPError:
            answer = None
        took = time.perf_counter() - begun
        if (
            self.signer is not None
            and answer is not None
            and answer.status_code == HTTPStatus.UNAUTHORIZED
            and self.signer.learn(url, answer.headers)
            and not again
        ):
            return self.send(method, url, body, with_token=with_token, again=True)
        sent = [f"{method} {request.url.raw_path.decode()} HTTP/1.1", *_lines(request.headers)]
        if body is not None:
            sent += ["", json.dumps({name: _hidden(name, value) for name, value in body.items()}, ensure_ascii=False)]
        return Exchange(
            who=self.who,
            at=at,
            took=took,
            method=method,
            path=request.url.path,
            to=request.url.netloc.decode(),
            sent=tuple(sent),
            status=0 if answer is None else answer.status_code,
            received=() if answer is None else tuple(_received(answer)),
            body={} if answer is None else _object(answer),
        )

    def keep(self, body: Mapping[str, Any]) -> None:
        """Keep the tokens of an answer, as the script of a page or a program does."""
        self.memory |= {
            name: str(body[name]) for name in ("access_token", "refresh_token", "csrf_token") if body.get(name)
        }
        self._scheme = str(body.get("token_type", self._scheme))

    def forget(self) -> None:
        """Drop what the script keeps, as after a log-out. Cookies are the server's to delete."""
        self.memory.clear()

    def copy(self, piece: Piece, victim: Browser) -> None:
        """Copy a piece out of another browser."""
        if piece == "cookie":
            for cookie in victim._client.cookies.jar:
                if cookie.name != _MARK:
                    self._client.cookies.jar.set_cookie(cookie)
        elif piece in victim.memory:
            self.memory[piece] = victim.memory[piece]
            self._scheme = victim._scheme

    @property
    def holds_cookie(self) -> bool:
        """Whether it has a cookie that signs someone in."""
        return any(cookie.name != _MARK for cookie in self._client.cookies.jar)

    @property
    def can_refresh(self) -> bool:
        """Whether it has something to refresh with, if its pattern has that."""
        return self.holds_cookie or "refresh_token" in self.memory

    @property
    def proof(self) -> dict[str, str]:
        """The headers by which its requests prove who sends them."""
        found = {}
        cookies = "; ".join(f"{each.name}={each.value}" for each in self._client.cookies.jar if each.name != _MARK)
        if cookies:
            found["cookie"] = cookies
        if self.memory.get("access_token"):
            found["authorization"] = f"{self._scheme} {self.memory['access_token']}"
        return found

    def held(self) -> Iterator[Held]:
        """Return all that is in it."""
        for cookie in sorted(self._client.cookies.jar, key=lambda each: each.name == _MARK):
            yield Held(
                name=cookie.name,
                value=shortened(cookie.value or ""),
                attributes=tuple(_attributes(cookie)),
                in_reach=not cookie.has_nonstandard_attr("HttpOnly"),
                piece=None if cookie.name == _MARK else "cookie",
                expires_at=cookie.expires,
            )
        if self.signer is not None:
            yield Held(name="key", value=self.signer.key.thumbprint, in_reach=False, piece=None)
        pieces: tuple[Piece, ...] = ("access_token", "refresh_token")
        for piece in pieces:
            if piece in self.memory:
                claims = claims_of(self.memory[piece]) if piece == "access_token" else None
                yield Held(
                    name=piece,
                    value=shortened(self.memory[piece]),
                    in_reach=True,
                    piece=piece,
                    expires_at=None if claims is None else claims.get("exp"),
                    claims=claims,
                )

    def close(self) -> None:
        self._client.close()


def claims_of(token: str) -> dict[str, Any]:
    """Read what a token says, as anyone can who has it: it is signed, and not encrypted."""
    found: dict[str, Any] = json.loads(decode(token.split(".")[1], limit=len(token)))
    return found


def shortened(secret: str) -> str:
    """Return a secret with its middle left out."""
    return secret if len(secret) <= 24 else f"{secret[:12]}…{secret[-4:]}"  # noqa: PLR2004 - both ends and the dots


def _attributes(cookie: Cookie) -> Iterator[str]:
    yield f"Path={cookie.path}"
    if cookie.has_nonstandard_attr("HttpOnly"):
        yield "HttpOnly"
    if cookie.has_nonstandard_attr("SameSite"):
        yield f"SameSite={cookie.get_nonstandard_attr('SameSite')}"
    if cookie.secure:
        yield "Secure"


def _lines(headers: httpx2.Headers) -> Iterator[str]:
    for name, value in headers.multi_items():
        if name.lower() not in _NOT_SHOWN:
            yield f"{name}: {_shown(name.lower(), value)}"


def _shown(name: str, value: str) -> str:
    if name == "authorization":
        scheme, _, token = value.partition(" ")
        return f"{scheme} {shortened(token)}"
    if name in {"x-csrf-token", "dpop"}:
        return shortened(value)
    if name in {"cookie", "set-cookie"}:
        parts = []
        for part in value.split("; "):
            found, equals, secret = part.partition("=")
            parts.append(f"{found}{equals}{shortened(secret) if found.startswith(PREFIX) else secret}")
        return "; ".join(parts)
    return value


_OF_INTEREST: Final = frozenset({"set-cookie", "content-type", "content-length", "www-authenticate", "retry-after"})


def _received(answer: httpx2.Response) -> Iterator[str]:
    yield f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"
    for name, value in answer.headers.multi_items():
        if name.lower() in _OF_INTEREST:
            yield f"{name}: {_shown(name.lower(), value)}"
    body = _object(answer)
    if body:
        yield ""
        yield json.dumps({name: _hidden(name, value) for name, value in body.items()}, ensure_ascii=False)


def _hidden(name: str, value: Any) -> Any:
    if name == "password":
        return "…"
    return shortened(value) if name.endswith("_token") and isinstance(value, str) else value


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
