"""One text for each e-mail address: accounts are found by it, and mail goes to it (I-18, A01).

`mailbox` returns the address for mail: the local part as typed, the domain as A-labels. `canonical` is the same in
lower case, and accounts are stored under it. So the two differ by ASCII case at most: no spelling finds the account of
one mailbox and gets its mail in another. RFC 5321 lets a mail host distinguish `Bob` from `bob`; none does.

What is merged: ASCII case, spaces around, and a domain in letters or in punycode (UTS #46 non-transitional, IDNA 2008).

What is deliberately not merged: dots and `+tag` in the part before the @. They belong to the mail host. Gmail ignores
dots, most do not, so folding them would hand one person's account to another.

Refused by name: characters with a compatibility equivalent (RFC 8264, section 9.17, HasCompat): the long s, a
full-width `@`, ligatures, ideographic dots. If they were folded, the name of one mailbox would find the account of
another.

Refused because attacks have used them: quoted local parts, comments, address literals, host names without a dot, a dot
at the end, encoded words (`=?utf-8?q?...?=`, which mail libraries decode into another address), source routes
(`a%other.example@relay`, `a!b@relay`), and every control, space or invisible character.

Local parts are ASCII: docs/contributing/decisions/0019.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import idna

from dutchdoor import errors
from dutchdoor.texts import mark

__all__ = ["canonical", "mailbox", "without_tag"]

MAX_LENGTH = 254
"""Octets of an address: RFC 5321's path of 256 without its brackets (erratum 1690)."""

MAX_LOCAL = 64
"""Octets before the @ (RFC 5321 section 4.5.3.1.1)."""

MAX_TYPED = 512
"""Characters that are read. A domain in Unicode, or a padded one, is longer than its result, but not by this much."""


def canonical(address: str) -> str:
    """Return the text that accounts are stored under. Applying it again changes nothing. Raises as `mailbox` does."""
    return mailbox(address).lower()


@lru_cache(maxsize=1024)
def mailbox(address: str, *, any_host: bool = False) -> str:
    """Return the one spelling by which mail reaches an address. `any_host` allows `localhost`, for senders.

    Raises:
        InvalidInput: not an address, or of a form that is refused; `field` is `email`.
    """
    if len(address) > MAX_TYPED:
        raise _refusal(mark("This is too long for an e-mail address."))
    # Checked before any trimming: the program that sends the mail would read a line end as a second header.
    if _FORBIDDEN.search(address):
        raise _refusal(mark("An e-mail address has no line breaks or invisible characters."))
    text = address.strip(" ")
    for character in text:
        if _stands_for_another(character):
            raise _refusal(
                mark(
                    "An e-mail address does not have %(character)s. Type the plain character.",
                    character=_named(character),
                )
            )
    if text.count("@") != 1:
        raise _refusal(mark("An e-mail address has one @, with a name before it and a domain after it."))
    local, _, domain = text.partition("@")
    _check_local(local)
    joined = f"{local}@{_domain(domain, any_host=any_host)}"
    if len(joined) > MAX_LENGTH:
        raise _refusal(mark("An e-mail address has at most %(most)s characters.", most=MAX_LENGTH))
    return joined


def without_tag(address: str) -> str:
    """Return one text for all tagged addresses of a mailbox, for rate limits on mail: `ann+@` for `ann+shop@`. The
    plain address stays as it is: mail to tags that an attacker makes up must not use up the owner's limit.
    """
    local, _, domain = address.rpartition("@")
    name, plus, _ = local.partition("+")
    return f"{name}{plus}@{domain}"


def _check_local(local: str) -> None:
    other = next((character for character in local if not character.isascii()), "")
    if other:
        raise _refusal(
            mark(
                "The part before the @ has %(character)s. Many mail servers cannot deliver to it: use the mailbox's "
                "ASCII address.",
                character=_named(other),
            )
        )
    if "%" in local or "!" in local:
        raise _refusal(mark("The part before the @ has ! or %, which mail servers read as a route to another mailbox."))
    if "=?" in local:
        raise _refusal(mark("The part before the @ is an encoded word, which mail programs decode to another address."))
    if not _LOCAL.fullmatch(local):
        raise _refusal(mark("The part before the @ has a character, or a dot in a place, that is not accepted."))
    if len(local) > MAX_LOCAL:
        raise _refusal(mark("The part before the @ has at most %(most)s characters.", most=MAX_LOCAL))


def _domain(domain: str, *, any_host: bool) -> str:
    if domain.startswith("["):
        raise _refusal(mark("The part after the @ is a domain name, not an address in brackets."))
    if domain.endswith("."):
        raise _refusal(mark("The part after the @ ends with a dot. Leave it out."))
    try:
        ascii_form = idna.encode(domain, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        raise _refusal(mark("The part after the @ is not a domain name.")) from None
    labels = ascii_form.split(".")
    if not all(labels) or not (any_host or (len(labels) > 1 and not labels[-1].isdigit())):
        raise _refusal(mark("The part after the @ is a domain name, such as example.org."))
    return ascii_form


def _stands_for_another(character: str) -> bool:
    """RFC 8264, section 9.17 (HasCompat), and the ideographic full stop, which UTS #46 reads as a dot."""
    return not character.isascii() and (character == "\u3002" or unicodedata.normalize("NFKC", character) != character)


def _named(character: str) -> str:
    return f"{unicodedata.name(character, 'a character without a name')} (U+{ord(character):04X})"


def _refusal(message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, field="email")


# RFC 5322's dot-atom, without % and !.
_LOCAL = re.compile(r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9#$&'*+/=?^_`{|}~-]+)*")

# Controls and line ends; characters that are invisible or reorder text (default-ignorable code points, bidirectional
# controls, variation selectors); surrogates and private use. A space in the middle fails in either part.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)
