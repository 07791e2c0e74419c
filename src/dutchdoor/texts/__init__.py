"""The texts that people read on pages and in mails, in their language.

Each text stands in English where it is used: `{{ _("Sign in") }}` in a template, `mark("...")` in Python. The
catalogues beside this file (`de.po`) have its translations, by the English text. `languages.py` reads them,
`templates.py` gives them to templates, and `python -m dutchdoor.texts.update` keeps them complete.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = ["Text", "mark"]


class Text(str):
    """A text with values in it. As a string it is English; a page finds its translation by `message`, and then puts
    the `values` in: an exception says it to a program in English, and to a person in theirs.
    """

    __slots__ = ("message", "values")

    message: str
    values: dict[str, Any]

    def __new__(cls, message: str, values: dict[str, Any]) -> Self:
        text = super().__new__(cls, message % values)
        text.message, text.values = message, values
        return text


def mark(text: str, **values: object) -> str:
    """Name a text for the catalogues: the literal itself, never a variable. The template that shows it translates it:
    `{{ _(text) }}`. It may have places for values: `mark("At most %(most)s letters.", most=200)`.
    """
    return Text(text, values) if values else text
