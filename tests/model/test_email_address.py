"""One address, one account (email_address.py): I-18, and what an address may not smuggle."""

from __future__ import annotations

import contextlib
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dutchdoor import errors
from dutchdoor.model.email_address import canonical, mailbox

SPELLINGS = {
    "bob@example.org": ["bob@example.org", "Bob@Example.ORG", "BOB@EXAMPLE.ORG", "  bob@example.org "],
    "andre@xn--bcher-kva.example": [
        "andre@bücher.example",
        "ANDRE@BÜCHER.EXAMPLE",
        "andre@bu\u0308cher.example",
        "Andre@XN--BCHER-KVA.example",
    ],
    "bob@xn--strae-oqa.example": ["bob@straße.example", "BOB@STRAẞE.example", "bob@xn--strae-oqa.example"],
    "o'brien+shop#1@mail.example.co.uk": ["O'Brien+Shop#1@Mail.Example.co.uk"],
    "meena@xn--h2brj9c.example": ["meena@भारत.example"],
    "ivan@xn--e1afmkfd.xn--p1ai": ["Ivan@Пример.РФ"],
}


@pytest.mark.parametrize(("expected", "typed"), [(key, typed) for key, all_ in SPELLINGS.items() for typed in all_])
def test_i18_every_spelling_is_the_same_account(expected: str, typed: str) -> None:
    """I-18: case, punycode, composed letters in a domain and spaces around make no second account."""
    assert expected == canonical(typed)


@pytest.mark.parametrize("typed", [typed for spellings in SPELLINGS.values() for typed in spellings])
def test_a01_mail_goes_to_the_key_but_for_ascii_case(typed: str) -> None:
    """The place mail goes is ASCII, keeps the case of the name, and is the key of the account in lower case."""
    place = mailbox(typed)
    assert place.isascii()
    assert place.lower() == canonical(typed)
    assert place.partition("@")[0] == typed.strip().partition("@")[0]
    assert place == mailbox(place)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("ſam.victim@example.com", "LATIN SMALL LETTER LONG S (U+017F)"),
        ("victim＠corp.example", "FULLWIDTH COMMERCIAL AT (U+FF20)"),
        ("victim@ｃorp.example", "FULLWIDTH LATIN SMALL LETTER C (U+FF43)"),
        ("victim@corp。example", "IDEOGRAPHIC FULL STOP (U+3002)"),
        ("victim@corp｡example", "HALFWIDTH IDEOGRAPHIC FULL STOP (U+FF61)"),
        ("victim@corp．example", "FULLWIDTH FULL STOP (U+FF0E)"),
        ("Kim@corp.example", "KELVIN SIGN (U+212A)"),
        ("ﬁles@corp.example", "LATIN SMALL LIGATURE FI (U+FB01)"),
        ("Ⅷ@corp.example", "ROMAN NUMERAL EIGHT (U+2167)"),
        ("vi ctim@corp.example", "NO-BREAK SPACE (U+00A0)"),
        ("　victim@corp.example", "IDEOGRAPHIC SPACE (U+3000)"),
        ("andé@corp.example", "LATIN SMALL LETTER E WITH ACUTE (U+00E9)"),
        ("аnn@corp.example", "CYRILLIC SMALL LETTER A (U+0430)"),
        ("mıke@corp.example", "LATIN SMALL LETTER DOTLESS I (U+0131)"),
        ("victim@corp.example.", "ends with a dot"),
    ],
)
def test_a01_a_character_that_looks_like_another_is_refused_by_name(typed: str, name: str) -> None:
    """A spelling that only looks like an address is refused and says which character it is, in ASCII."""
    with pytest.raises(errors.InvalidInput) as refusal:
        canonical(typed)
    assert name in str(refusal.value)
    assert str(refusal.value).isascii()


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("=?utf-8?q?bob?=@corp.example", "encoded word"),
        ("=?utf-8?q?x=40evil.example=2c?=@corp.example", "encoded word"),
        ("=?utf-8?q??=@corp.example", "encoded word"),
        ("=?utf-8?b?Ym9i?=@corp.example", "encoded word"),
        ("a%evil.example@corp.example", "route"),
        ("a!b@corp.example", "route"),
        ("evil.example!a@corp.example", "route"),
    ],
)
def test_a02_encoded_words_and_source_routes_are_refused(typed: str, why: str) -> None:
    """An address that mail programs or mail servers read as another mailbox is refused, and says why."""
    with pytest.raises(errors.InvalidInput) as refusal:
        canonical(typed)
    assert why in str(refusal.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("b.ob@gmail.com", "bob@gmail.com"),
        ("bob+shop@gmail.com", "bob@gmail.com"),
        ("bob@example.org", "bob@exаmple.org"),
        ("bob@fass.example", "bob@faß.example"),
        ("bob@example.org", "bob@mail.example.org"),
    ],
)
def test_different_mailboxes_stay_different(one: str, other: str) -> None:
    """Dots, tags and look-alike letters are another person's mailbox: folding them gives an account away."""
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
        "@relay.example:bob@example.org",
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


LOCAL = st.text(st.sampled_from("abcXYZ019'+-_#="), min_size=1, max_size=12)
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
    assert once == canonical(once) == canonical(mailbox(typed))


@given(ADDRESS, st.lists(st.sampled_from(["NFC", "NFD", "case", "space", "punycode"]), min_size=1, max_size=5))
def test_i18_respelling_makes_no_second_account(typed: str, respellings: list[str]) -> None:
    """I-18: whatever a keyboard, a file system or an attacker does to the spelling, the key stays the same."""
    expected = accepted(typed)
    spelled = typed
    for respelling in respellings:
        match respelling:
            case "case":
                # The domain's upper case is tried by example: to IDNA, ß and SS are different letters.
                local, _, domain = spelled.rpartition("@")
                spelled = f"{local.swapcase()}@{domain.lower()}"
            case "space":
                spelled = f" {spelled} "
            case "punycode":
                spelled = mailbox(spelled)
            case form:
                spelled = unicodedata.normalize(form, spelled)
    assert expected == canonical(spelled)


@given(st.text(max_size=80) | st.text(alphabet='ab@.-[]"\\()<>:; \r\n\t\0xn１＠。ßü\u200d', max_size=40))
def test_whatever_is_accepted_is_safe_in_a_header(typed: str) -> None:
    """Any text at all gives InvalidInput or an address that is one word of plain ASCII."""
    with contextlib.suppress(errors.InvalidInput):
        address = mailbox(typed)
        local, _, domain = address.partition("@")
        assert not set(local) & set(' @()<>[]:;,%!\\"\r\n\t\0')
        assert address.isprintable()
        assert address.isascii()
        assert domain == domain.lower()
        assert len(address.encode()) <= 254
