"""What the pages are made of: their files, the templates, and the page of the API."""

from __future__ import annotations

import gzip
import re
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from jinja2 import UndefinedError
from playwright.sync_api import Page
from starlette.testclient import TestClient

from dutchdoor.auth import Auth
from dutchdoor.web.headers import SecurityHeaders
from dutchdoor.web.http import Response
from dutchdoor.web.pages.api_reference import outline
from dutchdoor.web.pages.files import STATIC
from dutchdoor.web.pages.rendering import render

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


def page(product: str = "Example & Sons") -> str:
    return render("docs", product=product, document=DOCUMENT).decode()


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


def test_the_products_name_is_text():
    """A name with markup in it is shown, not run."""
    text = page(product=EVIL)
    assert EVIL not in text
    assert EVIL in Elements(text).text


def test_a_page_without_its_value_is_an_error_and_not_a_page():
    """A forgotten value fails loudly instead of showing "None"."""
    with pytest.raises(UndefinedError):
        render("login")


def test_the_sheet_is_small_and_the_script_makes_no_markup():
    """CSS below 4 kB as it is sent, and nothing in the script that turns a string into markup or code."""
    assert len(gzip.compress(STATIC["/assets/page.css"].content)) < 4000
    script = STATIC["/assets/page.js"].content.decode()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|setTimeout\((?!\(\) =>)|cookie", script
    )


def test_each_content_of_a_static_file_has_a_version():
    """An unchanged file is not sent again, a changed one always is."""
    assert all(re.fullmatch(r"[0-9a-f]{16}", file.version) for file in STATIC.values())
    assert len({file.version for file in STATIC.values()}) == len(STATIC)


def test_a_file_is_compressed_and_kept_for_ever_by_its_version():
    """A client that takes gzip gets it, and another the plain bytes. The address in a page is kept for ever, any other
    for an hour, and who has the file already gets 304, through a proxy that makes its tag weak too.
    """
    with TestClient(Auth("memory:").asgi(), base_url="http://localhost:8000") as client:
        address = re.search(r'href="(/assets/page\.css\?v=\w+)"', client.get("/").text)[1]
        plain = STATIC["/assets/page.css"].content
        for takes, coded in (
            ("gzip, deflate, br", True), ("br;q=1, gzip;q=0.5", True), ("", False), ("gzip;q=0", False),
            ("gzip; q=0.00, br", False), ("deflate", False), ("xgzip", False),
        ):  # fmt: skip
            answer = client.get(address, headers={"accept-encoding": takes})
            assert answer.content == plain
            assert (answer.headers.get("content-encoding") == "gzip") is coded, takes
            assert (int(answer.headers["content-length"]) < len(plain) / 2) is coded
            assert answer.headers["vary"] == "accept-encoding"
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            again = {"accept-encoding": takes, "if-none-match": "W/" + answer.headers["etag"]}
            assert client.get(address, headers=again).status_code == 304
        for other in ("/assets/page.css", "/assets/page.css?v=0"):
            assert client.get(other).headers["cache-control"] == "public, max-age=3600"
        page = client.get("/auth/login", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in page.headers, "what a stranger chooses beside a secret is never compressed"


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
    pairs = [(text, ground) for text in ("ink", "soft", "accent", "red", "green") for ground in ("paper", "card")]
    for text, ground in [*pairs, ("on-accent", "accent")]:
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
    text = page()
    assert EVIL not in text
    assert "<code>both</code>" in text
    assert Elements(text).text.count(EVIL) == 3


@pytest.mark.parametrize("document", [{}, {"paths": {"/x": {"get": {"responses": {"200": {"$ref": "#/no/where"}}}}}}])
def test_an_odd_document_is_no_error(document):
    """What is missing is not shown."""
    assert b"<h1>" in render("docs", document=document)


# In a browser.


@pytest.fixture
def server() -> Iterator[str]:
    """Serve the page with the real policy on a free port of 127.0.0.1."""
    policy = SecurityHeaders(hsts="off").finish(Response(200, kind="page"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = STATIC.get(self.path.partition("?")[0])
            content = page().encode() if file is None else file.content
            self.send_response(200)
            for name, value in policy:
                if name != b"content-length":
                    self.send_header(name.decode(), value.decode())
            self.send_header("Content-Type", "text/html; charset=utf-8" if file is None else file.content_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}"
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
def test_the_api_page_finds_and_opens_a_call(server, tab):
    """The filter leaves what was asked for, a link opens its part, and the policy is not violated by it."""
    opened, complaints = tab
    opened.goto(f"{server}/docs#post-auth-login")
    assert opened.is_visible("text=One message for")
    opened.fill("#filter", "sessions/{id}")
    assert not opened.is_visible("#post-auth-login")
    assert opened.is_visible("#delete-auth-sessions-id")
    assert not complaints


@pytest.mark.browser
def test_the_policy_holds_in_the_browser(server, tab):
    """Markup made from a string is refused by the browser itself: Trusted Types are on, and no policy is allowed."""
    opened, _ = tab
    opened.goto(f"{server}/")
    refused = """(source) => { try { document.body.innerHTML = source; return "ran" } catch (e) { return e.name } }"""
    assert opened.evaluate(refused, EVIL) == "TypeError"
