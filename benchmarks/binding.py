"""What a proof of a client's key (DPoP) costs beside a bearer token: `python -m benchmarks.binding [--quick]`.

Each figure is a request at a service, without HTTP: the token is found in the cache or verified, and its proof checked.
The contenders take turns, and the raw call checks one ES256 signature and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from benchmarks.jwt import take_turns
from dutchdoor.client.dpop import ProofKey
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.dpop import DpopProof, Proofs
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.token_cache import TokenCache

ISSUER, AUDIENCE, URL = "https://auth.example.com", "orders", "https://orders.example.com/orders/7"
ROUNDS, QUICK = 300, 30
CALLS_A_ROUND = 11
"""How often `take_turns` calls a contender in a round, at most: each needs a proof of its own."""


def main() -> None:
    rounds = QUICK if "--quick" in sys.argv else ROUNDS
    server, now = Key.generate("ES256"), time.time()
    issue = AccessTokenIssuer(issuer=ISSUER, audience=AUDIENCE)
    verify = AccessTokenVerifier(keys=server.public(), issuer=ISSUER, audience=AUDIENCE)
    cache, proofs = TokenCache(verify), Proofs(b"a key of this benchmark" * 2)

    def token_of(bound_to: str) -> str:
        return issue(
            key=server, now=now, lifetime=600, subject="ada", client_id="app", epoch=0, amr=("pwd",), roles=(),
            bound_to=bound_to,
        )  # fmt: skip

    key, nonce = ProofKey.generate(), proofs.nonce(now)
    bearer, bound = token_of(""), token_of(key.thumbprint)

    def made(key: ProofKey, token: str) -> DpopProof:
        return DpopProof(key.proof("GET", URL, at=now, nonce=nonce, token=token), "GET", URL)

    many = rounds * CALLS_A_ROUND
    by_one = iter([made(key, bound) for _ in range(many)])
    strangers = [ProofKey.generate() for _ in range(many)]
    each_new = iter([(key.thumbprint, made(key, bearer)) for key in strangers])

    def by_proof() -> None:
        _, principal = cache.recognise(bound, now)
        proofs.check(principal.bound_to, next(by_one), bound, now)

    def by_new_key() -> None:
        thumbprint, proof = next(each_new)
        cache.recognise(bearer, now)
        proofs.check(thumbprint, proof, bearer, now)

    signed, raw = b"x" * 400, server.public()
    signature = server.sign(signed)
    calls: dict[str, Callable[[], object]] = {
        "one ES256 signature, and nothing else": lambda: raw.check(signature, signed),
        "bearer token, in the cache": lambda: cache.recognise(bearer, now),
        "bearer token, verified": lambda: verify(bearer, now=now),
        "bound token in the cache, and a proof": by_proof,
        "bound token in the cache, and the first proof of a key": by_new_key,
    }
    seconds = take_turns(calls, rounds=rounds)
    base = seconds["one ES256 signature, and nothing else"]
    print("| a request | µs | of a signature |")
    print("|---|---:|---:|")
    for name, took in seconds.items():
        print(f"| {name} | {took * 1e6:.1f} | {took / base:.2f} |")
    made_in = take_turns({"proof": lambda: made(key, bound)}, rounds=rounds)["proof"]
    print(f"| a client writes a proof | {made_in * 1e6:.1f} | {made_in / base:.2f} |")


if __name__ == "__main__":
    main()
