"""`SessionAuth`: an httpx2 client whose requests carry a fresh access token.

A request takes the token from memory. Shortly before the token expires, or when a server refuses it, one thread gets
another with the refresh token, and all others wait for it. Each refresh token works once. So the next one is in the
storage before anything uses it, and after a lost answer the one before is sent again, which the server allows.

Asynchronous clients do the same work in a thread, so that one object serves threads, tasks and event loops together.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from functools import lru_cache
from typing import Any, Final, TypeAlias

import anyio.to_thread
import httpx2

from dutchdoor.client.dpop import ProofKey
from dutchdoor.client.server import Server
from dutchdoor.client.storage import MemoryStorage, Storage
from dutchdoor.client.tokens import Tokens, check_url, read_tokens
from dutchdoor.errors import (
    DpopRequired,
    InvalidDpopProof,
    InvalidKey,
    InvalidToken,
    Misconfigured,
    NotAuthenticated,
    NotFound,
    RateLimited,
    SignInUnfinished,
    Superseded,
    Unavailable,
)
from dutchdoor.model.spelling import spelt

__all__ = ["SessionAuth"]

SecondFactor: TypeAlias = Callable[[tuple[str, ...]], tuple[str, str]]
"""Gets the methods of second factors, and returns the one that was chosen and the response to it."""
_TRIES: Final = 3
"""Calls of one refresh, where the server is out of reach or asks to wait a little."""
_WAITS_AT_MOST: Final = 5.0
"""Seconds that a request waits for the server between two of them. Where it asks for more, the request fails."""
_JUST_REFRESHED: Final = 5.0
"""Seconds for which a refused token is not refreshed again: the refusal has another reason than its age."""
_UNAUTHORIZED: Final = 401
_CHALLENGE, _NONCE = "www-authenticate", "use_dpop_nonce"


class SessionAuth(httpx2.Auth):
    """Signs in at a dutchdoor server, and sends a fresh access token with each request.

        auth = SessionAuth("https://auth.example.com", login="ada@example.com", password=password)
        client = httpx2.Client(base_url="https://api.example.com", auth=auth)

    The token goes with every request that you send with this: use a client of its own for other hosts. Without a
    `login` and a `refresh_token`, the storage has the tokens of an earlier sign-in.

    With `bound=True`, or where the server demands it, the sign-in is bound to a key of this program (DPoP, RFC 9449):
    each request has a proof of it, and a copy of the tokens is worth nothing. Each API that you call must check such
    proofs.

    Args:
        url: the server's public URL, with the base path of its API if it has one.
        login: the e-mail address to sign in with, at the first request and again when the session has ended.
        password: the password for it.
        mailed_code: asks the person for the code that the server mails to `login`, in place of the password, where the
            server offers that. It is called once the mail is on its way, and returns what they type.
        second_factor: asks the person for a second factor, where the account has one. It gets the methods, such as
            `("recovery_code", "totp")`, and returns the one that was chosen and the code.
        refresh_token: a refresh token that the program was given, instead of both. It is used once, if the storage has
            none.
        bound: whether to bind the sign-in to a key, which is kept beside the tokens. A server that does not bind gives
            bearer tokens.
        storage: where tokens are kept. In memory if not given: `FileStorage` and `KeyringStorage` keep the session for
            the next run.
        client: the httpx2 client to call the server with, for a proxy or a CA of your own. It follows no redirects.
        clock: the time of day in seconds since 1970, for tests.
        sleep: what waits between two tries, for tests.

    Raises:
        Misconfigured: the URL is plain HTTP to another machine, or arguments contradict each other.
    """

    @spelt
    def __init__(
        self,
        url: str,
        *,
        login: str = "",
        password: str = "",
        mailed_code: Callable[[], str] | None = None,
        second_factor: SecondFactor | None = None,
        refresh_token: str = "",
        bound: bool = False,
        storage: Storage | None = None,
        client: httpx2.Client | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if bool(login) != bool(password or mailed_code) or (password and mailed_code):
            raise Misconfigured("SessionAuth takes login together with password, or with mailed_code.")
        if login and refresh_token:
            raise Misconfigured("SessionAuth takes a login, or a refresh_token.")
        self.server = Server(url, client, clock=clock)
        self._bound = bound
        self._login, self._password, self._given = login, password, refresh_token
        self._mailed_code, self._second_factor = mailed_code, second_factor
        self._storage = storage or MemoryStorage()
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._tokens: Tokens | None = None
        self._got_at = self._not_before = -1.0

    def __repr__(self) -> str:
        return f"SessionAuth({self.server.url!r})"

    # For httpx2

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send a request with the token, and once more with another if it is refused. httpx2 calls this."""
        tokens, may_repeat = self.fresh(), _may_repeat(request)
        response = yield self._with(request, tokens)
        if self._may_do_better(request, response, tokens) and may_repeat:
            response = yield self._with(request, tokens)
        if may_repeat and _is_refused(response):
            newer = self._fresh(rejected=tokens.access_token)
            if newer.access_token != tokens.access_token:
                yield self._with(request, newer)

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Do what `sync_auth_flow` does with a request, for `httpx2.AsyncClient`."""
        tokens, may_repeat = await self.afresh(), _may_repeat(request)
        response = yield self._with(request, tokens)
        if self._may_do_better(request, response, tokens) and may_repeat:
            response = yield self._with(request, tokens)
        if may_repeat and _is_refused(response):
            newer = await anyio.to_thread.run_sync(self._fresh, tokens.access_token)
            if newer.access_token != tokens.access_token:
                yield self._with(request, newer)

    def _with(self, request: httpx2.Request, tokens: Tokens) -> httpx2.Request:
        request.headers.update(self._headers(tokens, request.method, str(request.url)))
        return request

    def _headers(self, tokens: Tokens, method: str, url: str) -> dict[str, str]:
        parts = httpx2.URL(url)
        # Everyone on the way could read the token.
        check_url(str(parts.copy_with(path="/", query=None, fragment=None)))
        token = tokens.access_token
        if not tokens.key:
            return {"authorization": f"Bearer {token}"}
        return {"authorization": f"DPoP {token}", "dpop": self.server.nonces.proof(_key(tokens), method, url, token)}

    def _may_do_better(self, request: httpx2.Request, response: httpx2.Response, tokens: Tokens) -> bool:
        """Keep the nonce of an answer, and return whether another proof may be right where this one was refused."""
        learnt = bool(tokens.key) and self.server.nonces.learn(str(request.url), response.headers)
        return learnt and response.status_code == _UNAUTHORIZED

    # For everything else

    def token(self) -> str:
        """Return an access token that has some time left: from memory, or by a refresh, or by signing in.

        Raises:
            NotAuthenticated: the session has ended, and there is no password to sign in with.
            WrongCredentials: the password is not right.
            Unavailable, RateLimited: the server cannot be asked now; `retry_after` seconds.
            Misconfigured: the server is none of dutchdoor, or the storage cannot be used.
        """
        return self.fresh().access_token

    def fresh(self) -> Tokens:
        """Return the tokens, with an access token that has some time left. Raises what `token` raises."""
        tokens = self._tokens
        if tokens is not None and tokens.is_fresh(self._clock()):
            return tokens
        return self._fresh()

    async def atoken(self) -> str:
        """Do what `token` does, without blocking the event loop."""
        return (await self.afresh()).access_token

    async def afresh(self) -> Tokens:
        """Do what `fresh` does, without blocking the event loop."""
        tokens = self._tokens
        if tokens is not None and tokens.is_fresh(self._clock()):
            return tokens
        return await anyio.to_thread.run_sync(self._fresh)

    def headers(self, method: str, url: str) -> dict[str, str]:
        """Return the headers of one request to a `url` by a `method`, for something else than httpx2: `authorization`
        and, if the sign-in is bound, the `dpop` of this one request. Raises what `token` raises.
        """
        return self._headers(self.fresh(), method, url)

    def call(self, method: str, path: str, body: dict[str, object] | None = None) -> Any:
        """Call the server's own API as this account, and return what the answer holds: `auth.call("GET", "/auth/me")`.
        Raises what `token` raises, and the error that the server answers.
        """
        tokens = self.fresh()
        try:
            return self._call(tokens, method, path, body)
        except InvalidToken:  # revoked, or stale since roles have changed
            newer = self._fresh(tokens.access_token)
            if newer.access_token == tokens.access_token:
                raise
            return self._call(newer, method, path, body)

    def _call(self, tokens: Tokens, method: str, path: str, body: dict[str, object] | None) -> Any:
        key = _key(tokens) if tokens.key else None
        return self.server.call(method, path, body, token=tokens.access_token, key=key)

    def log_out(self) -> None:
        """Revoke the session at the server, and forget its tokens. Idempotent.

        Raises:
            Unavailable: the server cannot be asked. The tokens are kept: call again.
        """
        with self._lock:
            tokens = self._newest()
            if tokens is not None:
                with contextlib.suppress(NotAuthenticated):  # the session has ended already
                    self.server.call("POST", "/auth/logout", {"refresh_token": tokens.refresh_token})
                self._forget()
            self._given = ""

    async def alog_out(self) -> None:
        """Do what `log_out` does, without blocking the event loop."""
        await anyio.to_thread.run_sync(self.log_out)

    def close(self) -> None:
        """Close the connections to the server. The session goes on."""
        self.server.close()

    # One at a time

    def _fresh(self, rejected: str = "") -> Tokens:
        """Return fresh tokens, without the `rejected` access token. One thread gets them, and the others wait."""
        with self._lock:
            now = self._clock()
            tokens = self._tokens
            if tokens is not None and tokens.access_token == rejected and now - self._got_at < _JUST_REFRESHED:
                return tokens
            if tokens is None or tokens.access_token == rejected or not tokens.is_fresh(now):
                tokens = self._newest()  # another process may have refreshed
            if tokens is not None and tokens.access_token != rejected and tokens.is_fresh(now):
                self._tokens = tokens
                return tokens
            is_usable = tokens is not None and tokens.access_token != rejected and tokens.is_valid(now)
            if tokens is not None and is_usable and now < self._not_before:
                return tokens
            tries = 1 if is_usable else _TRIES
            try:
                return self._kept(self._signed_in() if tokens is None else self._refreshed(tokens, tries))
            except (Unavailable, RateLimited) as exc:
                self._not_before = self._clock() + exc.retry_after
                if tokens is None or not is_usable:
                    raise
                self._tokens = tokens  # an outage ends no session: this one is good for some seconds more
                return tokens

    def _newest(self) -> Tokens | None:
        stored = self._storage.load()
        if stored is not None and stored.server != self.server.url:
            raise Misconfigured(
                f"The storage has the tokens of {stored.server}. Use another one for {self.server.url}."
            )
        if stored is None and self._given:
            return Tokens(server=self.server.url, login="", refresh_token=self._given)
        return stored

    def _kept(self, tokens: Tokens) -> Tokens:
        # Stored first: a process that dies between the two would have lost the only refresh token that works.
        self._storage.save(tokens)
        self._tokens, self._got_at, self._given = tokens, self._clock(), ""
        return tokens

    def _forget(self) -> None:
        self._tokens = None
        self._storage.clear()

    def _signed_in(self) -> Tokens:
        if not self._login:
            raise NotAuthenticated("no tokens are stored", message=f"Not signed in at {self.server.url}.")
        proof = self._first_proof()
        try:
            return self._signed_in_with(proof, ProofKey.generate() if self._bound else None)
        except DpopRequired:  # the policy of the server: `device_binding`
            if self._bound:
                raise
            return self._signed_in_with(proof, ProofKey.generate())

    def _first_proof(self) -> dict[str, object]:
        """Return the login and the password, or the mailed code and the token that came with it."""
        if self._mailed_code is None:
            return {"email": self._login, "password": self._password}
        sent = self.server.call("POST", "/auth/code", {"email": self._login})
        if not isinstance(sent, dict):
            raise Unavailable("the answer holds no token")
        return {"token": sent.get("token", ""), "code": self._mailed_code()}

    def _signed_in_with(self, proof: dict[str, object], key: ProofKey | None) -> Tokens:
        asked_at = self._clock()
        # Not repeated with a code: after a lost answer it is used up.
        path, tries = ("/auth/login/code", 1) if "code" in proof else ("/auth/login", _TRIES)
        try:
            answer = self._asked(path, {**proof, "mode": "hybrid", "transport": "body"}, tries, key)
        except SignInUnfinished as unfinished:
            answer = self._finished(unfinished, key)
        text = "" if key is None else key.text()
        return read_tokens(answer, server=self.server.url, asked_at=asked_at, key=text)

    def _finished(self, unfinished: SignInUnfinished, key: ProofKey | None) -> object:
        """Go on with a sign-in that takes a second factor. Raises `NotAuthenticated` if no person can be asked."""
        url = self.server.url
        if unfinished.enrol:
            message = f"Your account at {url} needs a second factor first. Set one up on its page."
            raise NotAuthenticated("a second factor has to be enrolled", message=message)
        if self._second_factor is None:
            message = f"Your account at {url} asks for a second factor. Pass second_factor= to SessionAuth."
            raise NotAuthenticated("a second factor is asked for", message=message)
        method, response = self._second_factor(unfinished.methods)
        proof: dict[str, object] = {"token": unfinished.token, "method": method, "response": response}
        # Not repeated: after a lost answer the code is used up.
        return self.server.call("POST", "/auth/login/step", {**proof, "transport": "body"}, key=key)

    def _refreshed(self, tokens: Tokens, tries: int) -> Tokens:
        asked_at = self._clock()
        try:
            key = _key(tokens) if tokens.key else None
            answer = self._asked("/auth/refresh", {"refresh_token": tokens.refresh_token}, tries, key)
            return read_tokens(answer, server=self.server.url, asked_at=asked_at, key=tokens.key)
        except Superseded:
            newer = self._newest()
            if newer is not None and newer.refresh_token != tokens.refresh_token:  # another process was faster
                return self._refreshed(newer, tries)
            return self._after_the_end()
        except InvalidDpopProof:  # the session has not ended
            raise
        except (InvalidToken, NotFound):
            return self._after_the_end()

    def _after_the_end(self) -> Tokens:
        """Sign in again after the session has ended, if there is a login. Raises `NotAuthenticated`."""
        self._forget()
        self._given = ""
        if self._login:
            return self._signed_in()
        raise NotAuthenticated(
            "the session has ended", message=f"The session at {self.server.url} has ended. Sign in again."
        )

    def _asked(self, path: str, body: dict[str, object], tries: int, key: ProofKey | None) -> object:
        """Call the server, and again after a lost answer: it gives the same next token then."""
        for left in reversed(range(tries)):
            try:
                return self.server.call("POST", path, body, key=key)  # each try has a proof of its own
            except Unavailable as exc:
                if not left or exc.retry_after > _WAITS_AT_MOST:
                    raise
                self._sleep(exc.retry_after)
        raise AssertionError  # the last try returns or raises


def _key(tokens: Tokens) -> ProofKey:
    """Return the key of a bound sign-in, which was read once. Raises `Misconfigured` for a damaged one."""
    try:
        return _read_key(tokens.key)
    except InvalidKey:
        raise Misconfigured("The stored key of the sign-in is damaged. Remove the tokens, and sign in again.") from None


_read_key = lru_cache(maxsize=16)(ProofKey.parse)


def _may_repeat(request: httpx2.Request) -> bool:
    """Return whether a request can be sent twice. A body that is streamed is gone then: the rest of it would arrive as
    the whole.
    """
    return isinstance(request.stream, httpx2.ByteStream)


def _is_refused(response: httpx2.Response) -> bool:
    """Return whether a token was refused that another one may replace. Where the owner must prove who they are again
    (RFC 9470), a newer token says nothing else.
    """
    challenge = response.headers.get(_CHALLENGE, "")
    return response.status_code == _UNAUTHORIZED and not any(
        reason in challenge for reason in ("insufficient_user_authentication", _NONCE)
    )
