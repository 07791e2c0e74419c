"""The pages behind links: a forgotten password, an invitation, an address to confirm, and the first administrator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from httpx import Response
from starlette.testclient import TestClient
from tests.web.test_form_pages import ADA, FORM, PAGE, PASSWORD
from tests.web.test_pages import Elements

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.mail import Mail
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import Policy
from dutchdoor.web.pages.links import find_token

TOKEN = "ddo1_" + "Ab-_" * 12
NEW = "four other words there"


class House:
    """A server with its mail, and a browser without scripts."""

    def __init__(self, policy: Policy | None = None, **settings: Any) -> None:
        self.now = 1_900_000_000.0
        self.mails: list[Mail] = []
        self.auth = Auth(
            "memory:",
            policy=policy or Policy(),
            hasher=PasswordHasher(CHEAPEST),
            mail=self,
            clock=lambda: self.now,
            **settings,
        )
        self.client = TestClient(self.auth.asgi(), headers=PAGE, follow_redirects=False)

    async def send(self, message: Mail) -> None:
        self.mails.append(message)

    def post(self, path: str, **fields: str) -> Response:
        return self.client.post(path, data=fields, headers=FORM)

    def call(self, verb: Callable[..., Any], *given: Any, **named: Any) -> Any:
        async def once() -> Any:
            return await verb(*given, **named)

        return self.client.portal.call(once)  # type: ignore[union-attr]

    def link(self) -> str:
        """The link in the latest mail."""
        self.call(self.auth.directory.post.close)
        return next(found[0] for mail in reversed(self.mails) if (found := re.search(r"http\S+#\S+", mail.text)))

    def forgotten(self) -> str:
        sent = self.post("/auth/password/forgot", email=ADA["email"])
        assert (sent.status_code, sent.headers["location"]) == (303, "/auth/forgot/sent")
        return self.link()

    def signs_in(self, password: str) -> bool:
        return self.post("/auth/login", email=ADA["email"], password=password).status_code == 303


@pytest.fixture
def house() -> Iterator[House]:
    """A server where Ada has an account."""
    house = House()
    with house.client:
        assert house.post("/auth/register", **ADA).status_code == 303
        house.client.cookies.clear()
        yield house


@pytest.fixture
def careful() -> Iterator[House]:
    """A server where an address must be verified."""
    house = House(Policy(require_verified_email=True))
    with house.client:
        yield house


def test_a_forgotten_password_is_chosen_anew_without_a_script(house: House) -> None:
    """The form mails a link; the link, pasted whole, sets the password, ends every sign-in and leads to the form to
    sign in. The address is in the fragment of that way, where no log has it.
    """
    assert house.signs_in(PASSWORD)
    link = house.forgotten()
    assert link.startswith("http://localhost:8000/auth/reset#ddo1_")
    page = house.client.get("/auth/reset")
    assert re.search(r'<label for="token">The link from the mail', page.text)
    sent = house.post("/auth/password/reset", token=link, new_password=NEW)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/reset/done?ended=now#ada@example.com")
    done = house.client.get("/auth/reset/done?ended=now")
    assert "You are signed out everywhere." in done.text and 'action="/auth/login"' in done.text
    assert house.client.get("/auth/devices").status_code == 303  # this browser is out, too
    assert not house.signs_in(PASSWORD) and house.signs_in(NEW)
    # A stranger's link to the page scares no one who is signed in.
    assert house.client.get("/auth/reset/done?ended=now").headers["location"] == "/auth/account"


def test_asking_for_a_link_reveals_no_account(house: House) -> None:
    """An address with an account and one without lead to the same page, with the same headers."""
    answers = [house.post("/auth/password/forgot", email=email) for email in (ADA["email"], "no.one@example.com")]
    for answer in answers:
        del answer.headers["x-request-id"]
    assert answers[0].headers == answers[1].headers and answers[0].content == answers[1].content
    wrong = house.post("/auth/password/forgot", email="no address")
    assert wrong.status_code == 422 and 'value="no address"' in wrong.text and 'aria-invalid="true"' in wrong.text


INCOMPLETE, DEAD = "This is not a complete link", "This link does not work any more"
LINKED = [
    ("/auth/password/reset", {"new_password": NEW}),
    ("/auth/password/reset", {"new_password": NEW, "invited": "1"}),
    ("/auth/email/verify", {}),
    ("/auth/setup", {"email": "root@example.com", "password": NEW}),
]


WRONG = {
    "": INCOMPLETE,
    TOKEN[:-9]: INCOMPLETE,
    TOKEN + "x": INCOMPLETE,
    "x" * 10_000: INCOMPLETE,
    "https://auth.example.com/auth/reset": INCOMPLETE,
    "ddr1_" + TOKEN[5:]: INCOMPLETE,
    "%00\ud7ff<script>": INCOMPLETE,
    TOKEN: DEAD,
    f"http://evil.example/#{TOKEN}": DEAD,
}


@pytest.mark.parametrize(("path", "fields"), LINKED)
def test_a_wrong_link_says_what_to_do(house: House, path: str, fields: dict[str, str]) -> None:
    """Without a token, with half of one, with another kind of secret, with 10,000 letters, with one that is unknown:
    the page says so beside the field, and offers a new link in one click. What was pasted is not shown again.
    """
    for token, says in WRONG.items():
        answer = house.post(path, token=token, **fields)
        assert answer.status_code == 401 and says in answer.text, token
        assert re.search(r'<input id="token"[^>]*aria-invalid="true" aria-describedby="wrong"', answer.text)
        assert "ddo1_" not in answer.text and "<script>" not in answer.text and "xxxxxxxxxx" not in answer.text
        assert ("dutchdoor user create" if path == "/auth/setup" else 'href="/auth/forgot"') in answer.text
    without = house.post(path, other="1", **fields)
    assert without.status_code == 401 and INCOMPLETE in without.text


def test_a_used_and_an_expired_link_and_one_for_something_else(house: House) -> None:
    """One answer for all of them: which tokens there were is no one's business."""
    link = house.forgotten()
    weak = house.post("/auth/password/reset", token=link, new_password="password1")
    assert weak.status_code == 422 and "most common" in weak.text and "password1" not in weak.text
    # The token stays in the form, so that nothing is pasted twice.
    assert re.search(r'type="hidden" name="token" value="ddo1_', weak.text) and 'id="token"' not in weak.text
    for other in ("/auth/email/verify", "/auth/setup"):
        assert DEAD in house.post(other, token=link, email="root@example.com", password=NEW).text
    assert house.post("/auth/password/reset", token=link, new_password=NEW).status_code == 303
    twice = house.post("/auth/password/reset", token=link, new_password=NEW)
    assert twice.status_code == 401 and "You have just chosen a password with it?" in twice.text
    house.now += 3600
    link = house.forgotten()
    house.now += house.auth.authority.policy.reset_for
    assert DEAD in house.post("/auth/password/reset", token=link, new_password=PASSWORD).text
    assert house.signs_in(NEW)


def test_opening_a_link_uses_nothing_up(house: House) -> None:
    """A mail filter that opens every link with GET and HEAD changes nothing."""
    link = house.forgotten()
    for _ in range(3):
        assert house.client.get("/auth/reset").status_code == 200
    assert house.post("/auth/password/reset", token=link, new_password=NEW).status_code == 303


def test_an_invitation_is_an_invitation(house: House) -> None:
    """Its mail leads to a page of its own, which says that an administrator made the account. It leads on to signing
    in, and says nothing about signing out.
    """
    house.call(
        house.auth.directory.admin.create, "bob@example.com", client=Client(), actor="cli", name="<b>Boss</b> call 555"
    )
    link = house.link()
    assert link.startswith("http://localhost:8000/auth/invitation#ddo1_")
    page = house.client.get("/auth/invitation").text
    assert "An administrator created an account at dutchdoor for you." in page and "call 555" not in page
    weak = house.post("/auth/password/reset", token=link, new_password="short", invited="1")
    assert weak.status_code == 422 and "An administrator created an account" in weak.text
    sent = house.post("/auth/password/reset", token=link, new_password=NEW, invited="1")
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/invitation/done#bob@example.com")
    assert "Your account is ready." in house.client.get("/auth/invitation/done").text
    assert house.post("/auth/login", email="bob@example.com", password=NEW).status_code == 303


def test_the_browser_that_registered_confirms_by_one_click(careful: House) -> None:
    """It is asked for nothing but the click, is signed in by nothing, and signs in with the password it chose."""
    careful.post("/auth/register", **ADA)
    link = careful.link()
    assert link.startswith("http://localhost:8000/auth/verify#ddo1_")
    assert 'name="password"' not in careful.client.get("/auth/verify").text
    sent = careful.post("/auth/email/verify", token=link)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/verify/done#ada@example.com")
    assert "set-cookie" not in sent.headers
    assert 'action="/auth/login"' in careful.client.get("/auth/verify/done").text
    assert careful.signs_in(PASSWORD)
    assert "Signed in as" in careful.client.get("/auth/verify/done").text
    assert DEAD in careful.post("/auth/email/verify", token=link).text


def test_a03_another_browser_is_asked_for_a_password(careful: House) -> None:
    """The page comes back with a field for it, and with the token; what a stranger registered is theirs no more."""
    careful.post("/auth/register", **ADA)  # by a stranger, with a password that the stranger knows
    link = careful.link()
    careful.client.cookies.clear()
    # A page that was shown before asks for no password, and a form of another kind cannot smuggle one in.
    asked = careful.post("/auth/email/verify", token=link, password=NEW)
    assert asked.status_code == 403 and "Another browser registered this address" in asked.text
    assert re.search(r'name="password" type="password" autocomplete="new-password"', asked.text)
    token = re.search(r'name="token" value="(ddo1_[^"]+)"', asked.text)
    assert token is not None
    weak = careful.post("/auth/email/verify", token=token[1], choose="1", password="password1")
    assert weak.status_code == 422 and 'name="choose" value="1"' in weak.text and token[1] in weak.text
    sent = careful.post("/auth/email/verify", token=token[1], choose="1", password=NEW)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/verify/done#ada@example.com")
    assert not careful.signs_in(PASSWORD) and careful.signs_in(NEW)


def test_the_first_administrator_is_made_and_signed_in_by_a_form() -> None:
    """The link that the server printed leads to a form, and the form into the pages of an account or the console."""
    house = House()
    with house.client:
        secret = house.call(house.auth.directory.admin.offer_setup)
        link = f"http://localhost/auth/setup#{secret.text()}"
        wrong = house.post("/auth/setup", token=link, email="root@example.com", password="password1", name="<b>Root")
        assert wrong.status_code == 422 and 'value="&lt;b&gt;Root"' in wrong.text and secret.text() in wrong.text
        sent = house.post("/auth/setup", token=secret.text(), email="root@example.com", password=NEW, name="Root")
        assert (sent.status_code, sent.headers["location"]) == (303, "/auth/account")
        assert "Signed in as" in house.client.get("/").text
        assert house.client.get("/admin/api/accounts").status_code == 200
        assert DEAD in house.post("/auth/setup", token=link, email="eve@example.com", password=NEW).text
    house = House(console=True)
    with house.client:
        secret = house.call(house.auth.directory.admin.offer_setup)
        sent = house.post("/auth/setup", token=secret.text(), email="root@example.com", password=NEW)
        assert sent.headers["location"] == "/admin"
        assert 'href="/admin"' in house.client.get("/").text


def test_the_root_says_what_this_is_and_who_is_signed_in(house: House) -> None:
    """Signed out, it leads to the sign-in page; signed in, it names the account, which is text, and signs out."""
    page = house.client.get("/").text
    assert 'href="/auth/login"' in page and 'href="/auth/register"' in page and "/auth/logout" not in page
    assert house.signs_in(PASSWORD)
    page = house.client.get("/").text
    assert "<bdi>ada@example.com</bdi>" in page and 'href="/auth/devices"' in page and 'href="/admin"' not in page
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    assert house.post("/auth/logout", csrf_token=token[1]).status_code == 303
    assert 'href="/auth/login"' in house.client.get("/").text
    house.client.cookies.set("dd_session", "dds1_" + "A" * 48)
    assert 'href="/auth/login"' in house.client.get("/").text


@pytest.mark.parametrize(("mode", "says"), [("invite", "can invite you"), ("closed", "create its accounts")])
def test_where_registration_is_not_open_the_page_says_how_one_gets_an_account(mode: Any, says: str) -> None:
    """The page and the form answer 403 with what to do, and without fields that lead nowhere."""
    house = House(Policy(registration=mode))
    with house.client:
        for answer in (house.client.get("/auth/register"), house.post("/auth/register", **ADA)):
            assert answer.status_code == 403 and says in answer.text and "<form" not in answer.text
        assert "/auth/register" not in house.client.get("/").text


def test_the_path_of_an_endpoint_leads_to_its_page(house: House) -> None:
    """A form that was refused is shown at the path of the endpoint. Loaded again, it is the page and no error."""
    for path in ("/auth/password/forgot", "/auth/password/reset", "/auth/email/verify"):
        gone = house.client.get(path)
        assert gone.status_code == 303
        assert house.client.get(gone.headers["location"]).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"https://auth.example.com/auth/reset#{TOKEN}",
        f"  <https://auth.example.com/id/auth/reset#{TOKEN}>. ",
        f"To choose a new password, open:\r\n\r\nhttps://auth.example.com/auth/reset#{TOKEN[:30]}\r\n{TOKEN[30:]}\r\n\r\n",
        "https://filter.example/?url=https%3A%2F%2Fauth.example.com%2Fauth%2Freset%23"
        + TOKEN.replace("_", "%5F")
        + "&x=1",
    ],
)
def test_the_token_is_found_in_what_people_paste(text: str) -> None:
    """A code, a link, a link in brackets, broken into lines by a mail program, or wrapped by a mail filter."""
    assert find_token(text) == TOKEN


def test_an_invitation_to_register_makes_the_account(house: House) -> None:
    """The link says who invites, and leads to a form for a name and a password. It signs no one in, and works once."""
    house.call(house.auth.directory.invitations.invite, "bob@example.com", client=Client(), actor="cli", name="Bob")
    link = house.link()
    assert link.startswith("http://localhost:8000/auth/join#ddo1_")
    looked = house.post("/auth/join/look", token=link).text
    assert "An administrator invites you to dutchdoor." in looked and "<bdi>bob@example.com</bdi>" in looked
    assert re.search(r'data-strength="/auth/password/strength" data-of="password"', looked)
    weak = house.post("/auth/join", token=link, password="short", name="<i>Rob")
    assert weak.status_code == 422 and 'value="&lt;i&gt;Rob"' in weak.text and 'name="token" value="ddo1_' in weak.text
    sent = house.post("/auth/join", token=link, password=NEW)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/join/done#bob@example.com")
    assert "set-cookie" not in sent.headers
    again = house.post("/auth/join", token=link, password=NEW)
    assert DEAD in again.text and "Ask the administrator for a new invitation." in again.text
    assert house.post("/auth/login", email="bob@example.com", password=NEW).status_code == 303


def test_an_address_is_changed_and_changed_back_by_the_pages_of_its_links(house: House) -> None:
    """The new mailbox confirms the change by a click, and the former one undoes it with a new password."""
    directory = house.auth.directory
    account = house.call(house.auth.store.account_by_email, ADA["email"])
    house.call(directory.recovery.forget_password, ADA["email"], client=Client())
    assert house.post("/auth/password/reset", token=house.link(), new_password=NEW).status_code == 303  # verified now
    account = house.call(house.auth.store.account, account.subject)
    house.call(directory.email_change.ask, account, "ada@new.example.com", client=Client())
    link = house.link()
    assert "/auth/email/confirm#ddo1_" in link
    sent = house.post("/auth/email/confirm", token=link)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/email/confirm/done#ada@new.example.com")
    undo = house.link()
    assert "/auth/email/restore#ddo1_" in undo and not house.signs_in(NEW)
    assert DEAD in house.post("/auth/email/restore", token=link, new_password=PASSWORD).text
    sent = house.post("/auth/email/restore", token=undo, new_password=PASSWORD)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/email/restore/done#ada@example.com")
    assert house.signs_in(PASSWORD)


def test_a_deleted_account_is_kept_by_the_page_of_its_link(house: House) -> None:
    """One click, and the account signs in again."""
    account = house.call(house.auth.store.account_by_email, ADA["email"])
    house.call(house.auth.directory.deletion.ask, account.subject, client=Client())
    assert not house.signs_in(PASSWORD)
    link = house.link()
    assert "/auth/account/keep#ddo1_" in link
    sent = house.post("/auth/account/keep", token=link)
    assert (sent.status_code, sent.headers["location"]) == (303, "/auth/account/keep/done#ada@example.com")
    assert house.signs_in(PASSWORD)


PAGES = (
    "/", "/auth/forgot", "/auth/forgot/sent", "/auth/reset", "/auth/reset/done", "/auth/reset/done?ended=soon",
    "/auth/invitation", "/auth/invitation/done", "/auth/verify", "/auth/verify/done", "/auth/setup",
    "/auth/join", "/auth/join/done", "/auth/email/confirm", "/auth/email/restore", "/auth/account/keep",
)  # fmt: skip


def test_a_page_behind_a_link_is_accessible_and_has_nothing_inline(house: House) -> None:
    """One heading, labels, unique ids, `autocomplete` and a length for each field that people fill in, no inline code,
    no foreign address, no dead link, forms that post.
    """
    for path in PAGES:
        elements = Elements(house.client.get(path).text)
        assert len(elements.all("title")) == len(elements.all("h1")) == 1
        fields = [field for field in elements.all("input") if field.get("type") != "hidden"]
        assert {field["id"] for field in fields} == {label["for"] for label in elements.all("label")}
        assert all("autocomplete" in field and "maxlength" in field for field in fields)
        ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
        assert len(ids) == len(set(ids))
        for _, attributes in elements.found:
            assert not {key for key in attributes if key == "style" or key.startswith("on")}
            assert all(re.match(r"/(?!/)", attributes.get(key, "/")) for key in ("src", "href", "action"))
        assert all(form["method"] == "post" for form in elements.all("form"))
        for link in elements.all("a"):
            assert house.client.get(link["href"]).status_code in {200, 303}, link["href"]
