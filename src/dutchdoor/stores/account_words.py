"""What a search finds accounts by: the beginning of a word in their address or name.

An address and a name are kept from the beginning of each word to their end: `ada@example.com` also as `example.com`,
and `Ada Lovelace` also as `Lovelace`. So a search is a look into an index for what begins with a text, and its cost
does not depend on how many accounts there are. A search for a part within a word would read all of them.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from typing import Any

from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Account
from dutchdoor.texts import mark

__all__ = ["LAST", "folded", "read_cursor", "read_word_cursor", "sought", "words_of", "write_cursor"]

_BETWEEN = "\t.,:;@+-_/&'\"()"
_SPACES = str.maketrans(dict.fromkeys(_BETWEEN, " "))
"""What stands between two words is as good as a space. Letters of every language are part of a word."""
_SEARCHED = 1000
"""Characters: an address and a name are shorter."""
_AT_MOST = 100
_WORDS_AT_MOST = 32
LAST = "\U0010ffff"
"""Comes after every character: what begins with a text is less than the text with this behind it."""


def folded(account: Account) -> str:
    """Return what is searched of an account: its addresses and its name, a line each, with case folded."""
    return "\n".join((account.email or "", account.address or "", account.name)).casefold()


def words_of(account: Account) -> list[str]:
    """Return what a search finds an account by, at most 32 texts: long names cost no more."""
    found: dict[str, None] = {}
    for line in folded(account)[:_SEARCHED].translate(_SPACES).split("\n"):
        words = line.split(" ")
        found.update({" ".join(words[n:])[:_AT_MOST]: None for n, word in enumerate(words) if word})
    return list(found)[:_WORDS_AT_MOST]


def read_word_cursor(text: str, begins: str) -> tuple[str, Any]:
    """Return the word, and the key of the account, behind which a page of a search begins. Raises `InvalidInput`."""
    word, key = read_cursor(text) if text else (begins, None)
    if not isinstance(word, str):
        raise InvalidInput(mark("This is no `after` of an earlier page."), field="after")
    return (word, key) if word >= begins else (begins, None)


def sought(search: str) -> str:
    """Return the text that words must begin with; "" for a search that finds nothing."""
    return search.casefold().translate(_SPACES).strip()[:_AT_MOST]


def write_cursor(place: str | float, key: str | int) -> str:
    """Return the text of a place in a list of accounts, for the `after` of its next page."""
    return urlsafe_b64encode(json.dumps([place, key]).encode()).rstrip(b"=").decode()


def read_cursor(text: str) -> tuple[Any, Any]:
    """Return what `write_cursor` was given; the types are to be checked. Raises `InvalidInput`."""
    try:
        encoded = text.encode() + b"=" * (-len(text) % 4)
        place, key = json.loads(b64decode(encoded, b"-_", validate=True))
        for part in (place, key):
            str(part).encode()  # half a surrogate pair fits into no database
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput(mark("This is no `after` of an earlier page."), field="after") from None
    return place, key
