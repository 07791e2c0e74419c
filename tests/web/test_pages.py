"""Pages for people: what they contain, and what a real browser sends when a person uses them."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jinja2 import UndefinedError
from playwright.sync_api import Page

from dutchdoor.mail.letters import RESET_PATH, VERIFY_PATH
from dutchdoor.web.headers import SecurityHeaders
from dutchdoor.web.http import Response
from dutchdoor.web.pages.api_reference import outline
from dutchdoor.web.pages.rendering import PAGES, STATIC, render

CANARY = "ddo1_canary-canary-canary"
EVIL = "<img src=x onerror=alert(1)>"
DOCUMENT = {
    "openapi": "3.1.0",
    "info": {"title": "Example", "version": "1.0", "description": f"Errors have a `code`. {EVIL}"},
    "paths": {
        "/auth/login": {
            "post": {
                "tags": ["Sessions"],
                "summary": "Sign in",
                "description": "One message for `both`.",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Login"}}}},
                "responses": {
                    "200": {
                        "description": "Signed in",
                        "content": {
                            "application/json": {
                                "schema": {"anyOf": [{"$ref": "#/components/schemas/User"}, {"type": "null"}]}
                            }
                        },
                    },
                    "429": {"$ref": "#/components/responses/Problem"},
                },
            }
        },
        "/auth/sessions/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "delete": {"security": [{"bearer": []}], "responses": {"202": {"description": "Ended"}}},
        },
    },
    "components": {
        "responses": {"Problem": {"description": "Wait"}},
        "schemas": {
            "Login": {
                "type": "object",
                "required": ["email"],
                "properties": {
                    "email": {"type": "string", "format": "email", "description": EVIL},
                    "mode": {"enum": ["session", "jwt", None]},
                },
            },
            "User": {
                "type": "object",
                "properties": {
                    "friends": {"type": "array", "items": {"$ref": "#/components/schemas/User"}},
                    "claims": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "since": {"type": ["string", "null"]},
                    "any": True,
                },
            },
        },
    },
}
VALUES = {
    "landing": {},
    "setup": {"password_minimum": 8},
    "verify_email": {"password_minimum": 8},
    "reset_password": {"password_minimum": 8},
    "docs": {"document": DOCUMENT},
}


def page(name: str, product: str = "Example & Sons") -> str:
    return render(name, product=product, **VALUES[name]).decode()


class Elements(HTMLParser):
    """Every element of a page with its attributes, and every id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


every_page = pytest.mark.parametrize("name", PAGES.values())


@every_page
def test_nothing_is_inline_and_nothing_is_foreign(name):
    """No inline script, style or event attribute, and no address of another site: the strict policy breaks nothing."""
    elements = Elements(page(name))
    for _, attributes in elements.found:
        assert "style" not in attributes
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href", "action"):
            assert re.match(r"[/#](?!/)", attributes.get(key, "/"))
    assert not elements.all("style")
    assert elements.all("script") == [{"type": "module", "src": "/assets/page.js"}]


@every_page
def test_every_file_and_page_that_is_linked_is_there(name):
    """No link leads nowhere."""
    elsewhere = {
        "/auth/login",
        "/auth/devices",
        "/openapi.json",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    }
    elements = Elements(page(name))
    ids = {attributes["id"] for _, attributes in elements.found if "id" in attributes}
    for _, attributes in elements.found:
        target = attributes.get("href") or attributes.get("src") or "/"
        assert target in {*PAGES, *STATIC, *elsewhere} or target.removeprefix("#") in ids


@every_page
def test_a_page_is_accessible_by_construction(name):
    """A language, a title, a first heading, a label for every field, ids that are unique."""
    elements = Elements(page(name))
    assert elements.all("html") == [{"lang": "en", "dir": "ltr"}]
    assert len(elements.all("title")) == 1
    assert elements.all("h1")
    labelled = {label["for"] for label in elements.all("label")}
    assert all(field["id"] in labelled for field in elements.all("input"))
    assert all("alt" in image for image in elements.all("img"))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))


@every_page
def test_a_form_without_its_script_puts_nothing_into_an_address(name):
    """Were the script not to load, a form would still never be a GET, which writes a password into URL and log."""
    assert all(form["method"] == "post" and "action" not in form for form in Elements(page(name)).all("form"))


@every_page
def test_the_products_name_is_text(name):
    """A name with markup in it is shown, not run."""
    text = page(name, product=EVIL)
    assert EVIL not in text
    assert EVIL in Elements(text).text


def test_links_in_mail_lead_to_pages_that_take_their_token():
    """The addresses that mail names are pages, and say that a token comes with them."""
    for path in (VERIFY_PATH, RESET_PATH, "/setup"):
        assert "data-takes-token" in page(PAGES[path])


def test_a_page_without_its_value_is_an_error_and_not_a_page():
    """A forgotten value fails loudly instead of showing "None"."""
    with pytest.raises(UndefinedError):
        render("setup")


def test_the_sheet_is_small_and_the_script_makes_no_markup():
    """CSS below 4 kB as it is sent, and nothing in the script that turns a string into markup or code."""
    assert len(gzip.compress(STATIC["/assets/page.css"].content)) < 4000
    script = STATIC["/assets/page.js"].content.decode()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|setTimeout\((?!\(\) =>)|cookie", script
    )


def test_static_files_have_an_etag_that_follows_the_content():
    """An unchanged file is not sent again, a changed one always is."""
    assert all(re.fullmatch(r'"[0-9a-f]{16}"', file.etag) for file in STATIC.values())
    assert len({file.etag for file in STATIC.values()}) == len(STATIC)


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(c * 2 for c in colour)
    linear = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in linear)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_of_text_can_be_read(scheme):
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for every text on every ground it stands on."""
    sheet = STATIC["/assets/page.css"].content.decode()
    found = re.findall(r"--([\w-]+): light-dark\(#(\w+), #(\w+)\)", sheet)
    colours = {name: luminance((light, dark)[scheme]) for name, light, dark in found}
    pairs = [(text, ground) for text in ("ink", "soft", "blue", "red", "green") for ground in ("paper", "card")]
    for text, ground in [*pairs, ("on-blue", "blue")]:
        light, dark = sorted((colours[text], colours[ground]), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


# The page of the API.


def test_the_api_page_says_what_the_document_says():
    """Calls in groups, their fields, answers and records, with a record that contains itself."""
    api = outline(DOCUMENT)
    assert [group.name for group in api.groups] == ["Sessions", "auth"]
    login, end = (group.operations[0] for group in api.groups)
    assert (login.method, login.path, login.guarded, end.guarded) == ("POST", "/auth/login", False, True)
    assert [(f.name, f.required) for f in login.requests[0].fields] == [("email", True), ("mode", False)]
    assert ["".join(p.text for p in a.type) for a in login.answers] == ["User or null", ""]
    assert [a.description for a in login.answers] == ["Signed in", "Wait"]
    assert [(f.name, f.place) for f in end.parameters] == [("id", "path")]
    user = next(record for record in api.records if record.name == "User")
    assert {f.name: "".join(p.text for p in f.type) for f in user.fields} == {
        "friends": "array of User",
        "claims": "object of integer",
        "since": "string or null",
        "any": "anything",
    }


def test_the_api_page_runs_nothing_a_document_holds():
    """Markup in a description is text; backticks are code."""
    text = page("docs")
    assert EVIL not in text
    assert "<code>both</code>" in text
    assert Elements(text).text.count(EVIL) == 3


@pytest.mark.parametrize("document", [{}, {"paths": {"/x": {"get": {"responses": {"200": {"$ref": "#/no/where"}}}}}}])
def test_an_odd_document_is_no_error(document):
    """What is missing is not shown."""
    assert b"<h1>" in render("docs", document=document)


# In a browser.


class Recorded:
    """What reached the server: request lines with headers, and bodies. `answer` is what a POST gets."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.posts: list[tuple[str, dict[str, str]]] = []
        self.answer: tuple[int, dict[str, object]] = (202, {})
        self.origin = ""


@pytest.fixture
def server() -> Iterator[Recorded]:
    """Serve the pages with the real policy on a free port of 127.0.0.1."""
    recorded = Recorded()
    policy = SecurityHeaders(hsts="off").finish(Response(200, kind="page"))

    class Handler(BaseHTTPRequestHandler):
        def reply(self, status: int, content_type: str, content: bytes) -> None:
            recorded.heads.append(f"{self.requestline}\n{self.headers}")
            self.send_response(status)
            for name, value in policy:
                if name != b"content-length":
                    self.send_header(name.decode(), value.decode())
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if self.path in PAGES:
                self.reply(200, "text/html; charset=utf-8", page(PAGES[self.path]).encode())
            elif self.path in STATIC:
                self.reply(200, STATIC[self.path].content_type, STATIC[self.path].content)
            else:
                self.reply(404, "text/plain", b"")

        def do_POST(self) -> None:
            recorded.posts.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            status, body = recorded.answer
            self.reply(status, "application/json", json.dumps(body).encode())

        def log_message(self, *args) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorded.origin = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    yield recorded
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture
def tab(browser) -> Iterator[tuple[Page, list[str]]]:
    """A browser's page, and what its console complained about, violations of the policy among it."""
    with browser.new_context() as context:
        opened = context.new_page()
        complaints: list[str] = []
        opened.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened, complaints


@pytest.mark.browser
@pytest.mark.parametrize(
    ("path", "fields", "call"),
    [
        pytest.param(
            "/setup",
            {"email": "ann@example.com", "password": "correct horse"},
            "/auth/setup",
            marks=pytest.mark.long,
        ),
        pytest.param("/verify-email", {}, "/auth/email/verify", marks=pytest.mark.long),
        ("/reset-password", {"new_password": "correct horse"}, "/auth/password/reset"),
    ],
)
def test_s13_a_token_reaches_the_server_in_one_body_and_nowhere_else(server, tab, path, fields, call):
    """S13: no request line, header or Referer holds the token, and the address bar loses it at once."""
    opened, complaints = tab
    opened.goto(f"{server.origin}{path}#{CANARY}")
    assert opened.url == f"{server.origin}{path}"
    assert not server.posts  # a mail filter that opens the link uses nothing up
    for name, value in fields.items():
        opened.fill(f"#{name}", value)
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector(".good:visible")
    opened.click("header a")
    opened.wait_for_url(f"{server.origin}/")
    assert server.posts == [(call, {**fields, "token": CANARY})]
    assert CANARY not in "".join(server.heads)
    assert not complaints


@pytest.mark.browser
def test_a_refusal_is_shown_as_text_beside_its_field(server, tab):
    """What the server says stands on the page as text, the field is marked, and the form can be sent again."""
    opened, _ = tab
    opened.goto(f"{server.origin}/reset-password#{CANARY}")
    server.answer = (422, {"title": "x", "detail": f"Too common {EVIL}", "field": "new_password"})
    opened.fill("#new_password", "password1")
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector("#new_password[aria-invalid=true]:focus")
    assert opened.inner_text(".wrong:visible") == f"Too common {EVIL}"
    assert opened.locator("main img").count() == 0
    server.answer = (429, {"title": "x", "detail": "Too many.", "retry_after": 600})
    opened.click("section:visible button[type=submit]")
    opened.locator(".wrong", has_text="10 minutes").wait_for()
    server.answer = (200, {})
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector(".good:visible")
    assert opened.input_value("#new_password") == ""


@pytest.mark.browser
def test_a_page_without_a_token_says_what_to_do(server, tab):
    """A cut-off link explains itself; the page for a new password asks for the address instead."""
    opened, complaints = tab
    for path in ("/setup", "/verify-email"):
        opened.goto(f"{server.origin}{path}")
        assert opened.inner_text("h1:visible") == "This link is not complete"
    opened.goto(f"{server.origin}/reset-password")
    opened.fill("#email", "ann@example.com")
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector("text=Check your mail")
    assert server.posts == [("/auth/password/forgot", {"email": "ann@example.com"})]
    assert not complaints


@pytest.mark.browser
def test_the_api_page_finds_and_opens_a_call(server, tab):
    """The filter leaves what was asked for, a link opens its part, and the policy is not violated by it."""
    opened, complaints = tab
    opened.goto(f"{server.origin}/docs#post-auth-login")
    assert opened.is_visible("text=One message for")
    opened.fill("#filter", "sessions/{id}")
    assert not opened.is_visible("#post-auth-login")
    assert opened.is_visible("#delete-auth-sessions-id")
    assert not complaints


@pytest.mark.browser
def test_the_policy_holds_in_the_browser(server, tab):
    """Markup made from a string is refused by the browser itself: Trusted Types are on, and no policy is allowed."""
    opened, _ = tab
    opened.goto(f"{server.origin}/")
    refused = """(source) => { try { document.body.innerHTML = source; return "ran" } catch (e) { return e.name } }"""
    assert opened.evaluate(refused, EVIL) == "TypeError"


@pytest.mark.browser
def test_a03_the_link_asks_for_a_password_in_another_browser(server, tab):
    """The page of a verification link asks for nothing until the server wants a password, and sends both then."""
    opened, complaints = tab
    server.answer = (403, {"title": "Forbidden", "code": "another_browser", "detail": "Choose a password."})
    opened.goto(f"{server.origin}/verify-email#{CANARY}")
    assert not opened.is_visible("#password")
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector("#password:visible")
    assert server.posts == [("/auth/email/verify", {"token": CANARY})]
    opened.click("section:visible button[type=submit]")
    assert len(server.posts) == 1, "the browser asks for the password before the server is asked again"
    opened.fill("#password", "correct horse")
    server.answer = (200, {})
    opened.click("section:visible button[type=submit]")
    opened.wait_for_selector(".good:visible")
    assert server.posts[1:] == [("/auth/email/verify", {"token": CANARY, "password": "correct horse"})]
    assert [text for text in complaints if "403" not in text] == []
