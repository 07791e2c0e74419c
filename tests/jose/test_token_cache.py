"""The memory of verified tokens: it saves work, and changes no answer."""

from __future__ import annotations

import base64
import gc
import json
from typing import Any

import pytest

from dutchdoor.errors import InvalidToken, Misconfigured
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.claims import Claims
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.jose.token_cache import GENERATION_FOR, TokenCache

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
KEY = Key.generate("ES256")
ISSUER = AccessTokenIssuer(issuer=ISS, audience=AUD)


def issue(**changed: Any) -> str:
    told: dict[str, Any] = {"key": KEY, "now": NOW, "lifetime": 600.0, "subject": "somebody", "client_id": "web"}
    told |= {"epoch": 3, "amr": ["pwd"], "roles": [], "session_id": "session"}
    return ISSUER(**{**told, **changed})


class Counting(AccessTokenVerifier):
    """A verifier that counts what reaches it."""

    asked = 0

    def verify(self, token: str | bytes, now: float) -> Claims:
        type(self).asked += 1
        return super().verify(token, now)


@pytest.fixture
def verifier() -> Counting:
    Counting.asked = 0
    return Counting(keys=KEY.public(), issuer=ISS, audience=AUD, leeway=5.0, clock=lambda: NOW)


def never(claims: Claims) -> bool:
    return False


def refused(cache: TokenCache, token: Any, now: float = NOW) -> str:
    with pytest.raises(InvalidToken) as refusal:
        cache(token, now=now)
    return refusal.value.reason


def test_a_token_is_verified_once(verifier: Counting) -> None:
    """The second sight of a token gives the same claims without asking the verifier, as text or as bytes."""
    cache, token = TokenCache(verifier, covered=never), issue()
    first = cache(token, now=NOW)
    assert cache(token.encode(), now=NOW) is cache(token) is first
    assert verifier.asked == 1
    assert first == verifier(token)


def test_time_is_checked_on_every_hit(verifier: Counting) -> None:
    """A remembered token expires at the very instant at which it would have been refused."""
    cache, token = TokenCache(verifier, covered=never), issue()
    assert cache(token, now=NOW)
    assert cache(token, now=NOW + 604.9)
    assert refused(cache, token, NOW + 605) == "expired"
    assert refused(cache, token, NOW + 10_000) == "expired"


def test_revocation_is_checked_on_every_hit(verifier: Counting) -> None:
    """From the call after a revocation a remembered token is refused, and so is one never seen before."""
    gone: set[str | None] = set()
    cache, token = TokenCache(verifier, covered=lambda claims: claims.sid in gone), issue()
    assert cache(token, now=NOW)
    gone.add("session")
    assert refused(cache, token) == "revoked"
    assert refused(cache, issue()) == "revoked"
    gone.clear()
    assert cache(token, now=NOW)


def test_new_keys_forget_what_old_ones_verified(verifier: Counting) -> None:
    """A key that was taken away takes every token it signed with it, remembered or not."""
    cache, token, other = TokenCache(verifier, covered=never), issue(), Key.generate("ES256")
    assert cache(token, now=NOW)
    verifier.keys = KeySet([other.public()])
    refused(cache, token)
    assert cache(issue(key=other), now=NOW).kid == other.kid
    assert len(cache) == 1
    verifier.keys = KeySet([KEY.public(), other.public()])
    asked = verifier.asked
    assert cache(token, now=NOW)
    assert verifier.asked == asked + 1


def test_garbage_leaves_nothing_behind(verifier: Counting) -> None:
    """Whatever is refused is not in the cache: malformed, forged, expired, altered, or no text at all."""
    cache, token = TokenCache(verifier, covered=never), issue()
    head, body, tail = token.split(".")
    altered = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "admin"}
    forged = base64.urlsafe_b64encode(json.dumps(altered).encode()).rstrip(b"=").decode()
    assert cache(token, now=NOW)
    for bad in (
        *("", "x", "é", "\ud800", b"\xff", "x" * 9000, None, 1, [token]),
        *(f"{head}.{forged}.{tail}", token + "=", token[:-1]),
    ):
        refused(cache, bad)
    refused(cache, issue(key=Key.generate("ES256", kid=KEY.kid)))
    for number in range(500):
        refused(cache, f"{head}.{body}.{number}")
    assert len(cache) == 1


def test_another_spelling_of_a_signature_is_another_entry_but_the_same_revocation(verifier: Counting) -> None:
    """An ECDSA signature altered to its twin still holds: it is verified by itself, and revoked with its session."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    gone: set[str | None] = set()
    cache, token = TokenCache(verifier, covered=lambda claims: claims.sid in gone), issue()
    signed, _, tail = token.rpartition(".")
    raw = base64.urlsafe_b64decode(tail + "==")
    twin_s = (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = signed + "." + base64.urlsafe_b64encode(raw[:32] + twin_s).rstrip(b"=").decode()
    assert cache(token, now=NOW) == cache(twin, now=NOW)
    assert verifier.asked == 2
    gone.add("session")
    assert refused(cache, token) == refused(cache, twin) == "revoked"


def test_it_is_bounded_and_keeps_what_is_used(verifier: Counting) -> None:
    """However many tokens come, no more than the bound are held; one used again and again is verified once."""
    cache, mine = TokenCache(verifier, covered=never, entries=10), issue()
    for _ in range(60):
        assert cache(mine, now=NOW)
        assert cache(issue(), now=NOW)
        assert len(cache) <= 10
    assert verifier.asked == 61
    for entries in (0, 1, -1, 10**9):
        with pytest.raises(Misconfigured):
            TokenCache(verifier, covered=never, entries=entries)


def test_what_is_not_used_leaves_by_itself(verifier: Counting) -> None:
    """After two generations nothing is left of a token nobody presents, though the cache never filled up."""
    cache = TokenCache(verifier, covered=never)
    for _ in range(20):
        cache(issue(), now=NOW)
    cache(issue(), now=NOW + GENERATION_FOR)
    assert len(cache) == 21
    cache(issue(lifetime=3000.0), now=NOW + 2 * GENERATION_FOR)
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_time_is_checked_in_the_old_generation_too(verifier: Counting) -> None:
    """A token that grew old in the cache is moved on while it is valid, and refused from its last instant."""
    cache, token, late = TokenCache(verifier, covered=never), issue(), issue(lifetime=6000.0)
    cache(token, now=NOW)
    cache(late, now=NOW + GENERATION_FOR)
    assert cache(late, now=NOW + 604) != cache(token, now=NOW + 604)
    assert verifier.asked == 2
    cache(issue(lifetime=6000.0), now=NOW + 604 + GENERATION_FOR)
    assert refused(cache, token, NOW + 605 + GENERATION_FOR) == "expired"
    cache.clear()
    cache(token, now=NOW)
    cache(late, now=NOW + GENERATION_FOR)
    assert refused(cache, token, NOW + 605) == "expired"


def test_no_bearer_token_lies_in_memory(verifier: Counting) -> None:
    """What the cache holds is a digest and claims: the token itself, or its signature, is nowhere in it."""
    cache, token = TokenCache(verifier, covered=never), issue()
    cache(token, now=NOW)
    tail = token.rpartition(".")[2]
    seen: set[int] = set()

    def walk(thing: object) -> None:
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            return
        seen.add(id(thing))
        if isinstance(thing, str | bytes):
            text = thing if isinstance(thing, str) else thing.decode("latin-1")
            assert tail not in text
            assert token.split(".")[1] not in text
        for inner in gc.get_referents(thing):
            walk(inner)

    walk(cache._held)
    assert len(seen) > 10
