"""The rule for new passwords (NIST SP 800-63B-4 section 3.1.1, ASVS 5.0 V6.2): long, and not one that attackers try
first.

The rule refuses a password that is too short, or consists of the person's address or the product's name. It refuses
passwords on the list of common ones and on the operator's list of breached ones. It refuses a password that zxcvbn
expects to be guessed within a million tries. Each refusal is a sentence that says what to do instead. There is no
composition rule: a password needs no digit, capital or symbol, and `P@ssw0rd1` does not pass because it has them.

The rule applies when a password is chosen, never at log-in. So a stricter rule locks no user out.

NOTICE: `common_passwords.txt.gz` joins the list Django ships (BSD-3-Clause; collected by Royce Williams) with that of
zxcvbn (MIT; Dropbox, Daniel Wolf), folded, and without those under eight characters: they are too short anyway.
"""

from __future__ import annotations

import bisect
import gzip
import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from zxcvbn_rs_py import Warning as Pattern
from zxcvbn_rs_py import zxcvbn

from dutchdoor import errors
from dutchdoor.credentials.password import normalise
from dutchdoor.texts import mark

__all__ = ["BreachedList", "check_new_password", "tries_log10"]

MIN_GUESSES_LOG10 = 6.0
"""A million tries. Rate limits at log-in keep a guesser far below it, so this stops guesses from lists, not a
search.
"""

LOOKED_AT = 40
"""Characters that zxcvbn gets. Its work grows with the square of the length; a password not weak by then is not
weak.
"""

MAX_DISGUISES = 8
"""Ways of reading symbols as letters that zxcvbn may try. `P@$$w0rd1!` has two; a password crafted as an attack has
hundreds.
"""

MIN_WORD = 3
"""Characters of the shortest part of an address or name that counts as a word."""

MAX_LINE = 128
"""Bytes read for a line of a breached list, which has about fifty: a file of another kind is not read whole."""

SAMPLED = 64
"""Lines of a breached list that are checked when it is opened: enough that an unsorted list does not pass by chance."""

MAX_SOURCE = 256
"""Characters of an address or name that are checked: as many as an address can have."""


def check_new_password(
    password: str,
    *,
    minimum: int,
    product: str,
    email: str | None = None,
    words: Iterable[str] = (),
    breached: Callable[[str], bool] | None = None,
    field: str = "password",
) -> str:
    """Return the password in its normal form, ready to be hashed, or raise with the reason for refusing it.

    `minimum` is in characters, counted after normalisation. `words` are further words that an attacker would try for
    this person or site: a name, a company. `breached` returns whether a password is known from a breach, as
    `BreachedList` does.

    Raises:
        InvalidInput: longer than 1,024 bytes, or not text.
        WeakPassword: the message is a sentence for the person who chose it, and never repeats the password.
    """
    composed = normalise(password, field=field)
    if len(composed) < minimum:
        reason = mark(
            "This password is too short. Use %(minimum)s characters or more; a few words in a row are easy to keep.",
            minimum=minimum,
        )
    elif _fold(composed) in _common():
        reason = mark("This is one of the most common passwords, which are tried first. Choose another.")
    elif breached is not None and breached(composed):
        reason = mark(
            "This password is known from a leak elsewhere, so it will be tried. Choose another, and change it there."
        )
    else:
        reason = _guessable(_fold(composed), list(_own_words(product, email, words)))
    if reason:
        raise errors.WeakPassword(reason, field=field)
    return composed


def tries_log10(password: str, *, product: str, email: str | None = None, words: Iterable[str] = ()) -> float:
    """Return the tries that an attacker needs who knows these words, as a power of ten. Raises `InvalidInput`."""
    return _estimate(_fold(normalise(password)), list(_own_words(product, email, words)))[0]


class BreachedList:
    """A file of breached passwords, as Have I Been Pwned publishes it: sorted lines of `SHA1:count`.

    The file is not loaded: a look-up reads about thirty lines of it, whatever its size. Call it outside the event loop.

    Raises:
        Misconfigured: the file cannot be read, or is not such a list. A list sorted by count, or of other hashes or
            plain passwords, would match no password and so refuse none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            with path.open("rb") as lines:
                size = lines.seek(0, 2)
                sample = [_line_after(lines, size * part // SAMPLED) for part in range(SAMPLED)]
        except OSError as exc:
            raise errors.Misconfigured(
                f"The list of breached passwords {path} cannot be read: {exc.strerror}."
            ) from None
        found = [line for line in sample if line]  # the last line has no line after it
        if not sample[0] or not all(_LINE.fullmatch(line) for line in found):
            raise errors.Misconfigured(
                f"The list of breached passwords {path} does not have lines of a SHA-1 in 40 hexadecimal digits, a "
                "colon and a count."
            )
        if sorted(found, key=_hash_of) != found:
            raise errors.Misconfigured(f"The list of breached passwords {path} is not sorted by hash.")

    def __call__(self, password: str) -> bool:
        """Return whether a password is on the list. Raises `Unavailable` when the file can no longer be read."""
        # SHA-1 is only the format of the list; nothing of ours relies on it.
        wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        try:
            with self.path.open("rb") as lines:
                size = lines.seek(0, 2)

                def hash_after(offset: int) -> bytes:
                    return _hash_of(_line_after(lines, offset)) or b"~"

                return hash_after(bisect.bisect_left(range(size), wanted, key=hash_after)) == wanted
        except OSError as exc:
            raise errors.Unavailable(f"the list of breached passwords cannot be read: {exc.strerror}") from exc


def _line_after(lines: BinaryIO, offset: int) -> bytes:
    """The first line that begins after `offset`, or the file's first line for 0."""
    lines.seek(offset)
    if offset:
        lines.readline(MAX_LINE)
    return lines.readline(MAX_LINE)


def _hash_of(line: bytes) -> bytes:
    return line[:40].upper()


def _guessable(folded: str, own: list[str]) -> str:
    """Return why an attacker would guess the password early, or an empty string."""
    rest = folded
    for word in sorted(own, key=len, reverse=True):
        rest = rest.replace(word, "")
    # Words that an attacker reads from the address or the page do not count; the rest must be strong by itself. So
    # `bob2026!!` is refused for bob@example.com and `bobcat tractor lemon` is not.
    if rest != folded and _estimate(rest.lstrip(" ._+-"), [])[0] < MIN_GUESSES_LOG10:
        return mark(
            "This password is made of your e-mail address or a name others know. Choose one they would not think of."
        )
    guesses, pattern = _estimate(folded, own)
    if guesses >= MIN_GUESSES_LOG10:
        return ""
    return next((reason for known, reason in _PATTERNS if known == pattern), _ANY)


def _estimate(text: str, own: list[str]) -> tuple[float, Pattern | None]:
    """Return the tries an attacker needs, as a power of ten, and the pattern that makes them so few."""
    if not text:
        return 0.0, None
    shown = text[:LOOKED_AT]
    # For each letter that symbols may stand for, zxcvbn tries each of the symbols that occur, in every combination: an
    # attacker's `(4@{[<6!1|0$5+7%2` takes it half a second. Such a mixture is no common password in disguise, so its
    # symbols are passed as letters that stand for nothing.
    if math.prod(max(1, len(symbols & set(shown))) for symbols in _STAND_FOR_A_LETTER) > MAX_DISGUISES:
        shown = shown.translate(_NO_DISGUISE)
    entropy = zxcvbn(shown, own)
    return entropy.guesses_log10, entropy.feedback.warning if entropy.feedback else None


def _own_words(product: str, email: str | None, words: Iterable[str]) -> Iterator[str]:
    sources = [product, *words]
    if email is not None:
        local, _, domain = email.rpartition("@")
        # The last label (com, org) belongs to no person or company.
        sources += [local, domain.rpartition(".")[0]]
    for source in sources:
        folded = _fold(source[:MAX_SOURCE])
        for word in {folded, "".join(folded.split()), *re.split(r"[\W_]+", folded)}:
            if len(word) >= MIN_WORD:
                yield word


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@cache
def _common() -> frozenset[str]:
    # Read at first use: a program that only verifies passwords need not load it.
    packed = Path(__file__).with_name("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode().splitlines())


_LINE = re.compile(rb"[0-9A-Fa-f]{40}(?::[0-9]+)?\r?\n?")
_STAND_FOR_A_LETTER = [set(symbols) for symbols in ("4@", "([{<", "69", "1!|", "17|", "$5", "+7")]
_NO_DISGUISE = str.maketrans("@([{<!|$+%", "жяэщбюцёдъ")

_COMMON = mark("This is close to one of the most common passwords, which are tried first. Choose another.")
_NAME = mark("This password is little more than a name. Add another word or two that do not belong together.")
_REPEATED = mark("This password repeats itself, which adds little. Use different words instead.")
_ANY = mark("This password is easy to guess. Add another word or two that do not belong together.")
_ROW = mark("This password follows a row or pattern of keys. Use a few words that do not belong together instead.")

_PATTERNS: list[tuple[Pattern, str]] = [
    (Pattern.ThisIsATop10Password, _COMMON),
    (Pattern.ThisIsATop100Password, _COMMON),
    (Pattern.ThisIsACommonPassword, _COMMON),
    (Pattern.ThisIsSimilarToACommonlyUsedPassword, _COMMON),
    (Pattern.AWordByItselfIsEasyToGuess, mark("This password is a single word. Add another word or two.")),
    (Pattern.NamesAndSurnamesByThemselvesAreEasyToGuess, _NAME),
    (Pattern.CommonNamesAndSurnamesAreEasyToGuess, _NAME),
    (Pattern.RepeatsLikeAaaAreEasyToGuess, _REPEATED),
    (Pattern.RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess, _REPEATED),
    (Pattern.StraightRowsOfKeysAreEasyToGuess, _ROW),
    (Pattern.ShortKeyboardPatternsAreEasyToGuess, _ROW),
    (
        Pattern.SequencesLikeAbcAreEasyToGuess,
        mark("This password counts up or down, which is easy to guess. Use words instead."),
    ),
    (
        Pattern.RecentYearsAreEasyToGuess,
        mark("A year adds little to a password. Use a few words that do not belong together."),
    ),
    (
        Pattern.DatesAreOftenEasyToGuess,
        mark("A date adds little to a password. Use a few words that do not belong together."),
    ),
]
