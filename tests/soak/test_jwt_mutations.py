"""A million changes to good tokens, and a search guided by coverage: nothing but InvalidToken, nothing accepted."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dutchdoor.errors import InvalidToken
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.jwk import Key
from dutchdoor.jose.token_cache import TokenCache

ISS, AUD, NOW = "https://auth.example.com", "https://api.example.com", 1_800_000_000.0
ISSUER = AccessTokenIssuer(issuer=ISS, audience=AUD)
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0\xff"


def mutated(good: bytes, other: bytes, dice: random.Random) -> bytes:
    """Change a token in one to three places: a character, a bit, a cut, a piece moved or from another."""
    changed = bytearray(good)
    for _ in range(dice.randint(1, 3)):
        at, to = dice.randrange(len(changed) + 1), dice.randrange(len(changed) + 1)
        match dice.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([dice.choice(ALPHABET)])
            case 1 if at < len(changed):
                changed[at] ^= 1 << dice.randrange(8)
            case 2:
                del changed[at : at + dice.randint(1, 4)]
            case 3:
                changed[at:at] = bytes(dice.choices(ALPHABET, k=dice.randint(1, 4)))
            case 4:
                changed[at:at] = changed[to : to + 16]
            case 5:
                changed[at : at + 16] = other[to : to + 16]
            case 6:
                changed[at:] = other[at:]
            case _:
                changed = bytearray(b".".join(dice.sample(changed.split(b"."), k=changed.count(b".") + 1)))
    return bytes(changed)


def hammer(count: int, seed: int) -> None:
    dice = random.Random(seed)
    common = {"now": NOW, "lifetime": 600.0, "client_id": "web", "epoch": 3, "amr": ["pwd"]}
    keys = [Key.generate(alg) for alg in ("HS256", "ES256", "RS256", "EdDSA")]
    tokens, caches = [], []
    for key in keys:
        pair = [ISSUER(key=key, subject=who, roles=[who], **common).encode() for who in ("somebody", "admin")]
        tokens.append(pair)
        verify = AccessTokenVerifier(keys=key.public(), issuer=ISS, audience=AUD, clock=lambda: NOW)
        caches.append(TokenCache(verify))
        assert caches[-1].recognise(pair[0], NOW)[0].sub == "somebody"
    for _ in range(count):
        which = dice.choices(range(4), weights=(12, 2, 4, 1))[0]  # most of them where a check is cheap
        good, other = tokens[which]
        token = mutated(good, other, dice)
        if token in {good, other}:
            continue
        with pytest.raises(InvalidToken):
            caches[which].recognise(token, NOW)
    assert [len(cache) for cache in caches] == [1, 1, 1, 1]


def test_no_mutation_is_accepted() -> None:
    """J17: 5,000 mutations of good tokens of four algorithms: InvalidToken for each, and no trace in the cache."""
    hammer(5_000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_none_of_a_million_mutations_is_accepted() -> None:
    """J17: the same, a million times."""
    hammer(1_000_000, seed=2)


def fuzz(runs: int) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    program = Path(__file__).with_name("fuzz_jwt.py")
    done = subprocess.run(
        [sys.executable, str(program), f"-runs={runs}", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_short_search_finds_nothing() -> None:
    """J17: 3,000 inputs chosen by coverage break nothing."""
    fuzz(3_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_long_search_finds_nothing() -> None:
    """J17: a million inputs chosen by coverage break nothing."""
    fuzz(1_000_000)
