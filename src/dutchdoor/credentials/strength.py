"""The rule for new passwords (NIST SP 800-63B-4 section 3.1.1, ASVS 5.0 V6.2): long, and not one everybody tries first.

Refused are passwords that are too short, on the list of common ones, on a list of breached ones the operator hooks in,
made of the person's address or the product's name, or found by zxcvbn to be guessed within a million tries. Each
refusal is a sentence that says what to do instead. There is no composition rule: no digit, capital or symbol is asked
for, and no spelling of `P@ssw0rd1` passes for having them.

The rule is for choosing. Nothing here runs at log-in, so a stricter rule locks nobody out.

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

__all__ = ["BreachedList", "check_new_password"]

MIN_GUESSES_LOG10 = 6.0
"""A million tries. The throttle on log-ins keeps a guesser far below it, so what it stops is a list, not a search."""

LOOKED_AT = 40
"""Characters zxcvbn is shown. Its work grows with the square of the length; what is not weak by then is not weak."""

MAX_DISGUISES = 8
"""Ways of reading symbols as letters that zxcvbn may try. `P@$$w0rd1!` has two; one made for it has hundreds."""

MIN_WORD = 3
"""Characters of the shortest word of an address or name that counts as one."""

MAX_LINE = 128
"""Bytes read for a line of a breached list, which has some fifty: another kind of file is not read whole."""

SAMPLED = 64
"""Lines of a breached list that are looked at when it is opened: a list in another order is not sorted by chance."""

MAX_SOURCE = 256
"""Characters of an address or name that are looked at: as many as an address can have."""


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
    """Return the password in its normal form, ready to be hashed, or say why it is not accepted.

    `minimum` is in characters, counted after normalisation. `words` are more that others would try for this person or
    place: a name, a company. `breached` says whether a password is known from a breach, such as `BreachedList`.

    Raises:
        InvalidInput: longer than 1,024 bytes, or not text.
        WeakPassword: the message is a sentence for the person who chose it, and never repeats the password.
    """
    composed = normalise(password, field=field)
    if len(composed) < minimum:
        reason = f"This password is too short. Use {minimum} characters or more; a few words in a row are easy to keep."
    elif _fold(composed) in _common():
        reason = "This is one of the most common passwords, which are tried first. Choose another."
    elif breached is not None and breached(composed):
        reason = (
            "This password is known from a leak elsewhere, so it will be tried. Choose another, and change it there."
        )
    else:
        reason = _guessable(_fold(composed), list(_own_words(product, email, words)))
    if reason:
        raise errors.WeakPassword(reason, field=field)
    return composed


class BreachedList:
    """A file of breached passwords, as Have I Been Pwned offers for download: sorted lines of `SHA1:count`.

    Nothing is loaded: a look-up reads some thirty lines of the file, whatever its size. Call it outside the event loop.

    Raises:
        Misconfigured: the file cannot be read, or is not such a list. One that is sorted by count, or holds hashes of
            another kind or passwords themselves, would find nothing and refuse nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as lines:
                size = lines.seek(0, 2)
                sample = [_line_after(lines, size * part // SAMPLED) for part in range(SAMPLED)]
        except OSError as exc:
            raise errors.Misconfigured(f"the list of breached passwords {path}: {exc.strerror}") from None
        found = [line for line in sample if line]  # what begins in the last line has none after it
        if not sample[0] or not all(_LINE.fullmatch(line) for line in found):
            raise errors.Misconfigured(
                f"the list of breached passwords {path} does not have lines of a SHA-1 in 40 hexadecimal digits, a "
                "colon and a count"
            )
        if sorted(found, key=_hash_of) != found:
            raise errors.Misconfigured(f"the list of breached passwords {path} is not sorted by hash")

    def __call__(self, password: str) -> bool:
        """Tell whether a password is on the list. Raises `Unavailable` when the file cannot be read any more."""
        # SHA-1 is only how the list is written; nothing is kept under it.
        wanted = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper().encode()
        try:
            with self._path.open("rb") as lines:
                size = lines.seek(0, 2)

                def hash_after(offset: int) -> bytes:
                    return _hash_of(_line_after(lines, offset)) or b"~"

                return hash_after(bisect.bisect_left(range(size), wanted, key=hash_after)) == wanted
        except OSError as exc:
            raise errors.Unavailable(f"the list of breached passwords cannot be read: {exc.strerror}") from exc


def _line_after(lines: BinaryIO, offset: int) -> bytes:
    """The first line that begins after `offset`, or the first of all for 0."""
    lines.seek(offset)
    if offset:
        lines.readline(MAX_LINE)
    return lines.readline(MAX_LINE)


def _hash_of(line: bytes) -> bytes:
    return line[:40].upper()


def _guessable(folded: str, own: list[str]) -> str:
    """Why the password would be guessed early, or an empty string."""
    rest = folded
    for word in sorted(own, key=len, reverse=True):
        rest = rest.replace(word, "")
    # What others read off the address or the page counts for nothing; what is left must be strong by itself, so that
    # `bob2026!!` is refused for bob@example.com and `bobcat tractor lemon` is not.
    if rest != folded and _estimate(rest.lstrip(" ._+-"), [])[0] < MIN_GUESSES_LOG10:
        return "This password is made of your e-mail address or a name others know. Choose one they would not think of."
    guesses, pattern = _estimate(folded, own)
    if guesses >= MIN_GUESSES_LOG10:
        return ""
    return next((reason for known, reason in _PATTERNS if known == pattern), _ANY)


def _estimate(text: str, own: list[str]) -> tuple[float, Pattern | None]:
    """The tries a guesser needs, as a power of ten, and the pattern that made it so few."""
    if not text:
        return 0.0, None
    shown = text[:LOOKED_AT]
    # For each letter that symbols may stand for, zxcvbn tries each of the symbols that occur, in every combination: a
    # password chosen for it, `(4@{[<6!1|0$5+7%2`, takes it half a second. Such a mixture is nobody's common password in
    # disguise, so its symbols are shown as letters that stand for nothing.
    if math.prod(max(1, len(symbols & set(shown))) for symbols in _STAND_FOR_A_LETTER) > MAX_DISGUISES:
        shown = shown.translate(_NO_DISGUISE)
    entropy = zxcvbn(shown, own)
    return entropy.guesses_log10, entropy.feedback.warning if entropy.feedback else None


def _own_words(product: str, email: str | None, words: Iterable[str]) -> Iterator[str]:
    sources = [product, *words]
    if email is not None:
        local, _, domain = email.rpartition("@")
        # The last label (com, org) is nobody's own.
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
    # Read at first use: a program that only verifies never pays for it.
    packed = Path(__file__).with_name("common_passwords.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode().splitlines())


_LINE = re.compile(rb"[0-9A-Fa-f]{40}(?::[0-9]+)?\r?\n?")
_STAND_FOR_A_LETTER = [set(symbols) for symbols in ("4@", "([{<", "69", "1!|", "17|", "$5", "+7")]
_NO_DISGUISE = str.maketrans("@([{<!|$+%", "жяэщбюцёдъ")

_COMMON = "This is close to one of the most common passwords, which are tried first. Choose another."
_NAME = "This password is little more than a name. Add another word or two that do not belong together."
_REPEATED = "This password repeats itself, which adds little. Use different words instead."
_ANY = "This password is easy to guess. Add another word or two that do not belong together."
_ROW = "This password follows a row or pattern of keys. Use a few words that do not belong together instead."

_PATTERNS: list[tuple[Pattern, str]] = [
    (Pattern.ThisIsATop10Password, _COMMON),
    (Pattern.ThisIsATop100Password, _COMMON),
    (Pattern.ThisIsACommonPassword, _COMMON),
    (Pattern.ThisIsSimilarToACommonlyUsedPassword, _COMMON),
    (Pattern.AWordByItselfIsEasyToGuess, "This password is a single word. Add another word or two."),
    (Pattern.NamesAndSurnamesByThemselvesAreEasyToGuess, _NAME),
    (Pattern.CommonNamesAndSurnamesAreEasyToGuess, _NAME),
    (Pattern.RepeatsLikeAaaAreEasyToGuess, _REPEATED),
    (Pattern.RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess, _REPEATED),
    (Pattern.StraightRowsOfKeysAreEasyToGuess, _ROW),
    (Pattern.ShortKeyboardPatternsAreEasyToGuess, _ROW),
    (
        Pattern.SequencesLikeAbcAreEasyToGuess,
        "This password counts up or down, which is easy to guess. Use words instead.",
    ),
    (
        Pattern.RecentYearsAreEasyToGuess,
        "A year adds little to a password. Use a few words that do not belong together.",
    ),
    (
        Pattern.DatesAreOftenEasyToGuess,
        "A date adds little to a password. Use a few words that do not belong together.",
    ),
]
