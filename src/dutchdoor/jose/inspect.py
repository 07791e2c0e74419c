"""Explains what a token contains and why a verifier would refuse it.

`explain` is what `dutchdoor token inspect` and `verify` print. It checks each point separately and continues after the
first fault, because a developer who debugs a token needs all faults at once. The last finding is the verifier's own
answer, so the explanation and the verifier cannot differ.

A finding proves nothing. It quotes claims, never the signature or the whole token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from msgspec import Struct

from dutchdoor.errors import InvalidToken
from dutchdoor.jose import strict_json
from dutchdoor.jose.access_token import TYPES, AccessTokenVerifier
from dutchdoor.jose.claims import MAX_TIME, MAX_TOKEN
from dutchdoor.jose.jwk import ALGORITHMS, Key, KeySet
from dutchdoor.jose.jws import decode_part, take_apart

__all__ = ["Finding", "explain"]

_REQUIRED: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id")
_BRINGS_A_KEY: Final = ("jwk", "jku", "x5u", "x5c")
_SHOWN: Final = 120
_JWS_PARTS, _JWE_PARTS = 3, 5
_LONG_LIFE: Final = 3600
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Finding(Struct, frozen=True):
    """One statement about a token. `level` is `says` (its content), `fine`, `warning`, or `wrong` (a reason to refuse
    it).
    """

    level: Literal["says", "fine", "warning", "wrong"]
    text: str


def explain(
    token: str | bytes,
    keys: Key | KeySet | None = None,
    *,
    now: float,
    issuer: str | None = None,
    audience: str | Iterable[str] | None = None,
    leeway: float = 10.0,
) -> list[Finding]:
    """Explain what a token contains and what a verifier would answer. Raises no exception, whatever the token holds.

    Args:
        token: as the user pasted it.
        keys: the issuer's; without them the signature is not checked, and a finding says so.
        now: the time to judge `exp`, `iat` and `nbf` by.
        issuer: what `iss` must be; not compared if not given.
        audience: what `aud` must name; not compared if not given.
        leeway: seconds by which clocks may differ.
    """
    text = token.decode("latin-1") if isinstance(token, bytes) else token
    names = None if audience is None else (audience,) if isinstance(audience, str) else tuple(audience)
    found = list(_form(text))
    parts = text.strip().removeprefix("Bearer ").strip().split(".")
    if len(parts) != _JWS_PARTS:
        return found
    header, claims = _members(parts[0], "header", found), _members(parts[1], "payload", found)
    if header is not None:
        found += _header(header)
    if claims is not None:
        found += _claims(claims, now, leeway)
        found += _compared(claims, issuer, names)
    found += _signature(text, keys)
    if keys is not None and issuer is not None and names:
        found.append(_verdict(text, AccessTokenVerifier(keys=keys, issuer=issuer, audience=names, leeway=leeway), now))
    return found


def _form(text: str) -> Iterable[Finding]:
    bare = text.strip()
    if bare != text:
        yield Finding("wrong", "There is whitespace around the token. It was probably copied with a line break.")
    if bare.startswith("Bearer "):
        yield Finding("wrong", "It begins with 'Bearer ': that belongs to the Authorization header, not to the token.")
        bare = bare.removeprefix("Bearer ").strip()
    if not bare:
        yield Finding("wrong", "There is no token.")
        return
    if bare[0] in "\"'{":
        yield Finding("wrong", "It begins with a quote or a brace: a token is its three parts, without JSON around.")
    if len(bare) > MAX_TOKEN:
        yield Finding("wrong", f"It has {len(bare):,} characters; none of more than {MAX_TOKEN:,} is read.")
    count = bare.count(".") + 1
    if count == _JWE_PARTS:
        yield Finding("wrong", "It has five parts: an encrypted token (JWE). Only its recipient's key opens it.")
    elif count == 1:
        yield Finding("wrong", "It has no dots: this is no JWT. Perhaps it is a session cookie or a refresh token.")
    elif count != _JWS_PARTS:
        yield Finding("wrong", f"It has {count} parts; a signed token has three: header.payload.signature.")
    else:
        yield Finding("says", f"A signed token of {len(bare):,} characters.")


def _members(part: str, name: str, found: list[Finding]) -> dict[str, Any] | None:
    """Read a part strictly. If that fails, report why, and read what can be read."""
    try:
        return strict_json.decode_object(decode_part(part.encode("ascii", "replace")))
    except (InvalidToken, strict_json.MalformedJSON) as refusal:
        reason = refusal.reason if isinstance(refusal, InvalidToken) else str(refusal)
        found.append(Finding("wrong", f"The {name} cannot be read: {reason}."))
        return None


def _header(header: dict[str, Any]) -> Iterable[Finding]:
    yield Finding("says", f"Header: {_quoted(header)}")
    alg, typ = header.get("alg"), header.get("typ")
    if isinstance(alg, str) and alg.lower() == "none":
        yield Finding("wrong", "'alg' is 'none': it is not signed at all. Anyone could have written it.")
    elif not isinstance(alg, str) or alg not in ALGORITHMS:
        yield Finding("wrong", f"'alg' is {_quoted(alg)}, which is not an algorithm we know. Case matters.")
    if "typ" not in header:
        yield Finding("wrong", "'typ' is missing. An access token says 'at+jwt', so that nothing else passes for one.")
    elif typ not in TYPES:
        yield Finding("wrong", f"'typ' is {_quoted(typ)}. An access token says 'at+jwt'; this may be an ID token.")
    if "kid" not in header:
        yield Finding("warning", "'kid' is missing: only a verifier with a single key knows which one to use.")
    if "crit" in header:
        yield Finding("wrong", "'crit' demands an extension. We understand none.")
    if "b64" in header:
        yield Finding("wrong", "'b64' changes what is signed. We do not read such tokens.")
    for name in _BRINGS_A_KEY:
        if name in header:
            yield Finding("wrong", f"'{name}' brings its own key, or the address of one. It is never followed.")


def _claims(claims: dict[str, Any], now: float, leeway: float) -> Iterable[Finding]:
    yield Finding("says", f"Claims: {_quoted(claims)}")
    missing = [name for name in _REQUIRED if name not in claims]
    if missing:
        yield Finding("wrong", f"Missing, and required of an access token (RFC 9068): {', '.join(missing)}.")
    times: dict[str, float] = {}
    for name in ("iat", "nbf", "exp", "auth_time"):
        if name in claims:
            yield from _time(name, claims[name], times)
    exp, iat, nbf = times.get("exp"), times.get("iat"), times.get("nbf")
    if iat is not None:
        if iat > now + leeway:
            yield Finding("wrong", f"Issued {_span(iat - now)} from now ({_date(iat)}). A clock is wrong.")
        else:
            yield Finding("says", f"Issued {_span(now - iat)} ago ({_date(iat)}).")
    if nbf is not None and nbf > now + leeway:
        yield Finding("wrong", f"Not valid before {_date(nbf)}, {_span(nbf - now)} from now.")
    if exp is not None:
        if now >= exp + leeway:
            yield Finding("wrong", f"Expired {_span(now - exp)} ago ({_date(exp)}).")
        elif now >= exp:
            yield Finding("warning", f"Expired {_span(now - exp)} ago ({_date(exp)}), still within the leeway.")
        else:
            yield Finding("fine", f"Expires in {_span(exp - now)} ({_date(exp)}).")
        if iat is not None and exp < iat:
            yield Finding("wrong", "It expires before it was issued.")
        elif iat is not None and exp - iat > _LONG_LIFE:
            yield Finding("warning", f"It lives for {_span(exp - iat)}: unless revoked, a thief has it that long.")
    if "cnf" in claims:
        yield Finding(
            "says", "'cnf' binds it to a key: it is worth nothing without a DPoP proof by that key (RFC 9449)."
        )
    if "sid" not in claims:
        yield Finding("says", "No 'sid': a stateless token. It can be revoked by its 'jti' or for the whole subject.")


def _time(name: str, value: Any, times: dict[str, float]) -> Iterable[Finding]:
    if type(value) in {int, float} and 0 <= value <= MAX_TIME:
        times[name] = value
        return
    yield Finding("wrong", f"'{name}' is {_quoted(value)}: not seconds since 1970 that name a date.")
    if type(value) is int and value > MAX_TIME:
        yield Finding("says", f"'{name}' looks like milliseconds; seconds are wanted.")


def _compared(claims: dict[str, Any], issuer: str | None, audience: tuple[str, ...] | None) -> Iterable[Finding]:
    if issuer is not None and "iss" in claims:
        if claims["iss"] == issuer:
            yield Finding("fine", f"The issuer is {_quoted(issuer)}.")
        else:
            yield Finding("wrong", f"The issuer is {_quoted(claims['iss'])}, not {_quoted(issuer)}. A slash counts.")
    if audience and "aud" in claims:
        aud = claims["aud"]
        meant = aud if isinstance(aud, list) else [aud]
        if any(name in meant for name in audience):
            yield Finding("fine", "It is meant for this audience.")
        else:
            yield Finding("wrong", f"It is meant for {_quoted(aud)}, not for {' or '.join(map(_quoted, audience))}.")


def _signature(text: str, keys: Key | KeySet | None) -> Iterable[Finding]:
    if keys is None:
        yield Finding("warning", "The signature was not checked: no keys were given. Anyone can write such a token.")
        return
    try:
        header, _, signed, _, signature = take_apart(text, keys if isinstance(keys, KeySet) else keys.alone())
    except InvalidToken as refusal:
        yield Finding("wrong", f"The signature was not checked: {refusal.reason}.")
        return
    if header.check(signature, signed):
        yield Finding("fine", f"The signature is valid ({header.alg}, key {_quoted(header.key.kid)}).")
    else:
        yield Finding("wrong", "The signature is not valid: the token was altered, or another key signed it.")


def _verdict(text: str, verify: AccessTokenVerifier, now: float) -> Finding:
    try:
        bound = verify.verify(text, now).cnf is not None
    except InvalidToken as refusal:
        return Finding("wrong", f"It is refused: {refusal.reason}.")
    if bound:
        return Finding("fine", "It is accepted with a proof of its key. Whether it was revoked is not in the token.")
    return Finding("fine", "It is accepted. Whether it was revoked is not in the token.")


def _quoted(value: object) -> str:
    """Show a value on one line, printable and short: a stranger's text must not send escape sequences to a terminal."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    limit = _SHOWN if not isinstance(value, dict) else 20 * _SHOWN
    return text if len(text) <= limit else text[:limit] + "..."


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    for unit, name in ((_DAY, "day"), (_HOUR, "hour"), (_MINUTE, "minute")):
        if seconds >= 2 * unit:
            return f"{int(seconds // unit)} {name}s"
    return "1 second" if 1 <= seconds < 2 else f"{int(seconds)} seconds"  # noqa: PLR2004
