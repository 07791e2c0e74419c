"""Search for a token that breaks the verifier, guided by the branches it reaches: `python fuzz_jwt.py -runs=1000000`.

Needs atheris. The bytes it invents are presented as a whole token, as each part of one, and as claims and headers that
are signed well. Whatever comes out other than InvalidToken or the claims that went in is a finding.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["dutchdoor"]):
    from dutchdoor.errors import InvalidKey, InvalidToken
    from dutchdoor.jose import jws
    from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
    from dutchdoor.jose.inspect import explain
    from dutchdoor.jose.jwk import Key, KeySet

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
KEY = Key.generate("HS256")  # the quickest, so that the search is of our own code
ISSUER = AccessTokenIssuer(issuer=ISS, audience=AUD)
GOOD = ISSUER(key=KEY, now=NOW, lifetime=600.0, subject="s", client_id="c", epoch=1, amr=["pwd"], roles=["r"])
HEAD, BODY, TAIL = GOOD.split(".")
VERIFY = AccessTokenVerifier(keys=KEY, issuer=ISS, audience=AUD, clock=lambda: NOW)
HEADER = jws.encode_header(KEY, "at+jwt")


def refused(token: str | bytes) -> None:
    text = token if isinstance(token, str) else token.decode("latin-1")
    if text == GOOD:
        return
    try:
        VERIFY(token)
    except InvalidToken:
        return
    raise AssertionError("accepted: " + repr(token))


def signed(head: bytes, payload: bytes) -> None:
    """What is signed well may be accepted, and then says who it is from and for."""
    token = jws.sign_encoded(head, payload, KEY)
    try:
        claims = VERIFY(token)
    except InvalidToken:
        return
    assert claims.iss == ISS
    assert claims.aud == AUD or AUD in claims.aud
    assert claims.iat <= NOW + VERIFY.leeway
    assert claims.exp > NOW - VERIFY.leeway
    assert claims.kid == KEY.kid


def one(raw: bytes) -> None:
    kind, raw = raw[:1], raw[1:]
    match ord(kind or b"\0") % 6:
        case 0:
            refused(raw)
        case 1:
            refused(raw.decode("utf-8", "surrogateescape"))
        case 2:
            text = raw.decode("latin-1")
            for token in (f"{text}.{BODY}.{TAIL}", f"{HEAD}.{text}.{TAIL}", f"{HEAD}.{BODY}.{text}"):
                refused(token)
        case 3:
            signed(HEADER, raw)
        case 4:
            signed(jws._b64encode(raw, b"-_").rstrip(b"=") + b".", jws.decode_part(BODY.encode()))
        case _:
            explain(raw, KEY, now=NOW, issuer=ISS, audience=AUD)
            try:
                KeySet.from_jwks(raw)
            except InvalidKey:
                return


def seeds() -> list[bytes]:
    """Give the search good examples to begin with: it would not guess a claim's name."""
    body, head = jws.decode_part(BODY.encode()), jws.decode_part(HEAD.encode())
    more = body[:-1] + b',"scope":"a b","nbf":1,"x":{"y":[1.5,null,"\\u00e9"]}}'
    jwks = json.dumps({"keys": [Key.generate(alg).public_jwk() for alg in ("ES256", "EdDSA", "RS256")]}).encode()
    return [b"\0" + GOOD.encode(), b"\2" + HEAD.encode(), b"\3" + body, b"\3" + more, b"\4" + head, b"\5" + jwks]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds()):
            one(seed)
            Path(folder, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, folder], one)
        atheris.Fuzz()
