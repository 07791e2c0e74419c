"""Access tokens as JWTs (RFC 7519), in the profile of RFC 9068: every token has the `typ` `at+jwt`.

`AccessTokenIssuer` writes them, `AccessTokenVerifier` reads them, and both use one canonical spelling. The verifier
therefore has a fast path for a token of ours: it decodes the claims into the struct, encodes them again, and compares
the bytes. A duplicate name, an odd number or an unknown member fails that comparison. A token with other members, or
from another issuer, is parsed by `strict_json`, with the same result.

Deliberately left out: nested and unsecured JWTs, ID tokens, any `typ` but the two spellings of the profile, and
verification without an issuer or without an audience (RFC 8725, 3.8 and 3.9).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

from dutchdoor.errors import DpopRequired, InvalidToken, Misconfigured, Misdirected
from dutchdoor.jose import strict_json
from dutchdoor.jose.claims import MAX_TIME, MAX_TOKEN, Claims, Confirmation
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.jose.jws import encode_header, sign_encoded, take_apart
from dutchdoor.model.ids import new_id
from dutchdoor.model.principal import assurance_of

__all__ = [
    "MAX_LEEWAY",
    "MAX_TIME",
    "REFUSED_NAMES",
    "SIZE_BUDGET",
    "TYPES",
    "AccessTokenIssuer",
    "AccessTokenVerifier",
    "Claims",
    "as_read_back",
    "read_claims",
]

TYPES: Final = frozenset({"at+jwt", "application/at+jwt"})
MAX_LEEWAY: Final = 60.0
SIZE_BUDGET: Final = 2000
"""Bytes of a whole token. Every request carries the token. The strictest common servers accept 8 KiB of headers in all;
a cookie and HTTP/2's header table hold 4 KiB each. Half of 4 KiB leaves as much for all other headers."""

_FIELDS = Claims.__struct_fields__
_MEMBERS: Final = frozenset(_FIELDS) - {"kid", "extra"}

_REGISTERED: Final = (
    *("acr", "act", "may_act", "cnf", "azp", "nonce", "at_hash", "c_hash", "s_hash", "events", "toe", "txn", "sub_jwk"),
    *("alg", "typ", "cty", "crit", "enc", "zip", "jwk", "jku", "x5c", "x5u", "b64", "active", "token_type"),
    *("authorization_details", "sub_id", "vot", "vtm", "__proto__", "constructor", "prototype"),
)
_SECRET: Final = (
    *("password", "passwd", "pwd", "password_hash", "hash", "salt", "secret", "client_secret", "api_key", "apikey"),
    *("access_token", "refresh_token", "id_token", "session_token", "csrf_token", "token", "credential", "credentials"),
    *("private_key", "otp", "totp", "totp_secret", "recovery_code", "recovery_codes", "pin", "cvv", "card_number"),
    *("ssn", "iban"),
)
REFUSED_NAMES: Final = frozenset(_FIELDS) | frozenset(_REGISTERED) | frozenset(_SECRET)
"""Names the operator's hook must not set; case is ignored, and a hyphen counts as an underscore. Our own and the
registered claims: a second `exp`, or a `cnf` that no verifier checked, would change what a token means. And names of
secrets: a JWT is signed, not encrypted, so its bearer can read it."""
_MAX_NAME: Final = 64
_MAX_HEADERS: Final = 16

_read = msgspec.json.Decoder(Claims).decode
_write = msgspec.json.Encoder().encode


class AccessTokenVerifier:
    """Verifies an access token and returns its claims. Safe to share between threads; does no I/O.

    Args:
        keys: the issuer's keys. Only this constructor binds keys to an issuer.
        issuer: what `iss` must equal, character for character.
        audience: our own name, or several; `aud` must contain at least one of them.
        leeway: seconds by which clocks may differ, at most 60.
        longest: seconds a token may live from `iat` to `exp`. A verifier that relies on the revocation log passes the
            authority's own limit, because the log drops an entry after that time.
        clock: returns the time when the caller does not pass it.
    """

    __slots__ = ("audience", "clock", "issuer", "keys", "leeway", "longest")

    keys: KeySet
    """May be replaced at any time, for all threads at once. What was cached about the old keys is dropped with them."""

    def __init__(
        self,
        *,
        keys: Key | KeySet,
        issuer: str,
        audience: str | Iterable[str],
        leeway: float = 10.0,
        longest: float = MAX_TIME,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `Misconfigured` for an empty issuer or audience, or a leeway beyond `MAX_LEEWAY`."""
        names = _names(audience)
        if type(issuer) is not str or not issuer:
            raise Misconfigured("A verifier needs an issuer.")
        if not names or not all(type(name) is str and name for name in names):
            raise Misconfigured("A verifier needs an audience.")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise Misconfigured("The leeway must be 0 to 60 seconds.")
        self.issuer, self.leeway, self.longest, self.clock = issuer, leeway, longest, clock
        self.audience = {name: name for name in names}
        self.keys = keys if isinstance(keys, KeySet) else keys.alone()

    def __call__(self, token: str | bytes, *, now: float | None = None) -> Claims:
        """Verify a bearer token and return its claims.

        Raises:
            InvalidToken: it is malformed, forged, of another type, from or for someone else, expired or not yet valid.
            DpopRequired: it is bound to a key, whose proof would have to be checked.
        """
        claims = self.verify(token, self.clock() if now is None else now)
        if claims.cnf is not None:
            # Accepted as a plain bearer token, it would be of use to a thief (RFC 7800).
            raise DpopRequired("bound to a key whose proof is not checked here")
        return claims

    def verify(self, token: str | bytes, now: float) -> Claims:
        """Verify a token at a given time. The caller checks the proof of the key that `cnf` names, if it names one.

        Raises:
            InvalidToken: it is malformed, forged, of another type, from or for someone else, expired or not yet valid.
        """
        keys = self.keys
        header, head, signed, payload, signature = take_apart(token, keys)
        if header.typ not in TYPES:
            # An ID token or an e-mail link signed by the same key must not pass as an access token.
            raise InvalidToken("typ is not that of an access token")
        # The form of the claims is checked before the signature, to bound the work; their meaning only after it.
        claims = _ours(payload) or read_claims(payload)
        if not header.check(signature, signed):
            raise InvalidToken("the signature is not valid")
        if head not in keys.known_headers:
            keys.remember(head, header)
        if claims.iss != self.issuer:
            raise Misdirected("iss", found=claims.iss, expected=self.issuer)
        aud = claims.aud
        if aud not in self.audience if type(aud) is str else self.audience.keys().isdisjoint(aud):
            named = aud if type(aud) is str else " ".join(aud)
            raise Misdirected("aud", found=named, expected=" ".join(self.audience))
        exp, iat, nbf, leeway = claims.exp, claims.iat, claims.nbf, self.leeway
        if not now < exp + leeway:
            raise InvalidToken("expired")
        if not iat <= now + leeway:
            raise InvalidToken("issued in the future")
        if exp < iat:
            raise InvalidToken("expired before it was issued")
        if exp - iat > self.longest:
            raise InvalidToken("lives longer than any token of this issuer")
        if nbf is not None and not nbf <= now + leeway:
            raise InvalidToken("not valid yet")
        force_setattr(claims, "kid", header.key.kid)
        return claims


def _ours(payload: bytes) -> Claims | None:
    """Read claims in our canonical spelling; return None for any other spelling, valid or not."""
    try:
        claims = _read(payload)
        # Compared with the bytes we would have written: equal bytes cannot be read in a second way.
        if _write(claims) == payload and not claims.kid and not claims.extra:
            return claims
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        pass
    return None


def read_claims(payload: bytes) -> Claims:
    """Read claims in any order and spelling, just as strictly.

    Raises:
        InvalidToken: it is not one strict JSON object, or a claim is missing or of the wrong type.
    """
    try:
        members = strict_json.decode_object(payload)
        ours = {name: value for name, value in members.items() if name in _MEMBERS}
        ours.setdefault("epoch", 0)  # the lowest: any revocation by epoch of the subject covers it
        ours.setdefault("amr", ())
        ours.setdefault("roles", ())
        if "cnf" in ours:
            ours["cnf"] = _confirmation(ours["cnf"])
        extra = {name: value for name, value in members.items() if name not in _MEMBERS}
        return msgspec.convert({**ours, "extra": extra}, Claims)
    except strict_json.MalformedJSON as refusal:
        raise InvalidToken(f"claims: {refusal}") from None
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise InvalidToken("claims: one is missing or of the wrong type") from None


def _confirmation(cnf: object) -> Confirmation:
    try:
        return msgspec.convert(cnf, Confirmation)
    except msgspec.ValidationError:
        raise InvalidToken("bound to a key in a way that is not known here") from None


class AccessTokenIssuer:
    """Writes access tokens for one issuer and its audience.

    Args:
        issuer: `iss`, the public URL.
        audience: `aud`, one name or several.
        budget: bytes a whole token may have.
    """

    __slots__ = ("_audience", "_headers", "budget", "issuer")

    def __init__(self, *, issuer: str, audience: str | Iterable[str], budget: int = SIZE_BUDGET) -> None:
        """Raises `Misconfigured` for an empty issuer or audience, or a budget above what our verifiers accept."""
        names = _names(audience)
        if not issuer:
            raise Misconfigured("An issuer needs a name.")
        if not names or not all(type(name) is str and name for name in names) or len(set(names)) != len(names):
            raise Misconfigured("An audience is at least one name, each once.")
        if not 0 < budget <= MAX_TOKEN:
            raise Misconfigured("The size budget of a token is at most 8,192 bytes.")
        self.issuer, self.budget = issuer, budget
        self._audience = names[0] if len(names) == 1 else names
        self._headers: dict[Key, bytes] = {}

    def __call__(
        self,
        *,
        key: Key,
        now: float,
        lifetime: float,
        subject: str,
        client_id: str,
        epoch: int,
        amr: Iterable[str],
        roles: Iterable[str],
        auth_time: float | None = None,
        session_id: str | None = None,
        scope: str = "",
        extra: Mapping[str, Any] | None = None,
        token_id: str | None = None,
        bound_to: str = "",
    ) -> str:
        """Issue one token.

        Args:
            key: the private key that signs now.
            now: when the session's or client's row was read; `exp` counts from it, in whole seconds, rounded down.
            lifetime: seconds.
            auth_time: when the subject proved who it is; None if no person signed in, as for a client acting for
                itself.
            session_id: None for a stateless token.
            extra: what the operator's hook adds.
            token_id: `jti`; a new one if not given.
            bound_to: the thumbprint of the key whose proof must come with the token; "" for a bearer token.

        Raises:
            Misconfigured: the token is over its budget; a name in `extra` is refused, or JSON cannot express its value;
                the lifetime is not positive; or more than one audience shares a symmetric key.
            InvalidKey: the key has no private part.
        """
        if not lifetime > 0 or not 0 <= now <= now + lifetime <= MAX_TIME:
            raise Misconfigured("A token's lifetime must be more than 0 seconds.")
        if key.symmetric and type(self._audience) is not str:
            raise Misconfigured("HS256 serves one audience: each could mint tokens for the others.")
        methods = tuple(amr)
        payload = _write(
            Claims(
                iss=self.issuer,
                sub=subject,
                aud=self._audience,
                exp=int(now + lifetime),
                iat=int(now),
                jti=new_id() if token_id is None else token_id,
                client_id=client_id,
                sid=session_id,
                epoch=epoch,
                auth_time=None if auth_time is None else int(auth_time),
                amr=methods,
                acr=assurance_of(methods) if methods else "",
                roles=tuple(roles),
                scope=scope,
                cnf=Confirmation(bound_to) if bound_to else None,
            )
        )
        if extra:
            payload = payload[:-1] + b"," + _write(_checked_extra(extra))[1:]
        header = self._headers.get(key)
        if header is None:
            if len(self._headers) >= _MAX_HEADERS:
                self._headers.clear()
            header = self._headers[key] = encode_header(key, "at+jwt")
        token = sign_encoded(header, payload, key)
        if len(token) > self.budget:
            text = (
                f"An access token has {len(token):,} bytes, over its budget of {self.budget:,}. "
                "Put less in it: fewer roles, shorter extra claims, one audience, or ES256 instead of RS256."
            )
            raise Misconfigured(text)
        return token


def as_read_back(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return extra claims as a verifier reads them from a token. Raises `Misconfigured` for what no token may carry."""
    if not extra:
        return {}
    text = _write(_checked_extra(extra))
    if len(text) > SIZE_BUDGET:
        raise Misconfigured(f"The extra claims have {len(text):,} bytes; a whole token has at most {SIZE_BUDGET:,}.")
    read: dict[str, Any] = msgspec.json.decode(text)
    return read


def _checked_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    for name in extra:
        if type(name) is not str or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
            raise Misconfigured("The name of an extra claim is printable text of at most 64 characters.")
        if name.lower().replace("-", "_") in REFUSED_NAMES:
            text = (
                f"The claim {name!r} cannot be added to access tokens: it is reserved, or must not be readable in one."
            )
            raise Misconfigured(text)
    held = dict(extra)
    try:
        strict_json.check_value(held)
    except strict_json.MalformedJSON as refusal:
        raise Misconfigured(f"The extra claims cannot be written: {refusal}.") from None
    return held


def _names(audience: str | Iterable[str]) -> tuple[str, ...]:
    if not isinstance(audience, Iterable):
        raise Misconfigured(f"audience is a name or a list of names, and not {audience!r}.")
    return (audience,) if isinstance(audience, str) else tuple(audience)
