"""An OpenID Connect issuer: its metadata, its keys, the way to its log-in, and the code that comes back.

Discovery 1.0, Core 1.0 with the authorization code flow, PKCE (RFC 7636, S256 alone), the `iss` of an answer
(RFC 9207). Metadata and keys are kept, and refreshed beside a request once they are an hour old. A token with an
unknown key fetches the keys again, once a minute at most: its sender may have made the name up.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

from dutchdoor.errors import InvalidKey, InvalidToken, IssuerUnavailable, UnknownKey
from dutchdoor.issuers.apple_key import apple_secret
from dutchdoor.issuers.identity import Flow, Identity
from dutchdoor.issuers.issuer import Issuer, is_local
from dutchdoor.issuers.outbound import Outbound, refused_us
from dutchdoor.jose.id_token import TENANT, LogoutToken, read_id_token, read_logout_token
from dutchdoor.jose.jwk import MAX_KEYS, KeySet
from dutchdoor.model.ids import encode

__all__ = ["OpenIdProvider"]

FRESH_FOR: Final = 3600.0
"""Seconds for which metadata and keys are not looked at again."""
KEPT_FOR: Final = 24 * 3600.0
"""Seconds for which they are used while the issuer does not answer."""
UNKNOWN_EVERY: Final = 60.0
"""Seconds between two fetches of keys for an unknown `kid`."""
AGAIN_AFTER: Final = 5.0
"""Seconds without a try after one that failed: waiting people must not wait for a time-out each."""
TEXT_AT_MOST: Final = 2048
AMR_AT_MOST: Final = 10

_ASYMMETRIC: Final = frozenset({
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
})  # fmt: skip
OK: Final = 200
BUSY: Final = frozenset({408, 429})
FAILED: Final = 500

T = TypeVar("T")


class Metadata(NamedTuple):
    """What is used of an issuer's metadata."""

    authorization: str
    token: str
    jwks: str
    userinfo: str
    algorithms: frozenset[str]
    by_post: bool
    """Whether the client secret goes into the form, because the issuer reads it nowhere else."""
    states_iss: bool


class Keys(NamedTuple):
    keys: KeySet
    issuers: Mapping[str, str]
    """The issuer that a key is for, where it says so."""


class OpenIdProvider:
    """Speaks to one issuer."""

    def __init__(self, issuer: Issuer, outbound: Outbound, clock: Callable[[], float]) -> None:
        self.issuer, self._outbound, self._clock = issuer, outbound, clock
        self._metadata = Fetched(self._fetch_metadata, clock)
        self._keys = Fetched(self._fetch_keys, clock)

    async def way_to(self, flow: Flow) -> str:
        known = await self._metadata.get()
        asked = {
            "response_type": "code",
            "client_id": self.issuer.client_id,
            "redirect_uri": flow.redirect_uri,
            "scope": self.issuer.scope,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": encode(hashlib.sha256(flow.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        if self.issuer.form_post:
            asked["response_mode"] = "form_post"
        if flow.anew:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{known.authorization}{'&' if '?' in known.authorization else '?'}{urlencode(asked)}"

    async def identify(self, code: str, flow: Flow, *, iss: str | None) -> Identity:
        known = await self._metadata.get()
        self._check_sender(iss, known)
        answer = await self._exchange(known, code, flow)
        token, access = answer.get("id_token"), answer.get("access_token")
        if type(token) is not str:
            raise InvalidToken("the answer holds no ID token")
        access = access if type(access) is str else ""

        def read(held: Keys) -> Mapping[str, Any]:
            return read_id_token(
                token,
                held.keys,
                algorithms=known.algorithms,
                issuer=self.issuer.url,
                client_id=self.issuer.client_id,
                nonce=flow.nonce,
                now=self._clock(),
                key_issuers=held.issuers,
                access_token=access,
                proved_after=flow.began_at if flow.anew else None,
            )

        claims = await self._with_keys(read)
        if "email" not in claims and known.userinfo and access:
            claims = {**await self._more(known.userinfo, access, claims["sub"]), **claims}
        return _identity(claims)

    async def read_logout(self, token: str) -> LogoutToken:
        """Check a log-out token. Raises `InvalidToken`, `IssuerUnavailable`."""
        known = await self._metadata.get()
        return await self._with_keys(
            lambda held: read_logout_token(
                token,
                held.keys,
                algorithms=known.algorithms,
                issuer=self.issuer.url,
                client_id=self.issuer.client_id,
                now=self._clock(),
                key_issuers=held.issuers,
            )
        )

    async def close(self) -> None:
        self._metadata.stop()
        self._keys.stop()

    def _check_sender(self, iss: str | None, known: Metadata) -> None:
        """Refuse an answer that names another issuer (RFC 9207): a mix-up would send it the code of this one."""
        if TENANT in self.issuer.url:
            return  # the answer cannot name the tenant before the token does
        expected = self.issuer.url
        if iss is None:
            if known.states_iss:
                raise InvalidToken("the answer names no issuer")
        elif not hmac.compare_digest(iss.encode("utf-8", "replace"), expected.encode()):
            raise InvalidToken("the answer is one of another issuer")

    async def _exchange(self, known: Metadata, code: str, flow: Flow) -> Mapping[str, Any]:
        issuer, basic = self.issuer, None
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "code_verifier": flow.verifier,
        }
        secret = apple_secret(issuer, self._clock()) if issuer.key_id else issuer.client_secret
        if secret and not known.by_post:
            basic = issuer.client_id, secret
        else:
            form["client_id"] = issuer.client_id
            if secret:
                form["client_secret"] = secret
        status, answer = await self._outbound.post(known.token, form, basic=basic)
        if status == OK:
            return answer
        error = answer.get("error")
        if error == "invalid_grant":
            raise InvalidToken("the issuer refuses the code: it is used, too old, or another client's")
        if status in BUSY or status >= FAILED:
            raise IssuerUnavailable(f"issuer: {issuer.name} answered {status} to a code")
        raise refused_us(issuer.name, issuer.title, status, error)

    async def _more(self, url: str, access: str, subject: str) -> Mapping[str, Any]:
        """Return the claims of the userinfo endpoint. They are the person's only if they name the same subject."""
        claims = await self._outbound.get(url, bearer=access)
        if not isinstance(claims, dict) or claims.get("sub") != subject:
            raise InvalidToken("the user info is of another person")
        return {name: claims[name] for name in ("email", "email_verified", "name") if name in claims}

    async def _with_keys(self, read: Callable[[Keys], T]) -> T:
        try:
            return read(await self._keys.get())
        except UnknownKey:
            # The issuer may have rotated its keys a moment ago.
            return read(await self._keys.again())

    async def _fetch_metadata(self) -> Metadata:
        base = self.issuer.url.replace(TENANT, "common").rstrip("/")
        found = await self._outbound.get(f"{base}/.well-known/openid-configuration")
        if not isinstance(found, dict) or found.get("issuer") != self.issuer.url:
            # Discovery 1.0, 4.3: otherwise one issuer could speak for another.
            raise IssuerUnavailable(f"issuer: the metadata of {self.issuer.name} names another issuer than its url")
        userinfo = self._endpoint(found, "userinfo_endpoint") if "userinfo_endpoint" in found else ""
        listed = found.get("id_token_signing_alg_values_supported")
        algorithms = _ASYMMETRIC & set(_texts(listed) or ["RS256"])
        methods = _texts(found.get("token_endpoint_auth_methods_supported")) or ["client_secret_basic"]
        return Metadata(
            self._endpoint(found, "authorization_endpoint"),
            self._endpoint(found, "token_endpoint"),
            self._endpoint(found, "jwks_uri"),
            userinfo,
            algorithms,
            by_post="client_secret_basic" not in methods,
            states_iss=found.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, found: Mapping[str, Any], name: str) -> str:
        url = found.get(name)
        text = url if type(url) is str and url.isascii() and url.isprintable() and len(url) <= TEXT_AT_MOST else ""
        parts = urlsplit(text)
        plain = is_local(self.issuer.url) and is_local(text)
        if not parts.hostname or parts.fragment or parts.username or not (parts.scheme == "https" or plain):
            raise IssuerUnavailable(f"issuer: the metadata of {self.issuer.name} has no acceptable {name}")
        return text

    async def _fetch_keys(self) -> Keys:
        known = await self._metadata.get()
        found = await self._outbound.get(known.jwks)
        listed = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(listed, list) or not 0 < len(listed) <= MAX_KEYS:
            raise IssuerUnavailable(f"issuer: {self.issuer.name} has no keys, or too many")
        usual = next((alg for alg in sorted(known.algorithms) if alg[:2] in {"RS", "PS"}), "RS256")
        # RFC 7517 lets a key leave its algorithm open. RSA has several: the issuer's metadata decides.
        whole = [{**each, "alg": usual} if _leaves_alg_open(each) else each for each in listed if not _is_secret(each)]
        try:
            keys = KeySet.from_jwks({"keys": whole})
        except InvalidKey as exc:
            raise IssuerUnavailable(f"issuer: a key of {self.issuer.name} must not be used: {exc.reason}") from None
        issuers = {
            each["kid"]: each["issuer"]
            for each in whole
            if isinstance(each, dict) and type(each.get("kid")) is str and type(each.get("issuer")) is str
        }
        return Keys(keys, issuers)


class Fetched(Generic[T]):
    """A value that is fetched when it is first needed, kept, and refreshed beside a request that uses the old one."""

    def __init__(self, fetch: Callable[[], Awaitable[T]], now: Callable[[], float]) -> None:
        self._fetch, self._now = fetch, now
        self._value: T | None = None
        self._at, self._failed_at, self._asked_again_at = -math.inf, -math.inf, -math.inf
        self._failure = ""
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def get(self) -> T:
        age = self._now() - self._at
        if self._value is None or age > KEPT_FOR:
            return await self._fetch_once(self._at)
        if age > FRESH_FOR and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh())
        return self._value

    async def again(self) -> T:
        """Return the value, fetched anew unless that was done a short while ago."""
        if self._now() - self._asked_again_at < UNKNOWN_EVERY and not self._lock.locked():
            return await self.get()
        self._asked_again_at = self._now()
        return await self._fetch_once(self._at)  # waits for a fetch that is under way

    def stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()

    async def _refresh(self) -> None:
        with suppress(IssuerUnavailable):  # the old value serves, and the next request tries again
            await self._fetch_once(self._at)

    async def _fetch_once(self, seen: float) -> T:
        async with self._lock:
            if self._value is not None and self._at > seen:  # another request fetched it meanwhile
                return self._value
            if self._now() - self._failed_at < AGAIN_AFTER:
                raise IssuerUnavailable(self._failure, retry_after=AGAIN_AFTER)
            try:
                value = await self._fetch()
            except IssuerUnavailable as exc:
                self._failed_at, self._failure = self._now(), exc.reason
                raise
            self._value, self._at, self._failed_at = value, self._now(), -math.inf
            return value


def _identity(claims: Mapping[str, Any]) -> Identity:
    email, name, sid = claims.get("email"), claims.get("name"), claims.get("sid")
    amr = claims.get("amr")
    at = claims.get("auth_time")
    return Identity(
        issuer=claims["iss"],
        subject=claims["sub"],
        email=email if type(email) is str and len(email) <= TEXT_AT_MOST else "",
        # `true` alone: some issuers write the text "false".
        email_verified=claims.get("email_verified") is True,
        name=name if type(name) is str else "",
        sid=sid if type(sid) is str and len(sid) <= 255 else "",  # noqa: PLR2004 - as a log-out token may hold
        auth_time=float(at) if isinstance(at, int | float) else None,
        amr=tuple(each for each in _texts(amr)[:AMR_AT_MOST] if each.isidentifier() and len(each) <= 32),  # noqa: PLR2004
        claims=claims,
    )


def _leaves_alg_open(key: object) -> bool:
    return isinstance(key, dict) and key.get("kty") == "RSA" and "alg" not in key and key.get("use") != "enc"


def _is_secret(key: object) -> bool:
    return isinstance(key, dict) and key.get("kty") == "oct"  # anyone can read this set


def _texts(value: object) -> list[str]:
    return [each for each in value if type(each) is str] if isinstance(value, list) else []
