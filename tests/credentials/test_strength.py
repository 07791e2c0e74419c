"""The rule for new passwords (credentials/strength.py): C01 to C05."""

from __future__ import annotations

import contextlib
import hashlib
import unicodedata
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.costs import cost

from dutchdoor import errors
from dutchdoor.credentials import strength
from dutchdoor.credentials.strength import BreachedList, check_new_password

ALICE = "alice.smith@corp.example.com"


def check(password: str, *, minimum: int = 8, email: str | None = ALICE, words: tuple[str, ...] = ()) -> str:
    return check_new_password(password, minimum=minimum, email=email, product="Dutch Door", words=words)


@pytest.mark.parametrize("minimum", [8, 15])
def test_c01_the_minimum_is_what_policy_says(minimum: int) -> None:
    """C01: one character less than the minimum is refused with the number to reach, the minimum is accepted."""
    password = "tuba glow mango xylophone"[:minimum]
    assert password == check(password, minimum=minimum)
    with pytest.raises(errors.WeakPassword, match=f"{minimum} characters or more"):
        check(password[:-1], minimum=minimum)


def test_c01_characters_are_counted_as_people_type_them() -> None:
    """C01: eight letters with accents are eight, in whatever form the device sends them."""
    password = "žluťoučk"
    assert password == check(unicodedata.normalize("NFD", password))
    with pytest.raises(errors.WeakPassword):
        check(unicodedata.normalize("NFD", password[:7]))


def test_c02_long_passwords_are_welcome() -> None:
    """C02: 64 characters and many more are accepted, and come back whole."""
    for length in (64, 128, 1_024):
        password = ("four words that nobody joins, then more of them; " * 30)[:length]
        assert password == check(password)


def test_c03_the_maximum_is_refused_before_any_work() -> None:
    """C03: a megabyte is refused as too long, in less than 5 ms of processor."""
    for password in ("a" * 1_025, "é" * 513, "a" * 2**20, "e\u0301" * 2**19):

        def is_refused(password: str = password) -> None:
            with pytest.raises(errors.InvalidInput, match="too long"):
                check(password)

        assert cost(is_refused) < 0.005


@pytest.mark.parametrize(
    "password",
    [
        "tuba glow mango",
        "onlylowercaseletterswithoutend",
        "7305118824960053",
        "🦊🌵🎺🧊🪁🛶🧭🪵",
        "سوسن كبير أزرق",
        "שלום עולם ירוק",
        "密码本身不重要的长句子",
        "   leading and trailing   ",
        "tab\tand\nnewline and \0 nul",
    ],
)
def test_c04_any_characters_and_no_composition_rule(password: str) -> None:
    """C04: no digit, capital or symbol is asked for, none is forbidden, and nothing is trimmed."""
    assert unicodedata.normalize("NFC", password) == check(password)


@pytest.mark.parametrize("password", ["tuba\ud800glow mango", "\udfff" * 10])
def test_c04_half_a_character_is_no_text(password: str) -> None:
    """C04: what UTF-8 cannot carry is refused, and the exception does not carry the password along."""
    with pytest.raises(errors.InvalidInput) as refusal:
        check(password)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__


@pytest.mark.parametrize(
    "password",
    [
        "password",
        "Password1",
        "PASSWORD123",
        "P@ssw0rd1",
        "password1234567",
        "ｐａｓｓｗｏｒｄ",
        "iloveyou",
        "qwertyuiop",
        "qwertyuiopasdfg",
        "1q2w3e4r5t",
        "12345678",
        "abcdefghijklmno",
        "aaaaaaaaaaaaaaa",
        "abcabcabcabcabc",
        "trustno1",
        "Liverpool1",
        "michelle",
        "giraffes",
        "19841984",
        "Winter2025",
    ],
)
def test_c05_what_everyone_tries_first_is_refused(password: str) -> None:
    """C05: common passwords and their usual disguises are refused with a sentence, which does not repeat them."""
    with pytest.raises(errors.WeakPassword) as refusal:
        check(password)
    said = str(refusal.value)
    assert said.startswith(("This ", "A "))
    assert said.endswith(".")
    assert password.lower() not in said.lower() or password.lower() == "password"


def test_c05_every_common_password_is_refused_in_any_case() -> None:
    """C05: the whole list is refused, in upper case as well; it has at least 10,000 entries of usable length."""
    common = strength._common()
    assert len(common) >= 10_000
    assert all(len(entry) >= 8 and entry == strength._fold(entry) for entry in common)
    for entry in sorted(common)[::50]:
        with pytest.raises(errors.WeakPassword, match="common"):
            check(entry.upper(), email=None)


@pytest.mark.parametrize(
    "password",
    [
        "alice.smith2026!!",
        "ALICE.SMITH",
        "AliceSmith1",
        "smith-alice",
        "alice1234",
        "corp2026corp",
        "example.com",
        "dutchdoor",
        "DutchDoor2026!",
        "dutch door 1",
        "Acme-Widgets-1",
        "alice.smith@corp.example.com",
    ],
)
def test_c05_what_others_read_off_the_page_is_refused(password: str) -> None:
    """C05: the address, the product and further words count for nothing, alone, joined or decorated."""
    with pytest.raises(errors.WeakPassword):
        check(password, words=("Acme Widgets",))


@pytest.mark.parametrize(
    "password", ["alice likes turbid mangoes", "a dutchdoor of old pale wood", "malice toward tubas"]
)
def test_c05_a_good_password_may_contain_such_a_word(password: str) -> None:
    """C05: what is strong without the word is strong with it; short words in long passwords cause no refusal."""
    assert password == check(password)


@given(st.text(min_size=1, max_size=40), st.text(max_size=40), st.text(max_size=20))
@settings(deadline=None)
def test_any_text_is_accepted_or_refused_with_a_reason(password: str, local: str, product: str) -> None:
    """Whatever is typed as password, address and name, the answer is the password or a sentence."""
    with contextlib.suppress(errors.WeakPassword):
        accepted = check_new_password(password, minimum=8, email=f"{local}@example.org", product=product)
        assert unicodedata.normalize("NFC", password) == accepted


def test_the_longest_password_is_judged_quickly() -> None:
    """C03: the estimate looks at a bounded beginning, so 1,024 characters cost milliseconds."""
    check("tuba glow mango xylophone")

    def is_judged() -> None:
        with pytest.raises(errors.WeakPassword, match="repeats"):
            check("x" * 1_024)
        check("p@$$w0rd, 1995, abcdefg and the word " * 27)

    assert cost(is_judged) < 0.1


def test_no_password_makes_the_estimate_slow() -> None:
    """C03: zxcvbn tries symbols as letters in every combination, which unbounded takes half a second."""
    check("tuba glow mango xylophone")
    for made_for_it in ("(4@{[<6!1|0$5+7%2" * 4, "{+3g!4x(2{l74<<l9z9!@({991090%x|x0(!7|5{|21(037[z47<1<{({z|z$6(%"):
        assert made_for_it == check(made_for_it)
        assert cost(partial(check, made_for_it)) < 0.1


def test_the_field_is_the_callers() -> None:
    """A refused `new_password` is reported under that name."""
    with pytest.raises(errors.WeakPassword) as refusal:
        check_new_password("short", minimum=8, product="x", field="new_password")
    assert refusal.value.field == "new_password"
    assert refusal.value.code == "weak_password"
    with pytest.raises(errors.InvalidInput) as refusal:
        check_new_password("x" * 2_000, minimum=8, product="x", field="new_password")
    assert refusal.value.field == "new_password"


@pytest.fixture
def breached(tmp_path: Path) -> tuple[BreachedList, list[str]]:
    known = [f"breached password number {number}" for number in range(500)]
    hashes = sorted(hashlib.sha1(password.encode()).hexdigest().upper() for password in known)
    path = tmp_path / "breached.txt"
    path.write_bytes("".join(f"{sha1}:{len(sha1) % 7}\r\n" for sha1 in hashes).encode())
    return BreachedList(path), known


def test_c05_a_breached_list_finds_each_of_its_lines(breached: tuple[BreachedList, list[str]]) -> None:
    """C05: every line is found, the first and last included, and nothing that is not there."""
    is_breached, known = breached
    assert all(map(is_breached, known))
    assert not any(is_breached(password + "!") for password in known)


def test_c05_a_breached_password_is_refused(breached: tuple[BreachedList, list[str]]) -> None:
    """C05: a password from the operator's list is refused with the reason, whatever its strength."""
    is_breached, known = breached
    with pytest.raises(errors.WeakPassword, match="leak"):
        check_new_password(known[7], minimum=8, product="x", breached=is_breached)


HASHES = [hashlib.sha1(str(n).encode()).hexdigest().upper() for n in range(500)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "does not have lines"),
        ("\n", "does not have lines"),
        ("correct horse\nbattery staple\n", "does not have lines"),
        ("A" * 39 + "\n", "does not have lines"),
        ("".join(f"{sha1[:32]}:1\n" for sha1 in sorted(HASHES)), "does not have lines"),  # the NTLM file
        ("".join(f"{sha1}:1\n" for sha1 in HASHES), "not sorted"),  # the file by prevalence
    ],
)
def test_c05_a_list_that_would_find_nothing_stops_the_start(tmp_path: Path, content: str, says: str) -> None:
    """A file that is no list of SHA-1 hashes, or is in another order, would refuse no password: it is not taken."""
    path = tmp_path / "list.txt"
    path.write_text(content)
    with pytest.raises(errors.Misconfigured, match=says):
        BreachedList(path)


@pytest.mark.parametrize("count", [1, 2, 3, 100])
@pytest.mark.parametrize("ending", ["\n", "\r\n", ":12\n", ":3\r\n"])
def test_c05_any_length_of_list_is_taken(tmp_path: Path, count: int, ending: str) -> None:
    """A list of one line is one, with counts or without, in capitals or not, and with no line end at its end."""
    path = tmp_path / "list.txt"
    for hashes in (sorted(HASHES[:count]), sorted(sha1.lower() for sha1 in HASHES[:count])):
        path.write_text("".join(sha1 + ending for sha1 in hashes).rstrip("\r\n"))
        is_breached = BreachedList(path)
        assert all(is_breached(str(n)) for n in range(count))
        assert not is_breached("500")


def test_c05_a_list_that_went_away_takes_no_password(breached: tuple[BreachedList, list[str]], tmp_path: Path) -> None:
    """When the file cannot be read any more, a new password is not taken unseen."""
    (tmp_path / "breached.txt").unlink()
    with pytest.raises(errors.Unavailable):
        breached[0]("tuba glow mango")


def test_c05_a_missing_list_is_said_at_the_start(tmp_path: Path) -> None:
    """A list that is configured and not there stops the start, not the first registration."""
    with pytest.raises(errors.Misconfigured):
        BreachedList(tmp_path / "absent.txt")
