"""Hashing and verifying passwords (credentials/password.py): C02 to C04, C08 to C10."""

from __future__ import annotations

import asyncio
import itertools
import logging
import unicodedata
from collections.abc import Iterator

import argon2
import bcrypt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.costs import cost_of

from dutchdoor import errors
from dutchdoor.credentials import legacy, password
from dutchdoor.credentials.password import (
    CHEAPEST,
    MAX_BYTES,
    MAX_TYPED,
    OWASP_2024,
    PROFILES,
    RFC_9106_LOW_MEMORY,
    PasswordHasher,
    Profile,
    normalise,
)
from dutchdoor.model.unicode_text import is_stream_safe

PEPPER = b"sixteen bytes or more, from the environment"


@pytest.fixture(scope="module")
def hasher() -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(CHEAPEST, workers=2)
    yield hasher
    hasher.close()


@pytest.fixture(scope="module")
def peppered() -> Iterator[PasswordHasher]:
    hasher = PasswordHasher(CHEAPEST, pepper=PEPPER, workers=1)
    yield hasher
    hasher.close()


def dearer(profile: Profile, **changes: int) -> Profile:
    return Profile(
        **{"name": "dearer", "source": "", "memory": profile.memory, "passes": profile.passes, "lanes": profile.lanes}
        | changes
    )


async def test_a_password_verifies_and_no_other_does(hasher: PasswordHasher) -> None:
    """What was hashed verifies, and nothing else."""
    encoded = await hasher.hash("tuba glow mango")
    assert await hasher.verify("tuba glow mango", encoded)
    for other in ("tuba glow mangO", "tuba glow mango ", " tuba glow mango", "tuba glow mang", ""):
        assert not await hasher.verify(other, encoded)


async def test_c02_no_character_of_a_long_password_is_ignored(hasher: PasswordHasher) -> None:
    """C02: of 128 characters the 73rd, the 100th and the last count like the first; so does what follows a NUL."""
    long = "".join(chr(0x61 + place % 26) for place in range(128))
    encoded = await hasher.hash(long)
    for place in (0, 71, 72, 99, 127):
        assert not await hasher.verify(long[:place] + "A" + long[place + 1 :], encoded)
    assert await hasher.verify(long, encoded)
    nul = await hasher.hash("before\0after")
    assert not await hasher.verify("before\0garbage", nul)
    assert not await hasher.verify("before", nul)
    assert await hasher.verify("before\0after", nul)


async def test_c03_a_megabyte_is_refused_before_anything_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C03: too long is said in under 5 ms of processor, for known and unknown addresses alike, and nothing derived."""
    hasher = PasswordHasher(CHEAPEST, workers=1)
    encoded = await hasher.hash("tuba glow mango")
    monkeypatch.setattr(password, "_derive", lambda *_: pytest.fail("derived"))
    for long in ("a" * 2**20, "e\u0301" * 2**19, "a" * 1_025, "é" * 513, "\U0001d15e" * 200):

        async def is_refused(long: str = long) -> None:
            for refused in (hasher.hash(long), hasher.verify(long, encoded), hasher.verify_nothing(long)):
                with pytest.raises(errors.InvalidInput, match="too long"):
                    await refused

        assert await cost_of(is_refused) < 0.005
    hasher.close()


async def test_c03_no_password_makes_normalising_slow(hasher: PasswordHasher) -> None:
    """C03: sorting a long run of combining marks takes quadratic time, so none is sorted."""

    async def is_refused() -> None:
        for marks in ("a" + "\u0301" * 800 + "\u0316" * 800, "\u0301\u0316" * 16, "a\u0301" * 5 + "\u0301" * 31):
            with pytest.raises(errors.InvalidInput):
                await hasher.verify_nothing(marks)

    assert await cost_of(is_refused) < 0.005
    assert normalise("a" + "\u0316" * 30) == "a" + "\u0316" * 30
    for form in ("NFC", "NFD"):
        assert len(normalise(unicodedata.normalize(form, "ǖ" + "\u0301" * 28))) == 29
        with pytest.raises(errors.InvalidInput, match="accents"):
            normalise(unicodedata.normalize(form, "ǖ" + "\u0301" * 29))


def test_c03_the_maximum_is_the_same_in_every_spelling() -> None:
    """C03, C04: a password of 1,024 bytes may be sent decomposed, in half as many characters again."""
    for longest in ("\u0390" * 512, "ǖ" * 512, "ǖ" * 342):
        assert longest == normalise(unicodedata.normalize("NFD", longest))
    assert len(unicodedata.normalize("NFD", "\u0390" * 512)) == MAX_TYPED
    for longer in ("ǖ" * 513, "ǖ" * 512 + "a"):
        for form in ("NFC", "NFD"):
            with pytest.raises(errors.InvalidInput, match="too long"):
                normalise(unicodedata.normalize(form, longer))


def test_c03_no_character_decomposes_into_more_than_the_bound_allows() -> None:
    """C03: `MAX_TYPED` is enough for each character of Unicode, by its bytes composed and its length decomposed."""
    for number in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        composed = unicodedata.normalize("NFC", chr(number))
        assert len(unicodedata.normalize("NFD", composed)) * MAX_BYTES <= MAX_TYPED * len(composed.encode())


@given(
    st.text(alphabet=st.sampled_from("aǖ\u0390\u0301\u0316\u0344\u0f73각e"), max_size=60),
    st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]),
)
def test_c04_what_is_accepted_in_one_spelling_is_accepted_in_all(text: str, form: str) -> None:
    """C04: the bound on accents is judged on the decomposed text, so that what registers logs in on every device."""
    spelled = unicodedata.normalize(form, text)
    if form in ("NFC", "NFD"):
        assert is_stream_safe(text) == is_stream_safe(spelled)
    assert is_stream_safe(spelled) == is_stream_safe(unicodedata.normalize("NFC", spelled))


async def test_c03_the_longest_password_counts_to_its_last_byte(hasher: PasswordHasher) -> None:
    """C03: 1,024 bytes are hashed whole."""
    longest = "é" * 511 + "ab"
    encoded = await hasher.hash(longest)
    assert await hasher.verify(longest, encoded)
    assert not await hasher.verify(longest[:-1] + "c", encoded)


@pytest.mark.parametrize("text", ["žluťoučký kůň", "Å ohm Ω", "한국어 암호", "ﬁ ｆｕｌｌ Ⅷ"])
async def test_c04_the_same_keys_on_another_device_open_the_door(hasher: PasswordHasher, text: str) -> None:
    """C04: set in one normalisation form, a password verifies in the other."""
    composed, decomposed = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
    assert await hasher.verify(composed, await hasher.hash(decomposed))
    assert await hasher.verify(decomposed, await hasher.hash(composed))


def test_c04_characters_people_tell_apart_stay_apart() -> None:
    """C04: full-width letters, ligatures and case are not merged, spaces are not trimmed."""
    for text in ("ｐａｓｓ", "ﬁ", "Ⅷ", " x ", "\u00a0", "X", "\u200d"):
        assert text == normalise(text)


@given(st.text(max_size=250))
def test_c04_normalising_again_changes_nothing(text: str) -> None:
    """C04: one form, whichever spelling it started from."""
    assume(is_stream_safe(text) and is_stream_safe(unicodedata.normalize("NFD", text)))
    once = normalise(text)
    assert once == normalise(once) == normalise(unicodedata.normalize("NFD", text))


async def test_c08_the_default_is_owasps(hasher: PasswordHasher) -> None:
    """C08: without a word, a hash is Argon2id with 19 MiB, two passes, one lane, a salt of 16 bytes and 32 of hash."""
    default = PasswordHasher(workers=1)
    encoded = await default.hash("tuba glow mango")
    default.close()
    stored = argon2.extract_parameters(encoded)
    assert stored == argon2.Parameters(argon2.Type.ID, 19, 16, 32, 2, 19 * 1024, 1)
    assert argon2.PasswordHasher().verify(encoded, "tuba glow mango")
    assert await hasher.verify("tuba glow mango", encoded)


async def test_c08_two_hashes_of_one_password_differ(hasher: PasswordHasher) -> None:
    """C08: every hash has its own salt."""
    assert len({await hasher.hash("tuba glow mango") for _ in range(50)}) == 50


def test_each_profile_names_its_source_and_is_found_by_name() -> None:
    """A number one has to trust says where it comes from; the cheap one says it is for tests."""
    assert {name: profile.name for name, profile in PROFILES.items()} == {name: name for name in PROFILES}
    assert "OWASP" in OWASP_2024.source
    assert "RFC 9106" in RFC_9106_LOW_MEMORY.source
    assert "tests" in CHEAPEST.source
    rfc = argon2.profiles.RFC_9106_LOW_MEMORY
    ours = RFC_9106_LOW_MEMORY
    assert (rfc.memory_cost, rfc.time_cost, rfc.parallelism) == (ours.memory, ours.passes, ours.lanes)


@pytest.mark.parametrize(("change", "expected"), [({"memory": 16}, True), ({"passes": 2}, True), ({}, False)])
async def test_c08_a_hash_is_due_when_parameters_rise(
    hasher: PasswordHasher, change: dict[str, int], expected: bool
) -> None:
    """C08: with more memory or passes the old hash still verifies and is due for a new one."""
    encoded = await hasher.hash("tuba glow mango")
    risen = PasswordHasher(dearer(CHEAPEST, **change), workers=1)
    assert expected == risen.needs_rehash(encoded)
    assert await risen.verify("tuba glow mango", encoded)
    renewed = await risen.hash("tuba glow mango")
    assert not risen.needs_rehash(renewed)
    # And back: nothing replaces a dear hash by a cheap one.
    assert not hasher.needs_rehash(renewed)
    risen.close()


async def test_c08_an_imported_hash_verifies_and_is_due(hasher: PasswordHasher) -> None:
    """C08: a bcrypt hash opens the door once more, through the same method, and is due for replacement."""
    encoded = bcrypt.hashpw(b"tuba glow mango", bcrypt.gensalt(4)).decode()
    assert await hasher.verify("tuba glow mango", encoded)
    assert not await hasher.verify("tuba glow mangO", encoded)
    assert hasher.needs_rehash(encoded)
    assert not hasher.needs_rehash(await hasher.hash("tuba glow mango"))


async def test_c08_an_imported_hash_is_of_what_was_typed(hasher: PasswordHasher) -> None:
    """C04, C08: another system hashed the decomposed form as it came; both spellings of it open the door."""
    decomposed = unicodedata.normalize("NFD", "žluťoučký kůň")
    composed = unicodedata.normalize("NFC", decomposed)
    for made_from in (decomposed, composed):
        for encoded in (
            bcrypt.hashpw(made_from.encode(), bcrypt.gensalt(4)).decode(),
            argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(made_from),
        ):
            stored = legacy.imported(encoded)
            assert await hasher.verify(decomposed, stored)
            assert await hasher.verify(composed, stored)
            assert not await hasher.verify(composed[:-1], stored)
            assert hasher.needs_rehash(stored)


async def test_a_hash_no_one_can_read_is_a_wrong_password(
    hasher: PasswordHasher, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P02, C10: a damaged row fails closed after the same work, and the log says so without hash or password."""
    derived = []
    derive = password._derive
    monkeypatch.setattr(password, "_derive", lambda *args: derived.append(args[1:2]) or derive(*args))
    for damaged in (
        "",
        "junk",
        "d41d8cd98f00b204e9800998ecf8427e",
        "$argon2id$v=19$m=9999999,t=9,p=1$c2FsdHNhbHQ$" + "A" * 43,
    ):
        caplog.clear()
        derived.clear()
        assert not await hasher.verify("tuba glow mango", damaged)
        assert hasher.needs_rehash(damaged)
        assert len(derived) == 1
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
        assert "tuba" not in caplog.text
        assert not damaged or damaged not in caplog.text


async def test_c09_a_pepper_is_part_of_the_hash(hasher: PasswordHasher, peppered: PasswordHasher) -> None:
    """C09: without the pepper, a hash made with it does not verify even the right password."""
    encoded = await peppered.hash("tuba glow mango")
    assert await peppered.verify("tuba glow mango", encoded)
    assert not await peppered.verify("tuba glow mangO", encoded)
    plain = encoded.replace(f",keyid={peppered._keyid}", "")
    assert plain != encoded
    assert not await hasher.verify("tuba glow mango", plain)
    assert not await peppered.verify("tuba glow mango", plain)


async def test_c09_a_pepper_can_be_introduced_later(hasher: PasswordHasher, peppered: PasswordHasher) -> None:
    """C09: hashes from before the pepper verify and are due; those with it are not."""
    before = await hasher.hash("tuba glow mango")
    assert await peppered.verify("tuba glow mango", before)
    assert peppered.needs_rehash(before)
    assert not peppered.needs_rehash(await peppered.hash("tuba glow mango"))


async def test_c09_a_lost_pepper_is_said_and_not_taken_for_a_wrong_password(
    hasher: PasswordHasher, peppered: PasswordHasher
) -> None:
    """C09: without the pepper a hash was made with, the server says it is misconfigured, and gives nothing away."""
    other = PasswordHasher(CHEAPEST, pepper=b"another pepper, also long enough", workers=1)
    encoded = await peppered.hash("tuba glow mango")
    for lost in (hasher, other):
        with pytest.raises(errors.Misconfigured, match="pepper"):
            await lost.verify("tuba glow mango", encoded)
        assert lost.needs_rehash(encoded)
    other.close()


def test_c09_a_short_pepper_is_refused() -> None:
    """C09: a pepper one could guess would be trusted for nothing."""
    with pytest.raises(errors.Misconfigured):
        PasswordHasher(CHEAPEST, pepper=b"fifteen bytes..")


@pytest.mark.parametrize("pepper", [None, PEPPER])
async def test_c10_no_account_costs_what_an_account_costs(
    monkeypatch: pytest.MonkeyPatch, pepper: bytes | None
) -> None:
    """C10: for an unknown address the same derivation runs, with the same parameters, on the same threads."""
    hasher = PasswordHasher(CHEAPEST, pepper=pepper, workers=1)
    encoded = await hasher.hash("tuba glow mango")
    derived = []
    derive = password._derive

    def record(composed: str, profile: Profile, salt: bytes, length: int, pepper: bytes | None) -> bytes:
        derived.append((composed, profile.memory, profile.passes, profile.lanes, len(salt), length, pepper))
        return derive(composed, profile, salt, length, pepper)

    monkeypatch.setattr(password, "_derive", record)
    assert not await hasher.verify("wrong", encoded)
    assert await hasher.verify_nothing("wrong") is None
    hasher.close()
    known, unknown = derived
    assert known == unknown


async def test_c10_the_hash_of_no_account_matches_no_password(hasher: PasswordHasher) -> None:
    """C10: the hash that stands in for a missing account is random at every start, and no password is behind it."""
    assert not await hasher.verify("", hasher._no_account)
    other = PasswordHasher(CHEAPEST, workers=1)
    assert other._no_account != hasher._no_account
    other.close()


async def test_i24_a_flood_is_refused_and_not_stored() -> None:
    """I-24: of a thousand log-ins at once, those beyond the queue get 503 at once, and the others are verified."""
    hasher = PasswordHasher(CHEAPEST, workers=1, queue=10)
    encoded = await hasher.hash("tuba glow mango")
    outcomes = await asyncio.gather(
        *(hasher.verify("tuba glow mango", encoded) for _ in range(1_000)), return_exceptions=True
    )
    hasher.close()
    assert {type(outcome) for outcome in outcomes} == {bool, errors.Unavailable}
    assert all(outcome is True for outcome in outcomes if isinstance(outcome, bool))
    assert len([outcome for outcome in outcomes if outcome is True]) >= 11


async def test_our_own_hashes_are_recognised(hasher: PasswordHasher, peppered: PasswordHasher) -> None:
    """An export of ours can be imported: without a pepper it is plain Argon2id; with one, only with that pepper."""
    assert legacy.recognise(await hasher.hash("tuba glow mango")) == "argon2id"
    with pytest.raises(errors.InvalidInput, match="pepper"):
        legacy.recognise(await peppered.hash("tuba glow mango"))


def test_no_secret_in_a_repr(peppered: PasswordHasher) -> None:
    """I-23: neither the pepper nor a hash can end up in a log by way of repr."""
    assert "sixteen" not in repr(peppered)
    assert "sixteen" not in repr(peppered._pool)
