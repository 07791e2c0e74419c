"""How pages look: accent, logo, corners, fonts, and templates in place of ours; and each mistake, at the start."""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from dutchdoor import Auth, Branding
from dutchdoor.errors import Misconfigured
from dutchdoor.web.pages.branding import CONTRAST, Look, contrast
from dutchdoor.web.pages.files import STATIC
from dutchdoor.web.pages.overriding import page

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "branded"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def browsing(branding: Branding, **more: Any) -> TestClient:
    application = Auth("memory:", branding=branding, **more).asgi()
    return TestClient(application, base_url="http://localhost", client=("127.0.0.1", 50000))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of templates: `folder(**{"login.html": "..."})`."""

    def made(**files: str) -> Path:
        for name, text in files.items():
            (tmp_path / "templates" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "templates" / name).write_text(text)
        return tmp_path / "templates"

    return made


def refusal(branding: Branding) -> str:
    with pytest.raises(Misconfigured) as refused:
        Look(branding)
    return str(refused.value)


def test_accent_logo_corners_and_font_are_on_every_page(tmp_path: Path) -> None:
    """What the branding names is in a sheet and a file that each page links, below the base path; no page has a style
    of its own. Without a branding there is no such sheet.
    """
    (tmp_path / "shop.svg").write_text(SVG)
    branding = Branding(accent="#0B6E4F", logo=tmp_path / "shop.svg", radius=4, font="Inter, serif")
    client = browsing(branding, base_path="/id", product="The shop")
    shown = client.get("/id/auth/login")
    assert '<link rel="stylesheet" href="/id/assets/brand.css?v=' in shown.text
    assert '<img src="/id/assets/logo.svg?v=' in shown.text
    assert "style=" not in shown.text and "<style" not in shown.text
    sheet = client.get("/id/assets/brand.css")
    assert sheet.headers["content-type"] == "text/css; charset=utf-8"
    assert "--accent: light-dark(#0b6e4f, #" in sheet.text
    assert "--radius: 4px;" in sheet.text and "--font: Inter, serif;" in sheet.text
    logo = client.get("/id/assets/logo.svg")
    assert (logo.text, logo.headers["content-type"]) == (SVG, "image/svg+xml")
    assert "default-src 'none'" in logo.headers["content-security-policy"]  # a script in it does nothing
    plain = browsing(Branding())
    assert "brand.css" not in plain.get("/auth/login").text
    assert plain.get("/assets/brand.css").status_code == 404


def test_mails_have_the_accent() -> None:
    """A mail has the accent of the pages, in both themes, and nothing of ours."""
    letters = Auth("memory:", branding=Branding(accent="#0b6e4f")).directory.post.letters
    mail = letters.reset_password("ada@example.com", token="x", valid_for=60)
    assert mail.html.count("#0b6e4f") == 3
    assert "#1f4e8c" not in mail.html and "#8cb4ec" not in mail.html


def test_each_variable_of_the_sheet_is_there() -> None:
    """Each variable that the sheet of the pages uses is defined in it, and those of a branding replace one of them."""
    sheet = STATIC["/assets/page.css"].content.decode()
    defined = set(re.findall(r"[{;\s]--([\w-]+):", sheet))
    assert set(re.findall(r"var\(--([\w-]+)\)", sheet)) <= defined
    branding = Branding(accent="#0b6e4f", radius=4, font="serif")
    own = Look(branding).files["/assets/brand.css"].content.decode()
    assert set(re.findall(r"--([\w-]+):", own)) == {"accent", "on-accent", "radius", "font"} <= defined


@pytest.mark.parametrize(("accent", "theme"), [("#ffcc00", "light"), ("#7f7f7f", "light"), ("#1f4e8c", "dark")])
def test_an_accent_that_people_cannot_read_is_refused_with_the_nearest(accent: str, theme: str) -> None:
    """The message has the contrast and a colour of the same hue, and that colour is accepted."""
    name = "accent" if theme == "light" else "accent_dark"
    given = {"accent": "#1f4e8c"} | {name: accent}
    said = refusal(Branding(**given))
    assert f"{name} {accent} has a contrast of" in said and f"on the {theme} pages" in said
    (nearest,) = re.findall(r"The nearest colour that has it is (#\w{6})\.", said)
    Look(Branding(**(given | {name: nearest})))


def test_an_accent_alone_is_readable_in_both_themes() -> None:
    """The accent of the dark theme is made of the one that is given, and what stands on a button can be read."""
    for accent in ("#000000", "#0b6e4f", "#9a3412", "#5b21b6", "#1f4e8c"):
        sheet = Look(Branding(accent=accent)).files["/assets/brand.css"].content.decode()
        shades, inks = (
            re.findall(rf"--{name}: light-dark\((#\w+), (#\w+)\)", sheet)[0] for name in ("accent", "on-accent")
        )
        assert shades[0] == accent
        assert all(contrast(shade, ink) >= CONTRAST for shade, ink in zip(shades, inks, strict=True))
        assert contrast(shades[1], "#15171a") >= CONTRAST and contrast(shades[1], "#1d2024") >= CONTRAST


def test_contrast_is_that_of_wcag() -> None:
    """Values from the definition: black on white is 21, a colour on itself 1, and #777 on white just fails."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#123456", "#123456") == pytest.approx(1)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize(
    ("branding", "says"),
    [
        (Branding(accent="green"), "accent is 'green'. Give a colour such as #0b6e4f."),
        (Branding(accent="#0b6e4f;}"), "Give a colour"),
        (Branding(accent_dark="#8cb4ec"), "accent_dark is given without accent"),
        (Branding(radius=40), "radius is 40. Give pixels from 0 to 32."),
        (Branding(font="serif; } body { display: none"), "Give names of fonts"),
        (Branding(font='"Inter, serif'), "Give names of fonts"),
        (Branding(logo="no/such.svg"), "no/such.svg (logo) cannot be read: No such file"),
        (Branding(logo="logo.gif"), "(logo) must be a file that ends in .png, .svg"),
        (Branding(templates="no/such"), "templates names no/such, which is no folder."),
    ],
)
def test_a_mistake_says_the_fix(branding: Branding, says: str) -> None:
    """Each value that cannot be is refused at the start, and none can write rules into the sheet."""
    assert says in refusal(branding)


def test_a_logo_has_a_size(tmp_path: Path) -> None:
    """A logo that would slow each page is refused."""
    (tmp_path / "big.png").write_bytes(b"x" * 70_000)
    assert "70,000 bytes. At most 65,536 are served." in refusal(Branding(logo=tmp_path / "big.png"))


def test_what_is_no_branding_is_refused() -> None:
    """A dict in place of a Branding says what to write."""
    with pytest.raises(Misconfigured, match=r"Give Branding\(accent="):
        Auth("memory:", branding={"accent": "#0b6e4f"})  # type: ignore[arg-type]


def test_a_template_replaces_a_page_and_may_extend_ours(folder: Callable[..., Path]) -> None:
    """A template with the name of a page is shown in its place, with everything escaped and the policy in force. What
    it extends may be ours or the folder's own, and what is below assets/ is served.
    """
    login = (
        '{% extends "dutchdoor/login.html" %}{% block footer %}{{ kept.next }}{% include "_ad.html" %}{% endblock %}'
    )
    base = '{% extends "dutchdoor/base.html" %}{% block head %}<link href="{{ asset("own/a.css") }}">{% endblock %}'
    files = {"login.html": login, "base.html": base, "_ad.html": "<b>Bread</b>", "assets/a.css": "body { color: red }"}
    templates = folder(**files)
    client = browsing(Branding(templates=templates))
    shown = client.get("/auth/login?next=/<script>")
    assert "/&lt;script&gt;<b>Bread</b>" in shown.text
    assert 'name="password"' in shown.text
    assert "trusted-types 'none'" in shown.headers["content-security-policy"]
    for path in ("/auth/login", "/auth/register", "/", "/docs", "/nothing"):
        assert "/assets/own/a.css" in client.get(path, headers={"accept": "text/html"}).text
    assert client.get("/assets/own/a.css").text == "body { color: red }"
    assert client.get("/assets/own/_ad.html").status_code == 404


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("logn.html", "", "logn.html replaces no page. Did you mean login.html?"),
        ("notes.txt", "", "notes.txt replaces no page. A file of your own begins with _"),
        ("login.html", "{{ usr.name }}", "login.html uses usr, which this page does not have. Its values: asset, "),
        ("login.html", "{% block main %}", "login.html, line 1: Unexpected end of template."),
        ("login.html", "\n{{ base | prose2 }}", "login.html, line 2: No filter named 'prose2'."),
        (
            "login.html",
            '{% extends "base.html" %}{% block mian %}{% endblock %}',
            "login.html, line 1: base.html has no block mian, so that nothing would show it. Its blocks: footer, ",
        ),
        ("login.html", '\n{% extends "login.html" %}', "line 2: it names itself. Ours is dutchdoor/login.html."),
        (
            "login.html",
            '{% extends "dutchdoor/logn.html" %}',
            "no template dutchdoor/logn.html. Did you mean dutchdoor/",
        ),
        ("login.html", '{% include "_foot.html" %}', "login.html, line 1: there is no template _foot.html."),
        ("login.html", '{% from "part.html" import email %}', "no template part.html. Did you mean parts.html?"),
        (
            "assets/steal.js",
            "",
            "(a file of assets/) must be a file that ends in .css, .ico, .jpg, .png, .svg, .webp, .woff2",
        ),
    ],
)
def test_a_template_that_does_not_fit_is_refused_at_the_start(
    folder: Callable[..., Path], name: str, text: str, says: str
) -> None:
    """A file that replaces nothing, a template with a mistake, and a value or block that is not there are named with
    the file, the line and what there is, before a person sees a page.
    """
    assert says in refusal(Branding(templates=folder(**{name: text})))


def test_a_value_without_a_member_is_named_with_its_template(folder: Callable[..., Path]) -> None:
    """What only a visit can find is an error with the file and the line in the log, and not an empty place."""
    client = browsing(Branding(templates=folder(**{"login.html": "\n{{ kept.nxt.x }}"})))
    client = TestClient(client.app, base_url="http://localhost", raise_server_exceptions=False)
    assert client.get("/auth/login", headers={"accept": "text/html"}).status_code == 500


def test_the_page_about_templates_is_true() -> None:
    """The page lists what each template has, as `python -m dutchdoor.web.pages.overriding` writes it."""
    assert (ROOT / "docs" / "reference" / "templates.md").read_text() == page()


def test_the_branded_example_is_another_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example shows its own layout, texts, colours and pictures, and its form signs in as ours does."""
    monkeypatch.chdir(tmp_path)
    application = runpy.run_path(str(EXAMPLE / "bakery.py"))["app"]
    ada = {"email": "ada@example.com", "password": "a door in two halves"}
    with TestClient(application, base_url="http://localhost", follow_redirects=False) as client:
        shown = client.get("/auth/login").text
        assert "Good morning." in shown and "Bread since 1891" in shown and "Brot &amp; Butter" in shown
        for link in re.findall(r'(?:href|src)="(/assets/[^"]+)"', shown):
            assert client.get(link).status_code == 200
        assert "Bread since 1891" in client.get("/auth/register").text
        assert client.post("/auth/register", json=ada).status_code == 201
        headers = {"sec-fetch-site": "same-origin", "origin": "http://localhost"}
        assert client.post("/auth/login", data={**ada, "password": "wrong one"}, headers=headers).status_code == 401
        assert client.post("/auth/login", data=ada, headers=headers).status_code == 303
