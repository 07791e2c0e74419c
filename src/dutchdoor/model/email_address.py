"""One e-mail address, one text: every spelling of it that a person or a keyboard produces gives the same key (I-18).

The key is for finding and comparing accounts. Mail goes to one address stored for the account, never to what somebody
typed just now: a spelling that folds to another's key would otherwise fetch the other's reset link.

Standards: RFC 5321 and 5322 (dot-atom form), RFC 6531 (letters beyond ASCII), UTS #46 non-transitional and IDNA 2008
for the domain, and Unicode's compatibility caseless match for the rest.

What is merged: upper and lower case, NFC, NFD, NFKC and NFKD, full-width forms, spaces around, a dot at the end of
the domain, and a domain in letters or in punycode. RFC 5321 lets a mail host tell `Bob` from `bob`; none does.

What is deliberately not merged: dots and `+tag` in the part before the @. They belong to the mail host. Gmail ignores
dots, most do not, so folding them would hand one person's account to another; and a tag is how people see who sold
their address. Whoever wants one account a person needs more than an address anyway.

Not merged either: letters that look alike (Latin and Cyrillic `a`), or are one in upper case only (`i` and the Turkish
dotless i, which once led reset links of a large code host astray). They are different mailboxes. The domain is kept in
punycode, where the difference shows.

Refused: what is legal but has no use here and a history in attacks: quoted local parts, comments, address literals,
host names without a dot, and every control, space or invisible character, which is what header injection is made of.
"""

from __future__ import annotations

import re
import string
import unicodedata
from functools import lru_cache

import idna

from dutchdoor import errors
from dutchdoor.model.unicode_text import is_stream_safe

__all__ = ["canonical"]

MAX_LENGTH = 254
"""Octets of an address: RFC 5321's path of 256 without its brackets (erratum 1690)."""

MAX_LOCAL = 64
"""Octets before the @ (RFC 5321 section 4.5.3.1.1)."""

MAX_TYPED = 512
"""Characters looked at. Decomposed or padded spellings are longer than what they become, but not by this much."""


@lru_cache(maxsize=1024)
def canonical(address: str) -> str:
    """Return the one spelling of `address` that accounts are kept under. Applying it again changes nothing.

    Raises:
        InvalidInput: not an address, or of a form that is refused; `field` is `email`.
    """
    if len(address) > MAX_TYPED:
        raise _refusal("This is too long for an e-mail address.")
    # Before anything is trimmed: a line end is a second header to whatever sends the mail.
    if _FORBIDDEN.search(address):
        raise _refusal("An e-mail address has no line breaks or invisible characters.")
    if not is_stream_safe(address):
        raise _refusal("An e-mail address does not have that many accents on one letter.")
    text = unicodedata.normalize("NFKC", address).strip()
    # After NFKC: a full-width @ or a letter that decomposes into one splits the address like any other.
    if text.count("@") != 1:
        raise _refusal("An e-mail address has one @, with a name before it and a domain after it.")
    local, _, domain = text.partition("@")
    joined = f"{_local(local)}@{_domain(domain)}"
    if len(joined.encode()) > MAX_LENGTH:
        raise _refusal(f"An e-mail address has at most {MAX_LENGTH} characters.")
    return joined


def _local(local: str) -> str:
    folded = _fold(local)
    if not all(folded.split(".")) or not all(map(_is_atext, folded.replace(".", ""))) or _FORBIDDEN.search(folded):
        raise _refusal("The part before the @ has a character, or a dot in a place, that is not accepted.")
    if len(folded.encode()) > MAX_LOCAL:
        raise _refusal(f"The part before the @ has at most {MAX_LOCAL} characters.")
    return folded


def _domain(domain: str) -> str:
    dotted = domain.replace("\u3002", ".").removesuffix(".")
    if dotted.startswith("["):
        raise _refusal("The part after the @ is a domain name, not an address in brackets.")
    try:
        ascii_form = idna.encode(dotted, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise _refusal("The part after the @ is not a domain name.") from None
    labels = ascii_form.split(".")
    if len(labels) == 1 or not all(labels) or labels[-1].isdigit():
        raise _refusal("The part after the @ is a domain name, such as example.org.")
    return ascii_form


def _is_atext(character: str) -> bool:
    """RFC 5322's atext, and beyond ASCII letters, marks and digits."""
    return character in _ATEXT if character.isascii() else unicodedata.category(character)[0] in "LMN"


def _fold(text: str) -> str:
    # Unicode's compatibility caseless match (D146), repeated until nothing changes: some letters fold into pieces that
    # compose into something with a fold of its own.
    while (folded := unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", text).casefold())) != text:
        text = folded
    return text


def _refusal(message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, field="email")


# Controls and line ends; what is invisible or reorders text (default-ignorable code points, bidirectional controls,
# variation selectors); surrogates and private use. A space in the middle fails in either part.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)

_ATEXT = frozenset(string.ascii_lowercase + string.digits + "!#$%&'*+/=?^_`{|}~-")
