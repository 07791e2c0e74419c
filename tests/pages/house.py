"""A server with people and data in it, and browsers at its pages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import uvicorn
from msgspec.structs import replace
from playwright.sync_api import Browser, BrowserContext, Page
from tests.ports import free_port
from tests.standins import MASTER, Clock, Mailbox, Wrapped, endless

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import Unavailable
from dutchdoor.model.accounts import Account
from dutchdoor.model.factor_removal import Removal
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, STANDARD, Policy
from dutchdoor.model.rate_limits import Limits
from dutchdoor.stores.base import Add, Swap
from dutchdoor.stores.sqlite import SqliteStore

PASSWORD = "correct horse battery staple 7"
ADA, ROOT = "ada@example.com", "root@example.com"
MALLORY = "mallory@example.com"

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1",
    SCRIPT,
    "\u202e" + "W" * 10_000,
)
HEADERS = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}


def unknown() -> str:
    """An address that no one has."""
    return f"{uuid4().hex}@example.com"


class Outage(Wrapped):
    """A store that can be out of reach."""

    down = False

    def __getattr__(self, name: str) -> Any:
        if self.down:
            raise Unavailable("The database is out of reach.")
        return super().__getattr__(name)


class Ticking(Clock):
    """Each look is a millisecond later, so that events are in an order, as they are in life. Pages read the newest."""

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class House:
    """One server at a port of its own, with an administrator, a user with four devices, and a user who plays tricks."""

    def __init__(
        self,
        folder: Path,
        *,
        host: str | None = None,
        limits: Limits | None = None,
        policy: Policy = STANDARD,
        **more: Any,
    ) -> None:
        """`host` is a name to serve over TLS, with the certificate in the folder."""
        self.port = free_port()
        self.url = f"https://{host}:{self.port}" if host else f"http://localhost:{self.port}"
        self.tls = {"ssl_certfile": folder / "cert.pem", "ssl_keyfile": str(folder / "key.pem")} if host else {}
        self.clock = Ticking(time.time())
        self.mailbox = Mailbox()
        self.store = Outage(SqliteStore(folder / "pages.db"))
        self.auth = Auth(
            self.store,  # type: ignore[arg-type]
            master_key=MASTER,
            **{"public_url" if host else "local_url": self.url},
            policy=policy,
            limits=limits or endless(Limits()),
            hasher=PasswordHasher(CHEAPEST),
            mail=self.mailbox,
            clock=self.clock,
            console=True,
            **more,
        )
        self.loop = asyncio.new_event_loop()
        self._cookies: dict[str, list[Any]] = {}
        self.subjects: dict[str, str] = {}

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await something where the server runs."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def client(self, agent: str = AGENTS[0]) -> httpx2.Client:
        # Text beyond ASCII, as a client may send it.
        headers = {**HEADERS, "origin": self.url, "host": self.url.partition("//")[2], "user-agent": agent.encode()}
        here = f"{self.url.partition(':')[0]}://127.0.0.1:{self.port}"
        return httpx2.Client(base_url=here, headers=headers, verify=False)  # type: ignore[arg-type]

    def sign_in(self, email: str, agent: str = AGENTS[0]) -> httpx2.Client:
        client = self.client(agent)
        answer = client.post("/auth/login", json={"email": email, "password": PASSWORD, "mode": "session"})
        assert answer.status_code == 200, answer.text
        return client

    def make(self, email: str, name: str, *roles: str) -> None:
        """Make an account, as an administrator does: its address counts as verified."""
        create = self.auth.directory.admin.create
        made = self.do(create(email, client=Client(), actor="cli", roles=roles, password=PASSWORD, name=name))
        self.subjects[email] = made.subject

    def register(self) -> str:
        """Register a person of whom no other test knows, and return the address."""
        email = unknown()
        with closing(self.client()) as client:
            answer = client.post("/auth/register", json={"name": "New", "email": email, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return email

    def account(self, email: str) -> Account:
        account: Account | None = self.do(self.auth.directory.store.account_by_email(email))
        assert account is not None
        return account

    def people(self) -> None:
        for email, roles, name in ((ROOT, ("admin",), "Rut Root"), (ADA, (), "Ada"), (MALLORY, (), SCRIPT)):
            self.make(email, name, *roles)
        for email in (ADA, MALLORY):
            for agent in AGENTS:
                self.sign_in(email, agent).close()
        self.programs()

    def programs(self) -> None:
        """Add clients and verifiers with names of all kinds."""
        with closing(self.sign_in(ROOT)) as root:
            root.headers["x-csrf-token"] = root.get("/auth/csrf").json()["csrf_token"]
            for name in ("Shop", SCRIPT, "unpronounceable" * 6):
                assert root.post("/admin/api/clients", json={"name": name}).status_code == 201
            for name in ("orders", "unpronounceable-" * 4):
                assert root.post("/admin/api/verifiers", json={"name": name}).status_code == 201

    def context(self, browser: Browser, who: str | None = None, **options: Any) -> BrowserContext:
        """Give a browser of its own, in which this person is signed in: with one session, however many browsers."""
        context = browser.new_context(base_url=self.url, **options)
        context.set_default_timeout(60_000)
        if who is not None:
            self.admit(context, who)
        return context

    def admit(self, context: BrowserContext, who: str) -> None:
        """Sign a person in, in a browser."""
        if who not in self._cookies:
            with closing(self.sign_in(who)) as client:
                self._cookies[who] = [
                    {"name": cookie.name, "value": cookie.value, "url": self.url} for cookie in client.cookies.jar
                ]
        context.add_cookies(self._cookies[who])

    def verify(self) -> None:
        """Verify the address of every account."""

        async def all_of_them() -> None:
            for account in await self.store.accounts(limit=200):
                if account.email_verified_at is None:
                    await self.store.commit(Swap(replace(account, email_verified_at=self.clock())))
            self.auth.authority.forget_remembered()

        self.do(all_of_them())

    def lose_factors(self, email: str) -> None:
        """Begin the waiting time for the factors of an account."""

        async def begin() -> None:
            account = await self.store.account_by_email(email)
            assert account is not None
            now = self.clock()
            removal = Removal(due_at=now + DAY, until=now + 2 * DAY, epoch=account.epoch)
            await self.store.commit(Add(removal.record(account.subject, now)))

        self.do(begin())

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.store.down = True
        try:
            yield
        finally:
            self.store.down = False


@contextmanager
def open_house(folder: Path, **more: Any) -> Iterator[House]:
    """Run a server in a thread of this process, over SQLite and TCP."""
    house = House(folder, **more)
    options: dict[str, Any] = {"log_level": "error", "lifespan": "on", "server_header": False, **house.tls}
    server = uvicorn.Server(uvicorn.Config(house.auth.asgi(), port=house.port, **options))
    thread = threading.Thread(target=lambda: house.loop.run_until_complete(server.serve()), daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server does not start"
            time.sleep(0.01)
        house.people()
        yield house
    finally:
        server.should_exit = True
        thread.join(60)
        house.loop.close()


class Watch:
    """Listens to everything that a page may complain about."""

    LISTEN = """addEventListener("securitypolicyviolation", event => console.error(
        `broke the policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""

    def __init__(self, page: Page) -> None:
        self.said: list[str] = []
        page.add_init_script(self.LISTEN)
        page.on("console", lambda line: self._hear(line.type, line.text))
        page.on("pageerror", lambda error: self.said.append(f"threw: {error}"))
        page.on("dialog", lambda dialog: self.said.append(f"opened a dialog: {dialog.message}") or dialog.dismiss())

    def _hear(self, kind: str, text: str) -> None:
        # A browser reports each answer of 400 and more as an error.
        if kind in {"error", "warning"} and not text.startswith("Failed to load resource: the server responded"):
            self.said.append(text)
