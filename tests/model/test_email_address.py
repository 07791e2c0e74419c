"""One address, one account (email_address.py): I-18, and what an address may not smuggle."""

from __future__ import annotations

import contextlib
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dutchdoor import errors
from dutchdoor.model.email_address import canonical

FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}

SPELLINGS = {
    "bob@example.org": [
        "bob@example.org",
        "Bob@Example.ORG",
        "BOB@EXAMPLE.ORG",
        "  bob@example.org ",
        "\u3000bob@example.org\u00a0",
        "bob@example.org.",
        "bob\uff20example.org",
        "ｂｏｂ＠ｅｘａｍｐｌｅ．ｏｒｇ",
        "bob@example。org",
        "bob@example｡org",
        "𝐛𝐨𝐛@example.org",
        "ⓑⓞⓑ@example.org",
    ],
    "andré@xn--bcher-kva.example": [
        "andré@bücher.example",
        "ANDRÉ@BÜCHER.EXAMPLE",
        "andre\u0301@bu\u0308cher.example",
        "ANDRE\u0301@xn--bcher-kva.example",
        "andré@XN--BCHER-KVA.example.",
    ],
    "strasse@xn--fa-hia.example": ["straße@faß.example", "STRASSE@FAß.example", "STRAẞE@faß.example"],
    "σισυφοσ@example.org": ["σίσυφος@example.org".replace("ί", "ι"), "ΣΙΣΥΦΟΣ@example.org", "σισυφοσ@example.org"],
    "viii.files@example.org": ["Ⅷ.ﬁles@example.org"],
    "o'brien+shop#1@mail.example.co.uk": ["O'Brien+Shop#1@Mail.Example.co.uk"],
    "मीना@xn--h2brj9c.example": ["मीना@भारत.example"],
    "иван@xn--e1afmkfd.xn--p1ai": ["Иван@Пример.РФ"],
}


@pytest.mark.parametrize(("expected", "typed"), [(key, typed) for key, all_ in SPELLINGS.items() for typed in all_])
def test_i18_every_spelling_is_the_same_account(expected: str, typed: str) -> None:
    """I-18: case, normalisation form, width, punycode, spaces around and a final dot make no second account."""
    assert expected == canonical(typed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("b.ob@gmail.com", "bob@gmail.com"),
        ("bob+shop@gmail.com", "bob@gmail.com"),
        ("bob@example.org", "bоb@example.org"),
        ("bob@example.org", "bob@exаmple.org"),
        ("bob@fass.example", "bob@faß.example"),
        ("andré@example.org", "andre@example.org"),
        ("mıke@example.org", "mike@example.org"),
        ("bob@example.org", "bob@mail.example.org"),
    ],
)
def test_different_mailboxes_stay_different(one: str, other: str) -> None:
    """Dots, tags, look-alike letters and accents are somebody else's mailbox: folding them gives an account away."""
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "@",
        "bob",
        "bob@",
        "@example.org",
        "bob@@example.org",
        "bob@example.org@example.com",
        "bob＠example.org@example.com",
        "bob@example.org,eve@example.com",
        "bob@example.org;eve@example.com",
        "bob@example.org eve@example.com",
        "bob@example.org%eve.example.com",
        "bob@example.org\r\nBcc: eve@example.com",
        "bob\r\n@example.org",
        "bob@example.org\n",
        "\tbob@example.org",
        "bob\0@example.org",
        "bob@exam\u200bple.org",
        "bo\u00adb@example.org",
        "bob\u202e@example.org",
        "bob\ufe0f@example.org",
        "\u3164@example.org",
        "bob@example.org\u2028",
        "bob\x85@example.org",
        "\ud800@example.org",
        "\ue000@example.org",
        "\U000e0061@example.org",
        "bob smith@example.org",
        "bob\u00a0smith@example.org",
        ".bob@example.org",
        "bob.@example.org",
        "bo..b@example.org",
        "bob․․x@example.org",
        '"bob"@example.org',
        '"b@b"@example.org',
        "bob(comment)@example.org",
        "Bob <bob@example.org>",
        "<bob@example.org>",
        "bob\\@example.org",
        "bob:eve@example.org",
        "bob😀@example.org",
        "bo" + "\u0316" * 31 + "b@example.org",
        "bob@[192.0.2.1]",
        "bob@[IPv6:2001:db8::1]",
        "bob@192.0.2.1",
        "bob@1.1",
        "bob@localhost",
        "bob@org.",
        "bob@.example.org",
        "bob@example..org",
        "bob@example.org..",
        "bob@-example.org",
        "bob@example-.org",
        "bob@exa_mple.org",
        "bob@exam ple.org",
        "bob@exa/mple.org",
        "bob@℀.org",
        "bob@xn--a.example",
        "bob@xn--zzzzzzzz99999.example",
        "bob@" + "a" * 64 + ".org",
        "a" * 65 + "@example.org",
        "é" * 33 + "@example.org",
        "a" * 64 + "@" + ".".join(["b" * 63] * 3) + ".org",
        "bob@" + "a." * 127 + "org",
        pytest.param("a" * 1_000_000 + "@example.org", id="a million of a"),
        pytest.param("bob@" + "ü" * 1_000_000, id="a million of ü"),
        pytest.param("@" * 1_000_000, id="a million of @"),
    ],
)
def test_what_is_not_an_address_we_would_write_to_is_refused(typed: str) -> None:
    """Header injection, second recipients, invisible letters, literals, comments and over-long input end here."""
    with pytest.raises(errors.InvalidInput) as refusal:
        canonical(typed)
    assert refusal.value.field == "email"
    assert "bob" not in str(refusal.value)


def test_the_longest_address_passes() -> None:
    """64 octets before the @ and 254 in all are accepted, one more is not."""
    domain = ".".join(["b" * 61] * 3) + ".org"
    longest = "a" * (254 - 1 - len(domain)) + "@" + domain
    assert longest == canonical(longest)
    with pytest.raises(errors.InvalidInput):
        canonical("a" + longest)
    assert len(canonical("a" * 64 + "@example.org")) == 76


LOCAL = st.text(
    st.characters(categories=["L", "M", "Nd"]) | st.sampled_from("ßẞİıΣςſKÅﬁǅΐΰͅ῾ºªⅧ'+-_!#"), min_size=1, max_size=12
)
LABEL = st.text(st.sampled_from("abcxyz019äöüßéñøçžσςжщ中日한ไ"), min_size=1, max_size=10)
ADDRESS = st.builds("{}@{}.{}".format, LOCAL, LABEL, st.sampled_from(["org", "EXAMPLE", "рф", "xn--p1ai"]))


def accepted(typed: str) -> str:
    try:
        return canonical(typed)
    except errors.InvalidInput:
        assume(condition=False)
        raise


@given(ADDRESS)
def test_i18_the_canonical_form_is_its_own(typed: str) -> None:
    """I-18: applied again, nothing changes; so what is stored and what is looked up are one text."""
    once = accepted(typed)
    assert once == canonical(once)


@given(
    ADDRESS,
    st.lists(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD", "lower", "width", "space", "dot"]), min_size=1, max_size=5),
)
def test_i18_respelling_makes_no_second_account(typed: str, respellings: list[str]) -> None:
    """I-18: whatever a keyboard, a file system or an attacker does to the spelling, the key stays the same."""
    expected = accepted(typed)
    spelled = typed
    for respelling in respellings:
        match respelling:
            case "lower":
                # The domain's upper case is tried by example: to IDNA, ß and SS are different letters. The dotless i
                # is another letter than i, though both are I in upper case.
                local, _, domain = spelled.rpartition("@") if "@" in spelled else spelled.rpartition("＠")
                spelled = f"{'ı'.join(part.upper() for part in local.split('ı'))}@{domain.lower()}"
            case "width":
                spelled = spelled.translate(FULL_WIDTH)
            case "space":
                spelled = f" {spelled}\u00a0"
            case "dot":
                spelled = spelled.rstrip() if spelled.rstrip().endswith((".", "．")) else spelled.rstrip() + "."
            case form:
                spelled = unicodedata.normalize(form, spelled)
    assert expected == canonical(spelled)


@given(st.text(max_size=80) | st.text(alphabet='ab@.-[]"\\()<>:; \r\n\t\0xn１＠。ßü\u200d', max_size=40))
def test_whatever_is_accepted_is_safe_in_a_header(typed: str) -> None:
    """Any text at all gives InvalidInput or an address that is one word, whose domain is plain ASCII."""
    with contextlib.suppress(errors.InvalidInput):
        address = canonical(typed)
        local, _, domain = address.partition("@")
        assert not set(local) & set(' @()<>[]:;,\\"\r\n\t\0')
        assert address.isprintable()
        assert domain.isascii()
        assert domain == domain.lower()
        assert len(address.encode()) <= 254
