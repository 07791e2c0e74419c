"""A catalogue in which each text is its English in brackets: what stands outside of brackets was never translated.

`python -m tests.texts.pseudo FOLDER` writes it as fr.po and ar.po: `catalogues=FOLDER, languages=["ar"]` then shows
a site as readers of a script from right to left have it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from html.parser import HTMLParser
from pathlib import Path

from babel.messages import Catalog
from babel.messages.pofile import write_po

from dutchdoor.texts.update import extract

OPEN, CLOSE = "\u27e6", "\u27e7"
DATA = {"bdi", "code", "time", "samp"}
"""Elements of what people and programs chose: names, addresses, ids, instants."""
READ_ALOUD = {"alt", "aria-label", "aria-description", "data-label", "placeholder", "title"}
LETTERS = re.compile(r"[^\W\d_]{2,}")
NAMES = re.compile(r"\b(?:[a-z]+(?:_[a-z0-9]+)+|CSV|JSON|UTC)\b")
"""Words of the wire, which no language translates."""
VOID = {"br", "img", "input", "link", "meta", "hr", "wbr", "col"}


def bracketed(text: str) -> str:
    return f"{OPEN}{text}{CLOSE}"


def write(folder: Path, tag: str) -> Path:
    """Write the catalogue of a language, with every text that is used today."""
    made = Catalog(locale=tag)
    for message in extract():
        if message.id:
            many = [message.id[1]] * made.num_plurals if isinstance(message.id, tuple) else []
            made.add(message.id, tuple(map(bracketed, many)) if many else bracketed(message.id))
    with (folder / f"{tag}.po").open("wb") as lines:
        write_po(lines, made)
    return folder


class Outside(HTMLParser):
    """Collects the words of a page that are neither in brackets nor data."""

    def __init__(self, page: str, known: Collection[str] = ()) -> None:
        super().__init__()
        self.found: list[str] = []
        self.known, self._depth, self._inside = set(known), 0, list[str]()
        self._wire: str | None = None
        self.feed(page)
        assert self._depth == 0, "a bracket of a text is not closed: a translation is cut"

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self._inside.append(tag)
        for name, value in attrs:
            button = name == "value" and tag == "input" and ("type", "submit") in attrs
            if (name in READ_ALOUD or button or name.startswith("data-words")) and value:
                self._check(re.sub(f"{OPEN}.*{CLOSE}", "", value, flags=re.DOTALL))

        if tag == "option":
            self._wire = dict(attrs).get("value")

    def handle_endtag(self, tag):
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data):
        if DATA & set(self._inside) or {"script", "style"} & set(self._inside):
            return
        if self._inside[-1:] == ["option"] and self._wire in {None, data.strip()}:
            return  # a word of the wire, shown as it is sent
        outside = ""
        for character in data:
            self._depth += (character == OPEN) - (character == CLOSE)
            outside += character if self._depth == 0 else " "
        self._check(outside)

    def _check(self, text):
        for known in self.known:
            text = text.replace(known, " ")
        text = NAMES.sub(" ", text)
        if LETTERS.search(text):
            self.found.append(" ".join(text.split()))


if __name__ == "__main__":
    for language in ("fr", "ar"):
        write(Path(sys.argv[1]), language)
