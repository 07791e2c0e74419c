"""ID tokens (OpenID Connect Core 1.0, 2) and log-out tokens (Back-Channel Logout 1.0, 2.4) of other issuers.

They are read as strictly as our own tokens: one compact JWS of bounded length, one strict JSON object, a key that was
chosen in advance and has one asymmetric algorithm. An issuer's client secret never checks a signature. The `alg` must
also be one that the issuer's metadata lists.

An issuer with many tenants writes `{tenantid}` in its issuer URL. The token names the tenant in `tid`, and its `iss`
must be that URL with the tenant in place.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from dutchdoor.errors import InvalidToken
from dutchdoor.jose import jws, strict_json
from dutchdoor.jose.claims import MAX_TIME
from dutchdoor.jose.jwk import KeySet
from dutchdoor.model.ids import encode

__all__ = ["AGE_AT_MOST", "LEEWAY", "TENANT", "LogoutToken", "read_id_token", "read_logout_token"]

LEEWAY: Final = 60.0
"""Seconds by which the clock of an issuer may differ."""
AGE_AT_MOST: Final = 600.0
"""Seconds since a token was issued. An ID token comes in answer to a code that was used just now."""
TENANT: Final = "{tenantid}"
SUBJECT_AT_MOST: Final = 255
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"

_ID_TYPES: Final = frozenset({"", "jwt", "application/jwt"})
_LOGOUT_TYPES: Final = frozenset({*_ID_TYPES, "logout+jwt", "application/logout+jwt"})
_GUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class LogoutToken:
    """What a checked log-out token names: a session of the issuer (`sid`), a subject, or both."""

    __slots__ = ("id", "issuer", "sid", "subject")

    def __init__(self, issuer: str, subject: str, sid: str, id: str) -> None:
        self.issuer, self.subject, self.sid, self.id = issuer, subject, sid, id


def read_id_token(
    token: str,
    keys: KeySet,
    *,
    algorithms: Collection[str],
    issuer: str,
    client_id: str,
    nonce: str,
    now: float,
    key_issuers: Mapping[str, str] = MappingProxyType({}),
    access_token: str = "",
    proved_after: float | None = None,
) -> Mapping[str, Any]:
    """Check an ID token and return its claims.

    Args:
        token: the compact JWS.
        keys: the issuer's keys.
        algorithms: the signature algorithms that the issuer's metadata lists.
        issuer: the issuer's URL, perhaps with `{tenantid}`.
        client_id: our name at the issuer.
        nonce: what this sign-in sent.
        now: the instant.
        key_issuers: the issuer that a key is for, by its `kid`, where the key set says so, perhaps with `{tenantid}`.
        access_token: the access token beside it, which `at_hash` must be of; "" for none.
        proved_after: the instant after which the person must have proved who they are (`auth_time`), less the leeway;
            None if any will do.

    Raises:
        InvalidToken: one of the checks failed; the reason says which.
        UnknownKey: its key is unknown: the issuer may have a new one.
    """
    claims, header = _signed(token, keys, algorithms, _ID_TYPES)
    _check_parties(claims, issuer, client_id, now)
    _check_key(claims, header, key_issuers)
    _text(claims, "sub", SUBJECT_AT_MOST)
    found = claims.get("nonce")
    if type(found) is not str or not hmac.compare_digest(found.encode("utf-8", "replace"), nonce.encode()):
        raise InvalidToken("the nonce is not that of this sign-in")  # the token of another sign-in was injected
    if _time(claims, "exp") <= now - LEEWAY:
        raise InvalidToken("expired")
    if "nbf" in claims and _time(claims, "nbf") > now + LEEWAY:
        raise InvalidToken("not valid yet")
    if "at_hash" in claims and access_token:
        expected = _half_hash(access_token, header.alg)
        stated = claims["at_hash"]
        if type(stated) is not str or not hmac.compare_digest(stated.encode("utf-8", "replace"), expected.encode()):
            raise InvalidToken("at_hash is not that of the access token")
    if "auth_time" in claims and _time(claims, "auth_time") > now + LEEWAY:
        raise InvalidToken("auth_time is in the future")
    if proved_after is not None and ("auth_time" not in claims or _time(claims, "auth_time") < proved_after - LEEWAY):
        raise InvalidToken("the issuer did not ask for a new proof")
    return claims


def read_logout_token(
    token: str,
    keys: KeySet,
    *,
    algorithms: Collection[str],
    issuer: str,
    client_id: str,
    now: float,
    key_issuers: Mapping[str, str] = MappingProxyType({}),
) -> LogoutToken:
    """Check a log-out token and return what it names. The arguments are those of `read_id_token`.

    Raises:
        InvalidToken: one of the checks failed; the reason says which.
        UnknownKey: its key is unknown: the issuer may have a new one.
    """
    claims, header = _signed(token, keys, algorithms, _LOGOUT_TYPES)
    _check_parties(claims, issuer, client_id, now)
    _check_key(claims, header, key_issuers)
    events = claims.get("events")
    if type(events) is not dict or type(events.get(LOGOUT_EVENT)) is not dict:
        raise InvalidToken("not a log-out token")
    if "nonce" in claims:
        raise InvalidToken("an ID token in place of a log-out token")
    if "exp" in claims and _time(claims, "exp") <= now - LEEWAY:
        raise InvalidToken("expired")
    subject = _text(claims, "sub", SUBJECT_AT_MOST) if "sub" in claims else ""
    sid = _text(claims, "sid", SUBJECT_AT_MOST) if "sid" in claims else ""
    if not subject and not sid:
        raise InvalidToken("neither sub nor sid")
    return LogoutToken(claims["iss"], subject, sid, _text(claims, "jti", SUBJECT_AT_MOST))


def _signed(
    token: str, keys: KeySet, algorithms: Collection[str], types: Collection[str]
) -> tuple[Mapping[str, Any], jws.Header]:
    header, head, signed, payload, signature = jws.take_apart(token, keys)
    if header.key.symmetric or header.alg not in algorithms:
        raise InvalidToken("an alg that the issuer does not list")
    if (header.typ or "").lower() not in types:
        raise InvalidToken("typ is that of another kind of token")
    if not header.check(signature, signed):
        raise InvalidToken("the signature is not valid")
    if head not in keys.known_headers:
        keys.remember(head, header)
    try:
        return strict_json.decode_object(payload), header
    except strict_json.MalformedJSON as refusal:
        raise InvalidToken(f"claims: {refusal}") from None


def _check_parties(claims: Mapping[str, Any], issuer: str, client_id: str, now: float) -> None:
    if claims.get("iss") != _issuer_of(claims, issuer):
        raise InvalidToken("iss is not the issuer")
    aud = claims.get("aud")
    names: list[Any] = aud if isinstance(aud, list) else [aud]
    if not names or not all(isinstance(name, str) for name in names):
        raise InvalidToken("aud is missing or malformed")
    if client_id not in names:
        raise InvalidToken("aud is another client")
    # A token for several clients is for us only if it was issued to us (OpenID Connect Core 1.0, 3.1.3.7).
    if ("azp" in claims or len(names) > 1) and claims.get("azp") != client_id:
        raise InvalidToken("azp is another client")
    if not now - AGE_AT_MOST - LEEWAY <= _time(claims, "iat") <= now + LEEWAY:
        raise InvalidToken("issued too long ago, or in the future")


def _check_key(claims: Mapping[str, Any], header: jws.Header, key_issuers: Mapping[str, str]) -> None:
    # The key of one tenant must not sign for another one (Microsoft's own services once missed this).
    stated = key_issuers.get(header.key.kid)
    if stated is not None and claims["iss"] != _issuer_of(claims, stated):
        raise InvalidToken("the key is for another tenant")


def _issuer_of(claims: Mapping[str, Any], issuer: str) -> str:
    if TENANT not in issuer:
        return issuer
    tenant = claims.get("tid")
    if type(tenant) is not str or not _GUID.fullmatch(tenant):
        raise InvalidToken("tid is missing or malformed")
    return issuer.replace(TENANT, tenant)


def _text(claims: Mapping[str, Any], name: str, at_most: int) -> str:
    value = claims.get(name)
    if type(value) is not str or not 0 < len(value) <= at_most or not (value.isascii() and value.isprintable()):
        raise InvalidToken(f"{name} is missing or malformed")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise InvalidToken(f"{name} is missing or malformed")
    return float(value)


def _half_hash(text: str, alg: str) -> str:
    """Return the left half of a hash, by the digest of the signature (OpenID Connect Core 1.0, 3.1.3.6)."""
    size = alg[-3:] if alg[-3:] in {"256", "384", "512"} else "512"  # Ed25519 hashes by SHA-512
    digest = hashlib.new(f"sha{size}", text.encode()).digest()
    return encode(digest[: len(digest) // 2])
