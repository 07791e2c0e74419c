"""The languages there are, their texts, and which of them a request asks for (RFC 9110, 12.5.4; RFC 4647, 3.4)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache, lru_cache
from gettext import GNUTranslations, NullTranslations
from importlib import import_module
from pathlib import Path
from typing import Final

from dutchdoor.texts import Text, mark

__all__ = ["ENGLISH", "SHIPPED", "Language", "Languages", "language", "slips"]

CATALOGUES: Final = Path(__file__).parent


def _tags(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem.replace("_", "-") for path in folder.glob("*.po")))


SHIPPED: Final = ("en", *_tags(CATALOGUES))
"""The tags of the languages that come with this package. English is in the code."""

_HEADER_AT_MOST, _RANGES_AT_MOST = 400, 20
"""Characters of the header that are read, and languages in it. A browser sends some five."""

_RANGE = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*"  # de-AT
    r"(?:;\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"  # ;q=0.8
)


class Language:
    """One language: its `tag` (RFC 5646), the `direction` of its script (`ltr`, `rtl`), and its texts."""

    def __init__(self, tag: str, texts: NullTranslations, direction: str) -> None:
        self.tag, self.direction, self._texts = tag, direction, texts

    def __repr__(self) -> str:
        return f"Language({self.tag!r})"

    def text(self, text: str) -> str:
        """Return the translation of a text of the catalogue, or a text that is in none as it is: an application's own
        error has the words of the application.
        """
        if isinstance(text, Text):
            return self._texts.gettext(text.message) % text.values
        return self._texts.gettext(text) if text else ""  # the empty one is the catalogue's header

    def plural(self, one: str, many: str, number: int) -> str:
        return self._texts.ngettext(one, many, number)

    # Babel has the formats of each language, and costs 30 ms and 6 MB: imported for the first date.

    def when(self, at: float) -> str:
        """Write an instant, in seconds since 1970, to the minute: `November 3, 2026, 14:15 UTC`."""
        dates = import_module("babel.dates")
        moment, locale = datetime.fromtimestamp(int(at), UTC), self._locale
        day, time = dates.format_date(moment, "long", locale=locale), dates.format_skeleton("Hm", moment, locale=locale)
        return f"{day}, {time} UTC"

    def country(self, code: str) -> str:
        """Return the name of a country by its two letters, or the letters of one that has no name."""
        return str(import_module("babel").Locale.parse(self._locale).territories.get(code, code))

    def device(self, name: str) -> str:
        """Return the name of a device, which is stored as `Firefox on Linux`, or a name of another form as it is."""
        browser, on, system = name.rpartition(" on ")
        return self.text(mark("%(browser)s on %(system)s")) % {"browser": browser, "system": system} if on else name

    def number(self, number: float) -> str:
        return str(import_module("babel.numbers").format_decimal(number, locale=self._locale))

    def duration(self, seconds: float) -> str:
        """Write a duration in one unit, rounded down: no link lasts shorter than its mail says. At least a minute,
        unless it is a number of seconds.
        """
        length, unit = next((found for found in _UNITS if seconds >= found[0]), _UNITS[-1])
        return str(import_module("babel.units").format_unit(int(seconds // length), unit, locale=self._locale))

    @property
    def _locale(self) -> str:
        return self.tag.replace("-", "_")


_UNITS = ((86400, "duration-day"), (3600, "duration-hour"), (60, "duration-minute"), (1, "duration-second"))

ENGLISH: Final = Language("en", NullTranslations(), "ltr")


@cache
def language(tag: str, folder: Path | None = None) -> Language:
    """Return a language by its tag. `folder` may have catalogues of an operator (`de.po`), whose texts come first.

    Raises:
        LookupError: no catalogue is there.
        ValueError: a catalogue cannot be used.
    """
    name = f"{tag.replace('-', '_')}.po"
    found = [place / name for place in (folder, CATALOGUES) if place and (place / name).is_file()]
    if not found:
        if tag == "en":
            return ENGLISH
        raise LookupError(f"there is no catalogue {name}")
    first, *others = (_read(path, checked=path.parent != CATALOGUES) for path in found)
    for other in others:
        first.add_fallback(other)
    babel = import_module("babel")
    try:
        locale = babel.Locale.parse(tag, sep="-")
    except (ValueError, babel.UnknownLocaleError):
        raise LookupError(f"{tag} is no language that is known") from None
    return Language(tag, first, {"right-to-left": "rtl"}.get(locale.character_order, "ltr"))


def _read(path: Path, *, checked: bool) -> NullTranslations:
    """Read a catalogue from its text: there is no compiled file that could be older than it. `checked` refuses a text
    in which the values of its original have no place, as the tests do for ours: it would be an error on a page.
    """
    try:
        if checked:
            _check_quotes(path.read_bytes())
        with path.open("rb") as lines:
            catalogue = import_module("babel.messages.pofile").read_po(lines, abort_invalid=True)
    except (OSError, ValueError, import_module("babel.messages.pofile").PoFileError) as exc:
        raise ValueError(f"{path} cannot be read: {exc}") from None
    for message in catalogue if checked else ():
        places = dict.fromkeys(_PLACE.findall(str(message.id)), "")
        for form in message.string if isinstance(message.string, tuple) else (message.string,):
            try:
                form % places if places else form
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"{path} has other places for values than the original in: {form}") from None
    compiled = io.BytesIO()
    import_module("babel.messages.mofile").write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


_LINE = re.compile(rb'\s*(?:#.*|(?:(?:msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?)\s+)?"(?:[^"\\]|\\.)*"\s*)?')


def _check_quotes(content: bytes) -> None:
    """Raise `ValueError` for a line without its quotes: Babel would leave the text out."""
    for number, line in enumerate(content.splitlines(), 1):
        if not _LINE.fullmatch(line):
            raise ValueError(f'line {number} is not like msgid "..." or msgstr "..."')


_PLACE = re.compile(r"%\((\w+)\)")


_LIKELY_SLIP = 0.85
"""How alike two texts are, from 0 to 1, if one is probably a slip for the other."""


def slips(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Find each text of a folder's catalogues that is none of ours, and nearly one: its file, the text, and ours. One
    that is like none of ours may be the application's.
    """
    read_po = import_module("babel.messages.pofile").read_po

    def texts(path: Path) -> dict[str, None]:
        with path.open("rb") as lines:
            return dict.fromkeys(_first(message.id) for message in read_po(lines) if message.id)

    ours = texts(CATALOGUES / "de.po")  # a catalogue has each text there is
    for path in sorted(folder.glob("*.po")):
        for text in (each for each in texts(path) if each not in ours):
            for meant in get_close_matches(text, ours, 1, _LIKELY_SLIP):
                yield path.name, text, meant


def _first(forms: str | tuple[str, ...]) -> str:
    return forms if isinstance(forms, str) else forms[0]


class Languages:
    """The languages that a site offers. The first is for people who ask for none of them."""

    def __init__(self, tags: Iterable[str] = (), folder: Path | None = None) -> None:
        """Offer all languages that there are, English first, unless `tags` are given. `folder` has catalogues of the
        site's own, which may replace single texts of ours or be of another language.

        Raises:
            LookupError: a language has no catalogue.
            ValueError: a catalogue of the folder cannot be used.
        """
        self._folder = folder
        self.tags = tuple(tags) or tuple(dict.fromkeys((*SHIPPED, *(_tags(folder) if folder else ()))))
        for tag in self.tags:
            if folder or tag not in SHIPPED:  # ours are read when they are first asked for
                language(tag, folder)
        self.by_tag: Mapping[str, str] = {tag.lower(): tag for tag in self.tags}
        self.of_header = lru_cache(maxsize=256)(self._of_header)

    @property
    def default(self) -> Language:
        return language(self.tags[0], self._folder)

    def of(self, accept_language: str | None) -> Language:
        """Return the language that an Accept-Language header asks for."""
        return self.of_header((accept_language or "")[:_HEADER_AT_MOST])

    def named(self, tag: str) -> Language:
        """Return an offered language by its tag, or the default."""
        return language(self.by_tag.get(tag.lower(), self.tags[0]), self._folder)

    def _of_header(self, header: str) -> Language:
        for wanted in _by_preference(header):
            while wanted:
                if wanted in self.by_tag:
                    return language(self.by_tag[wanted], self._folder)
                wanted = wanted.rpartition("-")[0]  # noqa: PLW2901 - de-CH-1996, de-CH, de
        return self.default


def _by_preference(header: str) -> list[str]:
    """Return the tags of an Accept-Language header in lower case, the most wanted first. What is malformed is no
    wish.
    """
    found: list[tuple[float, str]] = []
    for piece in header.split(",", _RANGES_AT_MOST)[:_RANGES_AT_MOST]:
        read = _RANGE.fullmatch(piece)
        weight = float(read[2] or 1) if read else 0.0
        if read and weight and read[1] != "*":
            found.append((-weight, read[1].lower()))
    return [tag for _, tag in sorted(found, key=lambda each: each[0])]
