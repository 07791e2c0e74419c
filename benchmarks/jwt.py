"""Measure the access-token verifier and issuer against PyJWT, joserfc, Authlib, jwcrypto and the raw signature call.

    python benchmarks/jwt.py [--quick] [--garbage N]

Prints Markdown. Every figure of a row comes from one run in which the contenders take turns, so compare along a row
only. Keys are parsed once, outside what is measured; each contender checks signature, `iss`, `aud`, `exp` and `iat`.
The raw call checks the signature and nothing else.

Peers are imported where they are installed, and left out of the table where they are not.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Run as a program, this file's folder comes first on the path, and `import jwt` would be this file again.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

import argparse  # noqa: E402
import base64  # noqa: E402
import gc  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from cryptography.hazmat.primitives import hashes, hmac  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, padding  # noqa: E402
from cryptography.hazmat.primitives.serialization import (  # noqa: E402
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)

from dutchdoor.errors import InvalidToken  # noqa: E402
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier  # noqa: E402
from dutchdoor.jose.jwk import Key  # noqa: E402
from dutchdoor.jose.token_cache import TokenCache  # noqa: E402

warnings.simplefilter("ignore")

ISSUER, AUDIENCE = "https://auth.example.com", "https://api.example.com"
ALGS = ("RS256", "ES256", "EdDSA", "HS256")
PEERS = ("PyJWT", "joserfc", "Authlib", "jwcrypto")
Call = Callable[[], object]


def module(name: str):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def take_turns(calls: dict[str, Call], *, rounds: int) -> dict[str, float]:
    """Seconds of one call, by contender, without what timing it costs.

    They take turns of ten calls, each timed by itself. The figure is the tenth percentile of all: what a call takes
    when nothing else disturbs it, without being the luckiest one.
    """
    clock = time.perf_counter_ns
    took: dict[str, list[int]] = {name: [] for name in (*calls, "")}
    gc.disable()
    for _ in range(rounds):
        for name, call in (*calls.items(), ("", nothing)):
            note = took[name].append
            call()
            for _ in range(10):
                start = clock()
                call()
                note(clock() - start)
    gc.enable()
    figures = {name: sorted(times)[len(times) // 10] for name, times in took.items()}
    return {name: (figures[name] - figures[""]) / 1e9 for name in calls}


def nothing() -> None:
    """What timing costs."""


def raw_calls(key: Key, token: str) -> tuple[Call, Call]:
    """The bare `cryptography` calls: verify and sign exactly these bytes."""
    text, _, tail = token.rpartition(".")
    data, signature = text.encode(), base64.urlsafe_b64decode(tail + "==")
    digest = hashes.SHA256()
    if key.symmetric:
        secret = key.private_bytes()

        def verify() -> None:
            mac = hmac.HMAC(secret, digest)
            mac.update(data)
            mac.verify(signature)

        def sign() -> bytes:
            mac = hmac.HMAC(secret, digest)
            mac.update(data)
            return mac.finalize()

        return verify, sign
    private: Any = load_der_private_key(key.private_bytes(), None)  # of a type for each algorithm
    public = private.public_key()
    if key.alg == "EdDSA":
        return lambda: public.verify(signature, data), lambda: private.sign(data)
    scheme = padding.PKCS1v15() if key.alg == "RS256" else ec.ECDSA(digest)
    if key.alg == "RS256":
        return lambda: public.verify(signature, data, scheme, digest), lambda: private.sign(data, scheme, digest)
    der = private.sign(data, scheme)
    return lambda: public.verify(der, data, scheme), lambda: private.sign(data, scheme)


def peer_calls(name: str, key: Key, token: str, claims: dict[str, object]) -> tuple[Call, Call] | None:
    """A peer's own way to verify this token and to sign these claims, keys parsed beforehand."""
    alg, header = key.alg, {"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}
    pem = None
    if not key.symmetric:
        written = load_der_private_key(key.private_bytes(), None)
        pem = written.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    secret = key.private_bytes() if key.symmetric else None
    needed = ["exp", "iat", "iss", "aud", "sub", "client_id", "jti"]
    if name == "PyJWT" and (jwt := module("jwt")):
        private = secret or load_pem_private_key(pem, None)
        public = secret or private.public_key()
        options = {"require": needed}
        return (
            lambda: jwt.decode(token, public, [alg], options, issuer=ISSUER, audience=AUDIENCE),
            lambda: jwt.encode(claims, private, alg, {"kid": key.kid, "typ": "at+jwt"}),
        )
    if name == "joserfc" and (jose := module("joserfc.jwt")):
        jwk = importlib.import_module("joserfc.jwk")
        kind = {"R": jwk.RSAKey, "E": jwk.ECKey, "H": jwk.OctKey}[alg[0]] if alg != "EdDSA" else jwk.OKPKey
        own = kind.import_key(secret or pem)
        rules = {member: {"essential": True} for member in needed}
        registry = jose.JWTClaimsRegistry(
            **{**rules, "iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": AUDIENCE}}
        )

        def verify() -> None:
            found = jose.decode(token, own, algorithms=[alg])
            registry.validate(found.claims)

        return verify, lambda: jose.encode(header, claims, own, algorithms=[alg])
    if name == "Authlib" and (authlib := module("authlib.jose")):
        reader = authlib.JsonWebToken([alg])
        kind = (
            {"R": authlib.RSAKey, "E": authlib.ECKey, "H": authlib.OctKey}[alg[0]] if alg != "EdDSA" else authlib.OKPKey
        )
        own = kind.import_key(secret or pem)
        rules = {member: {"essential": True} for member in needed}
        rules |= {"iss": {"essential": True, "value": ISSUER}, "aud": {"essential": True, "value": AUDIENCE}}

        def verify() -> None:
            reader.decode(token, own, claims_options=rules).validate()

        return verify, lambda: reader.encode(header, claims, own)
    if name == "jwcrypto" and (jwcrypto := module("jwcrypto.jwt")):
        jwk = importlib.import_module("jwcrypto.jwk")
        if secret:
            own = jwk.JWK(kty="oct", k=base64.urlsafe_b64encode(secret).rstrip(b"=").decode())
        else:
            own = jwk.JWK.from_pem(pem)
        wanted = dict.fromkeys(needed) | {"iss": ISSUER, "aud": AUDIENCE}

        def sign() -> str:
            made = jwcrypto.JWT(header, claims)
            made.make_signed_token(own)
            return made.serialize()

        return lambda: jwcrypto.JWT(jwt=token, key=own, check_claims=wanted, algs=[alg]), sign
    return None


def issue(issuer: AccessTokenIssuer, key: Key, **changed: object) -> str:
    known = {"key": key, "now": time.time(), "lifetime": 3600.0, "subject": "u" * 22, "client_id": "web", "epoch": 3}
    known |= {"amr": ("pwd",), "roles": ("admin", "user"), "auth_time": time.time(), "session_id": "s" * 22}
    return issuer(**(known | changed))


def signatures(rounds: int) -> None:
    issuer = AccessTokenIssuer(issuer=ISSUER, audience=AUDIENCE)
    shown: dict[str, list[str]] = {"verify": [], "sign": []}
    for alg in ALGS:
        key = Key.generate(alg)
        token = issue(issuer, key)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        verifier = AccessTokenVerifier(keys=key.public(), issuer=ISSUER, audience=AUDIENCE)
        now = time.time()
        known = {"key": key, "now": now, "lifetime": 3600.0, "subject": "u" * 22, "client_id": "web", "epoch": 3}
        known |= {"amr": ("pwd",), "roles": ("admin", "user"), "auth_time": now, "session_id": "s" * 22}
        raw = raw_calls(key, token)
        peers = {name: peer_calls(name, key, token, claims) for name in PEERS}
        for half, verb in enumerate(("verify", "sign")):
            ours: Call = (
                (lambda t=token, v=verifier: v.verify(t, time.time())) if half == 0 else (lambda k=known: issuer(**k))
            )
            calls = {"raw": raw[half], "dutchdoor": ours} | {name: both[half] for name, both in peers.items() if both}
            took = take_turns(calls, rounds=rounds)
            cells = [f"{took['raw'] * 1e6:.1f} us"]
            cells += [
                f"{took['raw'] / took[name]:.2f} ({took[name] * 1e6:.1f} us)" if name in took else "-"
                for name in ("dutchdoor", *PEERS)
            ]
            shown[verb].append(f"| {verb} {alg} | {len(token)} | " + " | ".join(cells) + " |")
    print("| fraction of raw `cryptography` | bytes | raw | **dutchdoor** | " + " | ".join(PEERS) + " |")
    print("|---|---|---|---|" + "---|" * len(PEERS))
    print("\n".join(shown["verify"] + shown["sign"]))


def cache(rounds: int, entries: int) -> None:
    issuer = AccessTokenIssuer(issuer=ISSUER, audience=AUDIENCE)
    key = Key.generate("ES256")
    verifier = AccessTokenVerifier(keys=key.public(), issuer=ISSUER, audience=AUDIENCE)
    revoked = {os.urandom(16).hex() for _ in range(1000)}
    tokens = [issue(issuer, key, session_id=os.urandom(11).hex(), subject=os.urandom(11).hex()) for _ in range(entries)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    remembered = TokenCache(verifier, entries=entries)
    now = time.time()
    for token in tokens:
        remembered.recognise(token, now)
    gc.collect()
    size = (tracemalloc.get_traced_memory()[0] - before) / entries
    tracemalloc.stop()
    one = tokens[0]
    calls: dict[str, Call] = {
        "hit": lambda: remembered.recognise(one, now)[0].sid in revoked,
        "verify": lambda: verifier.verify(one, now),
    }
    took = take_turns(calls, rounds=rounds)
    print("\n| cache of verified tokens | |\n|---|---|")
    print(f"| a hit, expiry and revocation checked | {took['hit'] * 1e9:.0f} ns |")
    print(f"| the same token verified (ES256) | {took['verify'] * 1e6:.1f} us |")
    print(f"| memory of an entry, {entries:,} held | {size:.0f} bytes |")


def garbage(total: int) -> None:
    """Memory must not follow what attackers send."""
    issuer = AccessTokenIssuer(issuer=ISSUER, audience=AUDIENCE)
    key = Key.generate("ES256")
    good = issue(issuer, key)
    verifier = AccessTokenVerifier(keys=key.public(), issuer=ISSUER, audience=AUDIENCE)
    remembered = TokenCache(verifier, entries=10_000)
    head, body, tail = good.split(".")

    def encoded(text: bytes) -> str:
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    def one(number: int) -> str:
        match number % 8:
            case 0:
                return encoded(os.urandom(40)) + "." + body + "." + tail
            case 1:
                return encoded(b'{"alg":"ES256","kid":"%d"}' % number) + "." + body + "." + tail
            case 2:
                return head + "." + encoded(b'{"n":%d}' % number) + "." + tail
            case 3:
                return encoded(b'{"alg":"none","n":%d}' % number) + "." + body + "."
            case 4:
                return head + "." + encoded(b"[" * (number % 4000)) + "." + tail
            case 5:
                return good[: number % len(good)]
            case 6:
                return str(number) * 50
            case _:
                return "x" * (number % 9000)

    def run(count: int, start: int) -> None:
        for number in range(start, start + count):
            try:
                remembered.recognise(one(number), time.time())
            except InvalidToken:
                continue
            raise AssertionError("garbage was accepted")

    run(2000, 0)  # warm
    gc.collect()
    tracemalloc.start()
    run(1000, 2000)
    gc.collect()
    before, rss_before = tracemalloc.get_traced_memory()[0], resident()
    tracemalloc.stop()
    start = time.perf_counter()
    run(total, 3000)
    took = (time.perf_counter() - start) / total
    tracemalloc.start()
    gc.collect()
    rss_after = resident()
    run(1000, 3000 + total)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print("\n| garbage | |\n|---|---|")
    print(f"| tokens of 8 kinds, all refused | {total:,} |")
    print(f"| mean time to refuse one | {took * 1e6:.1f} us |")
    print(f"| resident memory grew by | {(rss_after - rss_before) / 1024:.0f} KiB |")
    print(f"| entries in the cache, headers remembered | {len(remembered)}, {len(verifier.keys.known_headers)} |")
    assert abs(after - before) < 100_000, (before, after)


def resident() -> int:
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds")
    parser.add_argument(
        "--garbage", type=int, default=0, help="how many garbage tokens (default 1,000,000; quick 20,000)"
    )
    chosen = parser.parse_args()
    rounds = 40 if chosen.quick else 400
    versions = {name: module(name) for name in ("cryptography", "msgspec", "jwt", "joserfc", "authlib", "jwcrypto")}
    known = ", ".join(
        f"{name} {getattr(found, '__version__', '')}".strip() for name, found in versions.items() if found
    )
    print(f"Python {platform.python_version()}; {known}\n")
    signatures(rounds)
    cache(rounds, 2_000 if chosen.quick else 20_000)
    garbage(chosen.garbage or (20_000 if chosen.quick else 1_000_000))


if __name__ == "__main__":
    main()
