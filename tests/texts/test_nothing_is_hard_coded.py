"""Each text that a person reads is in the catalogues. New templates, pages and errors fall under these laws."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from jinja2 import Environment, nodes
from starlette.testclient import TestClient
from tests.texts import pseudo
from tests.texts.pseudo import LETTERS, Outside

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.texts.languages import language
from dutchdoor.texts.templates import environment
from dutchdoor.web.pages.files import STATIC

PACKAGE = Path(__file__).parents[2] / "src" / "dutchdoor"
TEMPLATES = sorted(path for room in ("web/pages", "mail") for path in (PACKAGE / room / "templates").rglob("*.*"))
PRODUCT = "Halfdoor"
IN_A_TAG = {"width", "token", "invalid"}
"""Blocks and macros that write attributes."""


# --- templates -------------------------------------------------------------------------------------------------------


def shown(node: nodes.Node) -> Iterator[str]:
    """Write what a template shows in every branch: its own text, and literals of its expressions."""
    if isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Const):
        yield node.value if isinstance(node.value, str) else ""
    elif isinstance(node, nodes.CondExpr):
        yield from shown(node.expr1)
        yield from shown(node.expr2 or nodes.Const(""))
    elif isinstance(node, nodes.Or | nodes.And | nodes.Add):
        yield from shown(node.left)
        yield from shown(node.right)
    elif isinstance(node, nodes.Concat):
        for part in node.nodes:
            yield from shown(part)
    elif isinstance(node, nodes.Expr):
        yield "\0"
    elif isinstance(node, nodes.Output):
        for part in node.nodes:
            yield from shown(part)
    elif not (isinstance(node, nodes.Block | nodes.Macro) and node.name in IN_A_TAG):
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Stmt | nodes.Output):
                yield from shown(child)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_template_has_no_text_of_its_own(path: Path):
    """Every word in a template, in each of its branches and attributes, stands in `_(...)` or `{% trans %}`."""
    made: Environment = environment(path.parent, language("de"))
    tree = made.parse(path.read_text())
    text = "".join(shown(tree))
    found = Outside(text, {"\0"}).found if path.suffix == ".html" else LETTERS.findall(text)
    assert not found, "Write {{ _(...) }} around it, and run `make texts`."
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name not in {"_", "gettext", "ngettext"}:
            given = [part.value for part in call.args if isinstance(part, nodes.Const) and isinstance(part.value, str)]
            assert not [text for text in given if re.search(r"[A-Z][a-z]|[a-z] [a-z]", text)], call.node.name
        elif isinstance(call.node, nodes.Name) and call.args and isinstance(call.args[0], nodes.Const):
            assert call.node.name != "_" or "<" not in call.args[0].value, "Markup belongs into {% trans %}."


def test_a_text_outside_of_a_catalogue_is_found():
    """The law above notices what it is for: bare text, a literal in a branch, an attribute, a macro's argument."""
    made = environment(PACKAGE / "mail" / "templates", language("de"))
    for wrong in (
        "<p>Hello there</p>",
        "<b>{{ 'End' if a else b }}</b>",
        '<img alt="A door">',
        "<p>{{ a or 'None' }}</p>",
    ):
        assert Outside("".join(shown(made.parse(wrong))), {"\0"}).found, wrong
    for right in (
        '<p class="{{ "wrong" if a else "good" }}">{{ _("End") }}</p>',
        "{% trans %}<b>End</b>{% endtrans %}",
    ):
        assert not Outside("".join(shown(made.parse(right))), {"\0"}).found, right


# --- pages of a server ------------------------------------------------------------------------------------------------

HERE = {
    "accept": "text/html",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "same-origin",
    "origin": "http://testserver",
}
ROOT = {"email": "root@example.com", "password": "a door in two halves"}
FOR_DEVELOPERS = {"/docs"}
"""Pages that show the description of the API, which is in English."""


@pytest.fixture(scope="module", params=["fr", "ar"])
def site(request, tmp_path_factory) -> Iterator[tuple[Auth, TestClient]]:
    folder = pseudo.write(tmp_path_factory.mktemp("catalogues"), request.param)
    auth = Auth(
        "memory:", console=True, product=PRODUCT, languages=[request.param], catalogues=folder,
        hasher=PasswordHasher(CHEAPEST),
    )  # fmt: skip
    with TestClient(auth.asgi(), headers=HERE, follow_redirects=False) as client:
        create = partial(auth.directory.admin.create, roles=("admin",), client=Client(), actor="cli")
        assert client.portal is not None
        client.portal.call(partial(create, ROOT["email"], password=ROOT["password"], name="Root of all"))
        yield auth, client


def pages(auth: Auth) -> list[str]:
    paths = {route.path for route in auth.api.routes if route.method == "GET" and not route.path.startswith("/assets")}
    return sorted(re.sub(r"\{\w+\}", "nothing-with-this-id", path) for path in paths - FOR_DEVELOPERS)


@pytest.mark.parametrize("signed_in", [False, True], ids=["a stranger", "an administrator"])
def test_no_word_of_a_page_is_outside_of_the_catalogues(site, signed_in):
    """Each page that a browser can open, errors among them, in a language whose every text is marked; its direction
    is that of the language.
    """
    auth, client = site
    tag = auth.api.site and client.get("/").text.split('lang="')[1][:2]
    client.cookies.clear()
    if signed_in:
        assert client.post("/auth/login", data=ROOT).status_code == 303
    seen = 0
    for path in [*pages(auth), "/nothing"]:
        answer = client.get(path)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        seen += 1
        outside = Outside(answer.text, {PRODUCT, ROOT["email"], "Root of all", "dutchdoor", "admin"})
        assert not outside.found, path
        assert f'<html lang="{tag}" dir="{"rtl" if tag == "ar" else "ltr"}">' in answer.text, path
    assert seen >= 10


def test_what_a_form_refuses_is_in_the_language_of_its_page(site):
    """An error has its words from the service that raised it, with values in it, and the page translates it."""
    _, client = site
    client.cookies.clear()
    for path, data in (
        ("/auth/login", {**ROOT, "password": "wrong"}),
        ("/auth/login", {"email": "no address", "password": "x"}),
        ("/auth/login", {"next": "/"}),
        ("/auth/register", {"email": "ada@example.com", "password": "short"}),
        ("/auth/register", {"email": "a\u212bda@example.com", "password": "a door in two halves"}),
        ("/auth/register", {"email": "ada@example.com", "password": "a door in two halves", "name": "x" * 300}),
        ("/auth/register", {"email": "ada@example.com", "password": "x" * 2000}),
        ("/auth/logout", {"csrf_token": "wrong"}),
    ):
        answer = client.post(path, data=data)
        if answer.status_code == 303:
            continue
        assert not Outside(answer.text, {PRODUCT, "dutchdoor"}).found, (path, data)


def test_a_script_has_no_words():
    """What a script shows stands in the page, in its language."""
    for name, file in STATIC.items():
        if name.startswith("/assets/") and name.endswith(".js"):  # the client is for programs
            code = re.sub(r"^\s*//.*$", "", file.content.decode(), flags=re.MULTILINE)
            assert not re.findall(r"[\"'`][A-Z][a-z]+[ .][^\"'`]*[\"'`]", code)


def test_the_sheet_has_no_left_and_no_right():
    """In a script from right to left everything is mirrored: a margin, a border and a text begin where a line does."""
    sheet = STATIC["/assets/page.css"].content.decode()
    assert not re.findall(r"(?:margin|padding|border)-(?:left|right)|\b(?:left|right)\s*[:;}]|float", sheet)
    # Of four values, the second is the right one and the fourth the left one.
    for _, values in re.findall(r"\b(margin|padding|border-width|inset):\s*([^;}]+)", sheet):
        sides = re.findall(r"(?:\([^)]*\)|[^\s()])+", values)
        assert len(sides) < 4 or sides[1] == sides[3], values


# --- errors -----------------------------------------------------------------------------------------------------------

ROOMS = ("errors.py", "model", "credentials", "services", "web")
FOR_PROGRAMS = {
    "credentials/legacy.py",
    "model/accounts.py",
    "model/audit_events.py",
    "web/auth_routes.py",
    "web/body.py",
    "web/forwarded.py",
    "web/oauth.py",
    "web/program_auth.py",
    "web/wellknown.py",
}
"""Files whose errors answer a program, an import or an operator: no form of a page leads there."""


def messages(tree: ast.Module) -> Iterator[ast.expr]:
    """What an error says to the client: `message` of a class, the first argument of `InvalidInput`, `message=`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from (
                part.value
                for part in node.body
                if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "message"
            )
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in {"InvalidInput", "WeakPassword", "BadRequest", "_refusal"}:
                yield from node.args[:1]
            yield from (word.value for word in node.keywords if word.arg == "message")
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {"message", "reason", "text"}:
            yield node.value


def test_the_message_of_an_error_is_marked():
    """A formatted string cannot be translated, and neither can a literal that no catalogue knows."""
    unmarked = []
    for path in (
        path
        for room in ROOMS
        for path in ([PACKAGE / room] if room.endswith(".py") else (PACKAGE / room).rglob("*.py"))
    ):
        name = str(path.relative_to(PACKAGE))
        if name not in FOR_PROGRAMS:
            for found in messages(ast.parse(path.read_text())):
                literal = isinstance(found, ast.Constant) and isinstance(found.value, str) and " " in found.value
                if literal or isinstance(found, ast.JoinedStr):
                    unmarked.append(f"{name}:{found.lineno} {ast.unparse(found)[:60]}")
    assert not unmarked, 'Write mark("..."), with values as mark("... %(name)s ...", name=...).'
