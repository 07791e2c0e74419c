"""Every page in every state that people see it in. `test_every_page.py` has the laws of all, and `screenshots.py` takes
a picture of each.

A page that is opened by its path alone is here by itself, as those who may see it find it. A page whose path has a
parameter, and every further state, such as after a refused form, joins the list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import pyotp
from msgspec.structs import replace
from playwright.sync_api import Locator, Page
from playwright.sync_api import Route as Route_
from tests.pages.house import ADA, MALLORY, PASSWORD, ROOT, SCRIPT, House, unknown
from tests.server.running import eventually
from tests.softkey import SoftKey
from tests.standins import endless

from dutchdoor import issuers
from dutchdoor.auth import Auth
from dutchdoor.issuers.identity import Identity
from dutchdoor.model.accounts import Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.bindings import Binding
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.policy import HOUR, STANDARD
from dutchdoor.model.rate_limits import Limit, Limits
from dutchdoor.model.sessions import SessionToken
from dutchdoor.revocation.log import Revocation, next_doubt
from dutchdoor.services.passkeys import Ceremony
from dutchdoor.services.service_credentials import add_client
from dutchdoor.services.set_aside import setting_aside
from dutchdoor.stores.base import Log, Revoke, Swap
from dutchdoor.web.api import Route

FOUR = Limit(name="sign_in_by_stranger", count=4, per_seconds=3600, burst=4)

OTHERS = (
    issuers.google(client_id="g", client_secret="s"),
    issuers.github(client_id="h", client_secret="s"),
    issuers.keycloak(title="Staff", url="https://sso.example.com/realms/staff", client_id="k", client_secret="s"),
)

HOUSES: Mapping[str, Mapping[str, Any]] = {
    "open": {},
    "careful": {"policy": replace(STANDARD, require_verified_email=True)},
    "strict": {"limits": replace(endless(Limits()), sign_in_by_stranger=FOUR)},
    "invited": {"registration": "invite"},
    "demanding": {"policy": replace(STANDARD, second_factor="required", second_factor_grace=3600)},
    "others": {"issuers": OTHERS},
    "mailing": {"policy": replace(STANDARD, sign_in_by_mail=True)},
}
"""What each server is made with. Most pages are of the first."""


class Visit(NamedTuple):
    """A browser on its way to a page."""

    page: Page
    house: House

    def open(self, path: str) -> None:
        self.page.goto(path)

    def press(self, button: Locator) -> None:
        """Press what leads to another page, and wait for that. On a busy machine the old one is still there just after
        the press.
        """
        with self.page.expect_navigation():
            button.click()

    def send(self, **fields: str) -> None:
        """Fill in the form with these fields, and send it."""
        form = self.page.locator("form:visible").filter(has=self.page.locator(f"[name={next(iter(fields))}]"))
        for name, value in fields.items():
            form.locator(f"[name={name}]").fill(value)
        self.press(form.locator("button[type=submit]"))

    def paste(self, link: str) -> None:
        """Open a link. Without a script, put it into the form."""
        self.open(link)
        field = self.page.locator("#token")
        if field.is_visible():
            field.fill(link)

    def mailed(self, to: str) -> str:
        """The path of the link in the first mail to an address."""
        mails = self.house.mailbox.mails
        eventually(lambda: any(mail.to == to for mail in mails))  # a mail leaves after the answer
        links = re.findall(r"https?://[^/\s]+(/\S+)", next(mail.text for mail in mails if mail.to == to))
        return str(links[0])


Steps = Callable[[Visit], object]


class State(NamedTuple):
    """A page as it is shown at the end of some steps."""

    name: str
    route: str
    """The path of its route, as the server has it; "" for a page that belongs to no route."""
    steps: Steps
    who: str | None = None
    status: int = 200
    house: str = "open"
    refused: bool = False
    """Whether it says what was wrong with a form. The focus is there, or at the field."""

    def __str__(self) -> str:
        return self.name


def at(path: str) -> Steps:
    return lambda visit: visit.open(path)


def wrong_password(visit: Visit) -> None:
    visit.open("/auth/login")
    visit.send(email=ADA, password="not this one")


def weak_password(visit: Visit) -> None:
    visit.open("/auth/register")
    visit.send(name=LONG, email="someone@example.com", password="password1234")


def registered(visit: Visit) -> str:
    email = unknown()
    visit.open("/auth/register")
    visit.send(name="New", email=email, password=PASSWORD)
    return email


def forgotten(visit: Visit) -> None:
    visit.open("/auth/forgot")
    visit.send(email=ADA)


def used_link(path: str, **fields: str) -> Steps:
    """Send the form of a link that works no more."""

    def steps(visit: Visit) -> None:
        visit.paste(f"{path}#{TOKEN}")
        for name, value in fields.items():
            visit.page.locator(f"[name={name}]").fill(value)
        visit.press(visit.page.locator("button[type=submit]"))

    return steps


def used_setup(visit: Visit) -> None:
    used_link("/auth/setup", email="someone@example.com", password=PASSWORD)(visit)


def invited(visit: Visit) -> None:
    """Send the link of an invitation, by an administrator with a long name."""
    directory, client, email = visit.house.auth.directory, Client(), unknown()
    root = visit.house.account(ROOT)

    async def invite() -> None:
        await directory.profile.change_name(root.subject, LONG, client=client)
        await directory.invitations.invite(email, client=client, actor=root.subject, name=LONG)
        await directory.profile.change_name(root.subject, root.name, client=client)

    visit.house.do(invite())
    visit.paste(visit.mailed(email))
    visit.press(visit.page.locator("button[type=submit]"))


def invited_by_console(visit: Visit) -> None:
    visit.open("/admin/invitations")
    visit.send(email=unknown(), name=LONG, roles="editor")
    visit.page.locator("main summary").first.click()


def another_browser(visit: Visit) -> None:
    email = registered(visit)
    visit.page.context.clear_cookies()
    visit.paste(visit.mailed(email))
    visit.press(visit.page.locator("button[type=submit]"))


def too_often(visit: Visit) -> None:
    """Be refused once more, when the address of this computer has had all its tries."""
    wrong = {"email": "someone@example.com", "password": "not this one"}
    with closing(visit.house.client()) as client:
        for _ in range(FOUR.burst):
            client.post("/auth/login", json=wrong)
    visit.open("/auth/login")
    visit.send(**wrong)


def wrong_proof(visit: Visit) -> None:
    visit.open("/auth/confirm?next=/auth/devices")
    visit.send(password="not this one")


def asked(path: str) -> Steps:
    """Show what a button of the page asks before it does its work."""

    def steps(visit: Visit) -> None:
        visit.open(path)
        visit.page.locator("main summary").first.click()

    return steps


def account_of(who: str) -> Steps:
    return lambda visit: visit.open(f"/admin/accounts/one?id={visit.house.subjects[who]}")


def account_refused(visit: Visit) -> None:
    visit.open("/admin/accounts")
    visit.send(email=ADA, name=LONG, roles="staff")


def account_disabled(visit: Visit) -> None:
    email = unknown()
    visit.house.make(email, SCRIPT)
    account_of(email)(visit)
    visit.page.locator("details:has(form[action$='/disable']) > summary").click()
    visit.press(visit.page.locator("details[open] button[type=submit]"))


def client_added(visit: Visit) -> None:
    visit.open("/admin/clients")
    visit.send(name="Shop")


def webhook_added(visit: Visit) -> None:
    visit.open("/admin/webhooks")
    visit.send(url="https://example.com/hooks", events="login")


def webhook_asked(visit: Visit) -> None:
    webhook_added(visit)
    asked("/admin/webhooks")(visit)


def webhook_not_tested(visit: Visit) -> None:
    visit.open("/admin/webhooks")
    visit.send(url="https://localhost/" + LONG, events="login")
    visit.open("/admin/webhooks")
    row = visit.page.locator("tr", has_text=LONG).first
    row.locator("details:has(form[action$='/test']) > summary").click()
    visit.press(row.locator("details[open] button[type=submit]"))


def webhook_refused(visit: Visit) -> None:
    visit.open("/admin/webhooks")
    visit.send(url="http://example.com/hooks", events=LONG)


def verifier_refused(visit: Visit) -> None:
    visit.open("/admin/verifiers")
    visit.send(name="orders")


def expired(visit: Visit) -> None:
    visit.open("/auth/devices")
    visit.page.eval_on_selector_all("[name=csrf_token]", "all => all.forEach(each => each.value = 'x')")
    visit.press(visit.page.locator("main button[type=submit]").last)


def out_of_reach(visit: Visit) -> None:
    visit.open("/auth/login")
    with visit.house.outage():
        visit.send(email=ADA, password=PASSWORD)


def set_up_app(visit: Visit) -> None:
    visit.house.admit(visit.page.context, visit.house.register())
    visit.open("/auth/account")
    visit.press(visit.page.locator("form[action$='/totp/enrol'] button"))


def wrong_first_code(visit: Visit) -> None:
    set_up_app(visit)
    visit.send(response="000000")


def recovery_codes(visit: Visit) -> None:
    set_up_app(visit)
    secret = (visit.page.text_content("details code") or "").replace(" ", "")
    visit.send(response=pyotp.TOTP(secret).at(int(visit.house.auth.authority.clock())))


def second_factor(visit: Visit) -> None:
    recovery_codes(visit)
    visit.open("/auth/account")


def with_app(visit: Visit) -> str:
    """Sign a person in and give the account an app; return its address."""
    email = visit.house.register()
    visit.house.admit(visit.page.context, email)
    account, factors = visit.house.account(email), visit.house.auth.directory.factors

    async def add() -> None:
        begun = await factors.begin_totp(account, amr=None)
        code = pyotp.TOTP(begun.secret).at(int(visit.house.clock()))
        made = await factors.confirm_totp(account, begun.token, code, client=Client())
        await factors.store.commit(*made.changes)

    visit.house.do(add())
    return email


def second_step(visit: Visit) -> None:
    email = with_app(visit)
    visit.page.context.clear_cookies()
    visit.open("/auth/login")
    visit.send(email=email, password=PASSWORD)


def code_again(visit: Visit) -> None:
    with_app(visit)
    visit.open("/auth/confirm?factors=2&next=/auth/devices")


def suspected(visit: Visit) -> None:
    """Ask a person whose session was used in a way that looks like theft."""
    house, email = visit.house, visit.house.register()
    house.admit(visit.page.context, email)
    cookies = {cookie["name"]: cookie["value"] for cookie in visit.page.context.cookies()}
    session, subject = SessionToken.parse(cookies["dd_session"]).id, house.account(email).subject

    async def doubt() -> None:
        now = house.clock()
        until, number = now + HOUR, next_doubt(0, now)
        entry = Revocation(kind="doubt", id=session, min_epoch=number, expires_at=until, subject=subject)
        await house.auth.store.commit(Revoke(entry))
        await house.auth.authority.fencing.catch_up()

    house.do(doubt())
    visit.open("/auth/devices")
    visit.page.wait_for_url("**/auth/confirm?**")


def wrong_second_step(visit: Visit) -> None:
    second_step(visit)
    visit.send(response="000000")


def lost_factors(visit: Visit) -> None:
    """Show a person at the second step, whose address is verified, what to do without the phone."""
    second_step(visit)
    visit.house.verify()
    visit.press(visit.page.get_by_text("Lost all of these?").or_(visit.page.locator("a[href*='/login/lost']")).first)


def losing_factors(visit: Visit) -> None:
    """Show the account of a person whose second factor is said to be lost."""
    second_factor(visit)
    visit.house.verify()
    visit.house.lose_factors(visit.page.locator("#email bdi").inner_text())
    visit.open("/auth/account")


def set_aside(visit: Visit) -> None:
    """Show the account of a person whose password was reset after a passkey was added."""
    email = with_passkeys(visit)
    account, store = visit.house.account(email), visit.house.auth.directory.store

    async def reset() -> None:
        held = await store.select(Credential, subject=account.subject)
        await store.commit(*setting_aside(account, held, Client(), visit.house.clock(), by_mail=True))

    visit.house.do(reset())
    visit.open("/auth/account")


def looked_at(visit: Visit) -> None:
    """Show the account of a person who has changed the password soon after a passkey was added."""
    account, store = visit.house.account(with_passkeys(visit)), visit.house.auth.directory.store

    async def change() -> None:
        await store.commit(Log(account_event("password_changed", account, Client(), visit.house.clock())))

    visit.house.do(change())
    visit.open("/auth/account?done=password_changed")


def acted(visit: Visit) -> None:
    """Show the account of an administrator whose password was reset after the session was stolen."""
    house, email, accomplice = visit.house, visit.house.register(), visit.house.register()
    house.admit(visit.page.context, email)
    auth, subject = house.auth, house.account(email).subject

    async def act() -> None:
        await auth.directory.admin.set_roles(subject, ["admin"], client=Client(), actor="cli")
        other = await auth.store.account_by_email(accomplice)
        assert other is not None
        seen = Client(address="192.0.2.1", country="NL", devices=Device(name="Chrome on Windows"))
        await auth.directory.admin.set_roles(other.subject, ["admin", "editor"], client=seen, actor=subject)
        await add_client(auth.authority, SCRIPT[:100], client=seen, actor=subject)
        owner = await auth.store.account(subject)
        assert owner is not None
        await auth.store.commit(Log(account_event("password_reset", owner, Client(), house.clock())))

    house.do(act())
    visit.open("/auth/account")
    assert "dutchdoor client remove" in visit.page.content()


def code_asked(visit: Visit) -> None:
    visit.open("/auth/code?next=/auth/devices")
    visit.send(email=ADA)


def wrong_code(visit: Visit) -> None:
    code_asked(visit)
    visit.send(response="12345x")


def code_elsewhere(visit: Visit) -> None:
    visit.open("/auth/login/code#123456")
    visit.page.locator("#response").fill("123456")
    visit.press(visit.page.locator("button[type=submit]"))


def mailed_proof(visit: Visit) -> None:
    """Ask a person who is signed in for a code by mail."""
    visit.open("/auth/confirm?next=/auth/devices")
    visit.press(visit.page.locator("form[action$='/reauthenticate/code'] button"))


def with_passkeys(visit: Visit) -> str:
    """Sign a person in and give the account two passkeys; return its address."""
    email = visit.house.register()
    visit.house.admit(visit.page.context, email)
    account, factors = visit.house.account(email), visit.house.auth.directory.factors
    here = Ceremony("", "", visit.house.url)

    async def add() -> None:
        for name in ("Laptop", LONG[:60]):
            answer = json.dumps(SoftKey(here.own).create(await factors.passkeys.creation_options(account, here)))
            made = await factors.confirm_passkey(account, answer, name, here, client=Client())
            await factors.store.commit(*made.changes)

    visit.house.do(add())
    return email


def passkeys(visit: Visit) -> None:
    with_passkeys(visit)
    visit.open("/auth/account")
    visit.page.locator("#passkeys summary").first.click()


def passkey_step(visit: Visit) -> None:
    email = with_passkeys(visit)
    visit.page.context.clear_cookies()
    visit.open("/auth/login")
    visit.send(email=email, password=PASSWORD)


def passkey_again(visit: Visit) -> None:
    with_passkeys(visit)
    visit.open("/auth/confirm?factors=2")


def staying(visit: Visit, path: str) -> None:
    """Let a page that leads on by itself stay."""

    def answer(route: Route_) -> None:
        response = route.fetch()
        kept = {name: value for name, value in response.headers.items() if name != "refresh"}
        route.fulfill(response=response, headers=kept)

    visit.page.route(f"**{path}*", answer)


def bound_devices(visit: Visit) -> None:
    """Show the sign-ins of a person, one of which is bound to its browser: another one than that of the states here,
    which would need a proof from then on.
    """
    house = visit.house
    with closing(house.sign_in(ADA)) as client:
        elsewhere = SessionToken.parse(client.cookies["dd_session"]).id

    async def bind() -> None:
        listed = await house.auth.authority.sessions(house.subjects[ADA])
        session = next(each for each in listed if each.id == elsewhere)
        key = Binding("confirmed", "ES256", "t" * 43, '{"kty":"EC"}', 1)
        await house.auth.store.commit(Swap(replace(session, binding=key.text())))

    house.do(bind())
    visit.open("/auth/devices")


def reloading(visit: Visit) -> None:
    staying(visit, "/auth/device-binding")
    visit.open("/auth/device-binding?next=%2Fauth%2Faccount")


def to_issuer(visit: Visit) -> None:
    staying(visit, "/auth/issuers/github/start")
    visit.open("/auth/login")
    visit.press(visit.page.locator("form[action$='/github/start'] button"))


def from_issuer(visit: Visit) -> None:
    staying(visit, "/auth/issuers/google/callback")
    visit.open("/auth/issuers/google/callback?code=c&state=s")


def linked(path: str) -> Steps:
    """Open a page of a person who has linked two log-ins."""

    def steps(visit: Visit) -> None:
        house = visit.house

        async def link() -> None:
            account = await house.auth.store.account(house.subjects[ADA])
            assert account is not None
            for issuer in (OTHERS[0], OTHERS[2]):
                named = Identity(issuer=issuer.url, subject="1", email=f"{LONG}@example.com")
                await house.auth.directory.identities.link(account, "", named, issuer, client=Client())

        house.do(link())
        visit.open(path)

    return steps


def linked_in_console(visit: Visit) -> None:
    linked("/admin")(visit)
    account_of(ADA)(visit)


LONG = "unpronounceable" * 13
TOKEN = "ddo1_" + "A" * 48
"""The form of a token that was never made."""

FURTHER: tuple[State, ...] = (
    # for everyone
    State("login-refused", "/auth/login", wrong_password, status=401, refused=True),
    State("login-too-often", "/auth/login", too_often, status=429, refused=True, house="strict"),
    State("second-step", "/auth/login/step", second_step),
    State("second-step-refused", "/auth/login/step", wrong_second_step, status=401, refused=True),
    State("lost-factors", "/auth/login/lost", lost_factors),
    State("account-losing-factors", "/auth/account", losing_factors),
    State("account-set-aside", "/auth/account", set_aside),
    State("account-looked-at", "/auth/account", looked_at),
    State("account-acted", "/auth/account", acted),
    State("code", "/auth/code", at("/auth/code"), house="mailing"),
    State("code-sent", "/auth/login/code", code_asked, house="mailing"),
    State("code-refused", "/auth/login/code", wrong_code, status=401, refused=True, house="mailing"),
    State("code-elsewhere", "/auth/login/code", code_elsewhere, status=401, refused=True, house="mailing"),
    State("confirm-by-mail", "/auth/confirm", mailed_proof, ADA, house="mailing"),
    State("set-up-app", "", set_up_app),
    State("set-up-app-refused", "", wrong_first_code, status=401, refused=True),
    State("recovery-codes", "", recovery_codes),
    State("account-second-factor", "/auth/account", second_factor),
    State("account-passkeys", "/auth/account", passkeys),
    State("second-step-passkey", "/auth/login/step", passkey_step),
    State("confirm-passkey", "/auth/confirm", passkey_again),
    State("confirm-app", "/auth/confirm", code_again),
    State("confirm-suspected", "/auth/confirm", suspected),
    State("register-refused", "/auth/register", weak_password, status=422, refused=True),
    State("login-others", "/auth/login", at("/auth/login"), house="others"),
    State("register-others", "/auth/register", at("/auth/register"), house="others"),
    State("issuer-there", "", to_issuer, house="others"),
    State("issuer-back", "/auth/issuers/{name}/callback", from_issuer, house="others"),
    State("issuer-failed", "/auth/issuers/{name}/finish", at("/auth/issuers/google/finish?error=access_denied"),
          status=403, house="others"),
    State("device-binding", "/auth/device-binding", reloading),
    State("account-others", "/auth/account", linked("/auth/account"), ADA, house="others"),
    State("confirm-others", "/auth/confirm", linked("/auth/confirm"), ADA, house="others"),
    State("console-account-others", "/admin/accounts/one", linked_in_console, ROOT, house="others"),
    State("registered", "/auth/register/sent", registered, house="careful"),
    State("register-by-invitation", "/auth/register", at("/auth/register"), status=403, house="invited"),
    State("setup-without-token", "/auth/setup", at("/auth/setup")),
    State("setup", "/auth/setup", at(f"/auth/setup#{TOKEN}")),
    State("setup-refused", "/auth/setup", used_setup, status=401, refused=True),
    State("forgot", "/auth/forgot", at("/auth/forgot")),
    State("forgot-sent", "/auth/forgot/sent", forgotten),
    State("reset-without-token", "/auth/reset", at("/auth/reset")),
    State("reset", "/auth/reset", at(f"/auth/reset#{TOKEN}")),
    State("reset-refused", "/auth/reset", used_link("/auth/reset", new_password=PASSWORD), status=401, refused=True),
    State("reset-done", "/auth/reset/done", at("/auth/reset/done?ended=now#ada@example.com")),
    State("reset-done-asks", "/auth/reset/done", at("/auth/reset/done?ended=now&asks=1#ada@example.com")),
    State("invitation", "/auth/invitation", at(f"/auth/invitation#{TOKEN}")),
    State("invitation-done", "/auth/invitation/done", at("/auth/invitation/done#ada@example.com")),
    State("verify-without-token", "/auth/verify", at("/auth/verify")),
    State("verify", "/auth/verify", at(f"/auth/verify#{TOKEN}")),
    State("verify-refused", "/auth/verify", used_link("/auth/verify"), status=401, refused=True),
    State("verify-elsewhere", "/auth/verify", another_browser, status=403, house="careful"),
    State("verify-done", "/auth/verify/done", at("/auth/verify/done#ada@example.com")),
    State("verify-done-signed-in", "/auth/verify/done", at("/auth/verify/done"), ADA),
    State("change-email", "/auth/email/confirm", at(f"/auth/email/confirm#{TOKEN}")),
    State("change-email-refused", "/auth/email/confirm", used_link("/auth/email/confirm"), status=401, refused=True),
    State("change-email-done", "/auth/email/confirm/done", at("/auth/email/confirm/done#ada@example.com")),
    State("restore-email", "/auth/email/restore", at(f"/auth/email/restore#{TOKEN}")),
    State("restore-email-done", "/auth/email/restore/done", at("/auth/email/restore/done#ada@example.com")),
    State("keep-account", "/auth/account/keep", at(f"/auth/account/keep#{TOKEN}")),
    State("keep-account-done", "/auth/account/keep/done", at("/auth/account/keep/done#ada@example.com")),
    State("join", "/auth/join", at(f"/auth/join#{TOKEN}")),
    State("join-refused", "/auth/join", used_link("/auth/join"), status=401, refused=True),
    State("join-choose", "/auth/join", invited),
    State("join-done", "/auth/join/done", at("/auth/join/done#ada@example.com")),
    State("landing-signed-in", "/", at("/"), ROOT),
    # for a person who is signed in
    State("account-asked", "/auth/account", asked("/auth/account"), ADA),
    State("confirm-refused", "/auth/confirm", wrong_proof, ADA, status=401, refused=True),
    State("confirm-two", "/auth/confirm", at("/auth/confirm?factors=2"), ADA),
    State("devices-bound", "/auth/devices", bound_devices, ADA),
    State("devices-tricks", "/auth/devices", at("/auth/devices"), MALLORY),
    # for administrators
    State("console-asked", "/admin", asked("/admin"), ROOT),
    State("console-accounts-none", "/admin/accounts", at("/admin/accounts?search=nobody"), ROOT),
    State("console-account-refused", "/admin/accounts", account_refused, ROOT, status=409, refused=True),
    State("console-invited", "/admin/invitations", invited_by_console, ROOT),
    State("console-accounts-one", "/admin/accounts/one", account_of(ADA), ROOT),
    State("console-account-tricks", "/admin/accounts/one", account_of(MALLORY), ROOT),
    State("console-account-disabled", "/admin/accounts/one", account_disabled, ROOT),
    State("console-clients-asked", "/admin/clients", asked("/admin/clients"), ROOT),
    State("console-client-added", "/admin/clients", client_added, ROOT, status=201),
    State("console-webhook-added", "/admin/webhooks", webhook_added, ROOT, status=201),
    State("console-webhooks-asked", "/admin/webhooks", webhook_asked, ROOT),
    State("console-webhook-not-tested", "/admin/webhooks", webhook_not_tested, ROOT),
    State("console-webhook-refused", "/admin/webhooks", webhook_refused, ROOT, status=422, refused=True),
    State("console-verifiers-asked", "/admin/verifiers", asked("/admin/verifiers"), ROOT),
    State("console-verifier-refused", "/admin/verifiers", verifier_refused, ROOT, status=409),
    State("console-events-asked", "/admin/events", asked("/admin/events"), ROOT),
    State("console-events-none", "/admin/events", at("/admin/events?address=nowhere"), ROOT),
    State("console-keys-asked", "/admin/keys", asked("/admin/keys"), ROOT),
    State("console-events-refused", "/admin/events", at("/admin/events?who=nobody@example.com"), ROOT, status=422),
    # errors
    State("no-such-page", "", at("/no-such-page"), status=404),
    State("not-an-administrator", "", at("/admin"), ADA, status=403),
    State("expired-form", "", expired, ADA, status=403),
    State("out-of-reach", "", out_of_reach, status=503),
)  # fmt: skip

NO_PAGE = re.compile(r".*(\.\w+|/export)|/auth/(password/.*|email/verify|join/look)")
"""What the pages' routes answer that is no page: files, and what leads on to a page."""

OF_DEMAND = {"anyone": None, "caller": ADA, "admin": ROOT}


def page_routes() -> list[Route]:
    """The routes of the server that answer with a page."""
    return [
        route
        for route in Auth("memory:", console=True).api.routes
        if route.method == "GET"
        and route.handler.__module__.startswith("dutchdoor.web.pages")
        and not NO_PAGE.fullmatch(route.path)
    ]


def opened_by_path() -> Iterator[State]:
    listed = {state.name for state in FURTHER}
    for route in page_routes():
        if "{" not in route.path:
            path = re.sub("^/(auth/)?", "", route.path).replace("admin", "console")
            name = path.replace("/", "-") or "landing"
            if name not in listed:
                yield State(name, route.path, at(route.path), OF_DEMAND[route.demands])


STATES = sorted((*opened_by_path(), *FURTHER), key=lambda state: list(HOUSES).index(state.house))
"""All of them. Those of one server follow each other, since a browser is opened anew for the next server."""
