"""`python -m dutchdoor.texts.update`: puts each new text of templates and code into the catalogues, and takes out what
is no longer used. `... update fr` begins the catalogue of another language.

A catalogue is sorted, has one line for each text, and names files without lines: two people who add texts seldom change
the same lines. After a conflict in one, keep the lines of both sides, each entry once, and run this again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from babel.core import Locale
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from dutchdoor.texts.languages import CATALOGUES

__all__ = ["catalogue", "extract", "main"]

PACKAGE = CATALOGUES.parent
_JINJA = "jinja2.ext:babel_extract"
_METHODS = [
    ("**.py", "python"),
    ("web/pages/templates/**.html", _JINJA),
    ("mail/templates/**.*", _JINJA),
    ("choice/lab/templates/**.html", _JINJA),
]
# As in `templates.environment`.
_AS_RENDERED = {
    "trimmed": "true",
    "newstyle_gettext": "true",
    "silent": "false",
    "trim_blocks": "true",
    "lstrip_blocks": "true",
}
_OPTIONS = {pattern: _AS_RENDERED for pattern, method in _METHODS if method == _JINJA}
_KEYWORDS = {"mark": None, "_": None, "gettext": None, "ngettext": (1, 2)}
_HEADER = """# The texts of dutchdoor in {name}, by the English text. `make texts` adds new ones.
msgid ""
msgstr ""
"Language: {tag}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {plurals}\\n"

"""


def extract() -> Catalog:
    """Return every text of the package's code and templates."""
    found = Catalog()
    for file, _line, text, comments, context in extract_from_dir(
        PACKAGE, _METHODS, _OPTIONS, keywords=_KEYWORDS, comment_tags=["For translators:"], strip_comment_tags=True
    ):
        found.add(text, None, [(file, 0)], auto_comments=comments, context=context)
    return found


def catalogue(path: Path) -> Catalog:
    with path.open("rb") as lines:
        return read_po(lines, locale=path.stem)


def main(arguments: list[str]) -> int:
    """Update all catalogues, and begin those of the `arguments`. Returns 1 if a text has no translation yet."""
    found = extract()
    missing = False
    for tag in sorted({path.stem for path in CATALOGUES.glob("*.po")} | {tag.replace("-", "_") for tag in arguments}):
        path = CATALOGUES / f"{tag}.po"
        kept = catalogue(path) if path.exists() else Catalog(locale=tag)
        kept.update(found, no_fuzzy_matching=True)
        gone = [message.id for message in kept.obsolete.values() if _translated(message.string)]
        kept.obsolete.clear()
        locale = Locale.parse(tag)
        with path.open("wb") as lines:
            header = _HEADER.format(name=locale.english_name, tag=tag.replace("_", "-"), plurals=kept.plural_forms)
            lines.write(header.encode())
            write_po(lines, kept, width=10_000, omit_header=True, sort_output=True, include_lineno=False)
        empty = [message for message in kept if message.id and not _translated(message.string)]
        missing = missing or bool(empty)
        sys.stdout.write(f"{path}: {len(kept)} texts, {len(empty)} to translate\n")
        for message in empty:
            sys.stdout.write(f"  {message.id}\n")
        for text in gone:
            sys.stdout.write(f"  taken out, since no source has it: {text}\n")
    return int(missing)


def _translated(text: object) -> bool:
    return all(text) if isinstance(text, tuple) else bool(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
