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
    common: dict[str, Any] = {"key": KEY, "now": NOW, "lifetime": 600.0, "subject": "somebody", "client_id": "web"}
    common |= {"epoch": 3, "amr": ["pwd"], "roles": [], "session_id": "session"}
    return ISSUER(**{**common, **changed})


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


def seen(cache: TokenCache, token: Any, now: float = NOW) -> Claims:
    return cache.recognise(token, now)[0]


def refused(cache: TokenCache, token: Any, now: float = NOW) -> str:
    with pytest.raises(InvalidToken) as refusal:
        seen(cache, token, now)
    return refusal.value.reason


def test_a_token_is_verified_once(verifier: Counting) -> None:
    """The second sight of a token gives the same claims without asking the verifier, as text or as bytes."""
    cache, token = TokenCache(verifier), issue()
    first = seen(cache, token)
    assert seen(cache, token.encode()) is seen(cache, token) is first
    assert verifier.asked == 1
    assert first == verifier(token)


def test_time_is_checked_on_every_hit(verifier: Counting) -> None:
    """A remembered token expires at the very instant at which it would have been refused."""
    cache, token = TokenCache(verifier), issue()
    assert seen(cache, token)
    assert seen(cache, token, NOW + 604.9)
    assert refused(cache, token, NOW + 605) == "expired"
    assert refused(cache, token, NOW + 10_000) == "expired"


def test_new_keys_forget_what_old_ones_verified(verifier: Counting) -> None:
    """A key that was taken away takes every token it signed with it, remembered or not."""
    cache, token, other = TokenCache(verifier), issue(), Key.generate("ES256")
    assert seen(cache, token)
    verifier.keys = KeySet([other.public()])
    refused(cache, token)
    assert seen(cache, issue(key=other)).kid == other.kid
    assert len(cache) == 1
    verifier.keys = KeySet([KEY.public(), other.public()])
    asked = verifier.asked
    assert seen(cache, token)
    assert verifier.asked == asked + 1


def test_garbage_leaves_nothing_behind(verifier: Counting) -> None:
    """Whatever is refused is not in the cache: malformed, forged, expired, altered, or no text at all."""
    cache, token = TokenCache(verifier), issue()
    head, body, tail = token.split(".")
    altered = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "admin"}
    forged = base64.urlsafe_b64encode(json.dumps(altered).encode()).rstrip(b"=").decode()
    assert seen(cache, token)
    for bad in (
        *("", "x", "é", "\ud800", b"\xff", "x" * 9000, None, 1, [token]),
        *(f"{head}.{forged}.{tail}", token + "=", token[:-1]),
    ):
        refused(cache, bad)
    refused(cache, issue(key=Key.generate("ES256", kid=KEY.kid)))
    for number in range(500):
        refused(cache, f"{head}.{body}.{number}")
    assert len(cache) == 1


def test_another_spelling_of_a_signature_is_another_entry_with_the_same_claims(verifier: Counting) -> None:
    """An ECDSA signature altered to its twin still holds: it is verified by itself, and whatever revokes its session
    covers it, because it names the same one.
    """
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    cache, token = TokenCache(verifier), issue()
    signed, _, tail = token.rpartition(".")
    raw = base64.urlsafe_b64decode(tail + "==")
    twin_s = (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    twin = signed + "." + base64.urlsafe_b64encode(raw[:32] + twin_s).rstrip(b"=").decode()
    assert seen(cache, token) == seen(cache, twin)
    assert verifier.asked == 2


def test_it_is_bounded_and_keeps_what_is_used(verifier: Counting) -> None:
    """However many tokens come, no more than the bound are held; one used again and again is verified once."""
    cache, mine = TokenCache(verifier, entries=10), issue()
    for _ in range(60):
        assert seen(cache, mine)
        assert seen(cache, issue())
        assert len(cache) <= 10
    assert verifier.asked == 61
    for entries in (0, 1, -1, 10**9):
        with pytest.raises(Misconfigured):
            TokenCache(verifier, entries=entries)


def test_what_is_not_used_leaves_by_itself(verifier: Counting) -> None:
    """After two generations nothing is left of a token that no client presents, though the cache never filled up."""
    cache = TokenCache(verifier)
    for _ in range(20):
        seen(cache, issue())
    seen(cache, issue(), NOW + GENERATION_FOR)
    assert len(cache) == 21
    seen(cache, issue(lifetime=3000.0), NOW + 2 * GENERATION_FOR)
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_time_is_checked_in_the_old_generation_too(verifier: Counting) -> None:
    """A token that grew old in the cache is moved on while it is valid, and refused from its last instant."""
    cache, token, late = TokenCache(verifier), issue(), issue(lifetime=6000.0)
    seen(cache, token)
    seen(cache, late, NOW + GENERATION_FOR)
    assert seen(cache, late, NOW + 604) != seen(cache, token, NOW + 604)
    assert verifier.asked == 2
    seen(cache, issue(lifetime=6000.0), NOW + 604 + GENERATION_FOR)
    assert refused(cache, token, NOW + 605 + GENERATION_FOR) == "expired"
    cache.clear()
    seen(cache, token)
    seen(cache, late, NOW + GENERATION_FOR)
    assert refused(cache, token, NOW + 605) == "expired"


def test_no_bearer_token_lies_in_memory(verifier: Counting) -> None:
    """What the cache holds is a digest and claims: the token itself, or its signature, is nowhere in it."""
    cache, token = TokenCache(verifier), issue()
    seen(cache, token)
    tail = token.rpartition(".")[2]
    walked: set[int] = set()

    def walk(thing: object) -> None:
        if id(thing) in walked or isinstance(thing, type) or callable(thing):
            return
        walked.add(id(thing))
        if isinstance(thing, str | bytes):
            text = thing if isinstance(thing, str) else thing.decode("latin-1")
            assert tail not in text
            assert token.split(".")[1] not in text
        for inner in gc.get_referents(thing):
            walk(inner)

    walk(cache._held)
    assert len(walked) > 10
