"""The catalogues: complete, and of the texts that templates and code have today."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import pytest
from babel.messages import Message
from babel.messages.checkers import python_format

from dutchdoor.texts.languages import CATALOGUES, SHIPPED
from dutchdoor.texts.update import catalogue, extract

FILES = sorted(CATALOGUES.glob("*.po"))
each_catalogue = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
HINT = "Run `make texts`, and write what it lists."


@cache
def used() -> dict[str | tuple[str, ...], Message]:
    """The texts of templates and code. Each process imports this file, and one of them runs it."""
    return {message.id: message for message in extract() if message.id}


def forms(text: str | tuple[str, ...]) -> tuple[str, ...]:
    return text if isinstance(text, tuple) else (text,)


def test_german_is_among_the_languages():
    """A catalogue beside the code is a language of the package, without a list that could forget it."""
    assert SHIPPED[0] == "en"
    assert "de" in SHIPPED


@each_catalogue
def test_a_catalogue_has_each_text_that_is_used(path: Path):
    """A text of a template or of `mark` that has no entry would stay English in silence."""
    there = {message.id for message in catalogue(path) if message.id}
    assert set(used()) - there == set(), HINT


@each_catalogue
def test_a_catalogue_has_no_text_that_no_source_has(path: Path):
    """A slip in the English of an entry would translate nothing, and the next `make texts` would take it out. It is
    named, with the text that it is nearest to.
    """
    known = {forms(text)[0] for text in used()}
    unknown = sorted({forms(message.id)[0] for message in catalogue(path) if message.id} - known)
    nearest = {text: get_close_matches(text, known, 1) for text in unknown}
    assert not unknown, f"{path.name} has texts that no source has, with the nearest that one has: {nearest}"


@each_catalogue
def test_each_text_is_translated(path: Path):
    """No entry is empty or a machine's guess."""
    unfinished = [m.id for m in catalogue(path) if m.id and (m.fuzzy or not all(forms(m.string)) or not m.string)]
    assert not unfinished, HINT


@each_catalogue
def test_a_translation_has_the_places_and_the_markup_of_its_text(path: Path):
    """A value that is missing hides what happened; one too many is an exception on the page. Markup that differs is a
    link that leads nowhere.
    """
    found = catalogue(path)
    for message in (m for m in found if m.id):
        if message.python_format:
            python_format(found, message)
        for form in forms(message.string):
            wanted = forms(message.id)[-1]
            assert places(form) == places(wanted), message.id
            assert sorted(re.findall(r"<[^>]*>", form)) == sorted(re.findall(r"<[^>]*>", wanted)), message.id


@each_catalogue
def test_a_translation_is_one_text(path: Path):
    """A merge that keeps both sides of a conflict may write one translation behind another."""
    for message in (m for m in catalogue(path) if m.id):
        for form, wanted in zip(forms(message.string), forms(message.id) * 6, strict=False):
            assert not re.search(r"[a-zäöüß][.!?][A-ZÄÖÜ]", form), form
            assert (form[-1] in ".:?!") == (wanted[-1] in ".:?!"), f"{wanted} => {form}"


def places(text: str) -> set[str]:
    return set(re.findall(r"%\((\w+)\)", text))


def test_a_text_with_a_place_says_so():
    """`%s` has no name that another language could move, and a lone % breaks a text that gets values."""
    for text, message in used().items():
        for form in forms(text):
            rest = re.sub(r"%\(\w+\)s|%%", "", form)
            assert "%" not in rest or (rest == form and not message.python_format), form
