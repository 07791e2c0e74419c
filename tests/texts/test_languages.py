"""Which language a request gets, and what a text is in it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.texts import mark
from dutchdoor.texts.languages import ENGLISH, Languages, language
from dutchdoor.texts.templates import environment

GERMAN = language("de")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("DE-at", "de"),
        ("de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "de"),
        ("en-GB,de;q=0.9", "en"),
        ("fr,de;q=0.5", "de"),
        ("de;q=0.1, en;q=0.2", "en"),
        ("fr-CA, *", "en"),
        ("de;q=0", "en"),
        ("de;q=2, x", "en"),
        ("de;q=0.9999", "en"),
        ("../../../etc/passwd", "en"),
        (", ,;;q=,de", "de"),
        ("x" * 30000, "en"),
    ],
)
def test_a_browser_gets_the_language_it_asks_for(header, expected):
    """By preference, with or without the region. The first of the site's if none of them is offered."""
    assert Languages(["en", "de"]).of(header).tag == expected


def test_the_first_language_is_for_those_who_ask_for_none():
    """A German site answers a French browser in German, and one of a single language has no other."""
    assert Languages(["de", "en"]).of("fr").tag == "de"
    assert Languages(["de"]).of("en").tag == "de"


def test_a_long_header_costs_no_time():
    """A crowd of headers made to be slow is read in bounded work: backtracking, thousands of ranges, a full memory."""
    languages = Languages(["en", "de"])
    began = time.thread_time()
    for number in range(300):
        languages.of(f"{'a-' * 200}{number}")
        languages.of("de;q=0.1," * 1000 + str(number))
    assert time.thread_time() - began < 1
    assert languages.of_header.cache_info().currsize <= 256


def test_the_error_of_a_page_is_in_its_language_with_its_values():
    """A program reads an error in English, a person in their language, both with the same values."""
    error = InvalidInput(mark("Signed in as <bdi>%(who)s</bdi>", who="Ann"))
    assert str(error) == "Signed in as <bdi>Ann</bdi>"
    assert type(str(error)) is str
    assert GERMAN.text(error.message) == "Angemeldet als <bdi>Ann</bdi>"


def test_a_text_of_the_application_stays_as_it_is():
    """An error of the application's own is in no catalogue; a percent sign in it is a percent sign."""
    assert GERMAN.text("Only 100% wool (%s).") == "Only 100% wool (%s)."
    assert GERMAN.text("") == ""


@pytest.fixture
def templates(tmp_path: Path):
    def write(text: str, name: str = "page.html"):
        (tmp_path / name).write_text(text)
        return environment(tmp_path, GERMAN).get_template(name)

    return write


def test_a_text_that_a_stranger_chose_is_never_markup(templates):
    """Stored script: the message of an error may quote what was sent, and so may a value."""
    page = templates(
        '{{ _(words) }} {{ _("End %(device)s", device=words) }} '
        "{% trans who=words %}Signed in as <bdi>{{ who }}</bdi>{% endtrans %}"
    )
    text = page.render(words="<script>alert(1)</script>")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 3
    assert "Angemeldet als <bdi>" in text


def test_a_mail_in_plain_text_has_no_escapes(templates):
    """The same text in a template that is no HTML."""
    assert templates('{{ _("End %(device)s", device="A & B") }}', "mail.txt").render() == "A & B beenden"


def test_dates_numbers_and_durations_are_of_the_language(templates):
    """A date is written the way its readers write it, with the exact instant for programs."""
    page = templates(
        "{{ at | when }} {{ 1234567 | number }} {{ 900 | duration }} {{ 86400 | duration }} {{ 7199 | duration }}"
    )
    assert page.render(at=1795976873.9) == (
        '<time datetime="2026-11-29T18:27:53Z">29. November 2026, 18:27 UTC</time> 1.234.567 15 Minuten 1 Tag 1 Stunde'
    )


def test_a_device_is_named_in_the_language(templates):
    """A device is stored as `Firefox on Linux` in each language. A name of another form stays as it is."""
    page = templates("{% for each in named %}{{ each | device }}|{% endfor %}")
    named = ["Firefox on Linux", "acme-sync", "", "100%s on 5%", "<b> on x"]
    assert page.render(named=named) == "Firefox unter Linux|acme-sync||100%s unter 5%|&lt;b&gt; unter x|"
    assert ENGLISH.device("Firefox on Linux") == "Firefox on Linux"


def test_a_site_chooses_its_languages_and_texts(tmp_path: Path):
    """A folder replaces single texts of ours, and adds a language; a list says which languages there are."""
    (tmp_path / "de.po").write_text('msgid "Sign in"\nmsgstr "Eintreten, für alle"\n')
    (tmp_path / "fr.po").write_text('msgid "Sign in"\nmsgstr "Se connecter"\n')
    (tmp_path / "en.po").write_text('msgid "Sign in"\nmsgstr "Log in"\n')
    languages = Languages((), tmp_path)
    assert languages.tags == ("en", "de", "fr")
    texts = {tag: languages.of(tag).text("Sign in") for tag in languages.tags}
    assert texts == {"en": "Log in", "de": "Eintreten, für alle", "fr": "Se connecter"}
    assert languages.of("de").text("Password") == "Passwort"
    assert languages.of("fr").text("Password") == "Password"
    auth = Auth("memory:", languages=["de"], catalogues=tmp_path, hasher=PasswordHasher(CHEAPEST))
    with TestClient(auth.asgi(), headers={"accept-language": "en", "accept": "text/html"}) as client:
        page = client.get("/auth/login").text
    assert '<html lang="de"' in page
    assert "Eintreten, für alle" in page


@pytest.mark.parametrize(
    ("written", "settings", "expected"),
    [
        ('msgid "End %(device)s"\nmsgstr "%(gerät)s"\n', {}, "catalogues: {folder}/de.po has other places for values"),
        ('msgid "End %(device)s"\nmsgstr "100% %(device)s"\n', {}, "has other places for values"),
        ('msgid "Sign in\n', {}, "cannot be read: line 1 is not like msgid"),
        ('msgid "Sign in"\nmsgstr Eintreten\n', {}, "cannot be read: line 2 is not like msgid"),
        ('msgid "Sign in"\nmsgstr "Ein"treten"\n', {}, "cannot be read: line 2 is not like msgid"),
        ("", {"languages": ["xx"]}, "there is no catalogue xx.po. There are en, de"),
        ("", {"languages": "de"}, "languages=['de']"),
        ("", {"catalogues": "nowhere"}, "there is no folder nowhere"),
    ],
)
def test_a_catalogue_that_does_not_fit_is_refused_at_start(tmp_path: Path, written, settings, expected):
    """A mistake in a file or a setting is no error on a page, weeks later: the start says what is wrong."""
    (tmp_path / "de.po").write_text(written)
    with pytest.raises(Misconfigured, match=re.escape(expected.format(folder=tmp_path))) as refused:
        Auth("memory:", **{"catalogues": tmp_path, **settings})
    assert ("There are en, de" in str(refused.value)) == ("no catalogue" in expected)


def test_a_text_that_is_nearly_one_of_ours_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A slip in the English of an own catalogue would replace nothing, in silence. A text that is like none of ours may
    be the application's.
    """
    (tmp_path / "de.po").write_text('msgid "Sing in"\nmsgstr "A"\n\nmsgid "Our terms of 2031"\nmsgstr "B"\n')
    Auth("memory:", catalogues=tmp_path)
    assert [each.getMessage() for each in caplog.records] == [
        "catalogues: de.po translates 'Sing in', which nothing says. Did you mean 'Sign in'?"
    ]


def test_english_needs_no_babel():
    """A server that shows no date and no other language imports nothing for it."""
    code = (
        "import sys; from dutchdoor.texts.languages import Languages; from dutchdoor.web.pages.rendering import render;"
        "render('registered', Languages().of('en-US')); assert 'babel' not in sys.modules, 'babel'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
