"""`Auth`: the one object that an application needs.

    auth = Auth("sqlite:///app.db", master_key="dutchdoor.keys")
    app.mount("/", auth.asgi())
    principal = await auth.principal(request)

`Auth` connects the layers: a store, the authority over it, the directory of accounts, and the web API. It makes no
decisions itself. An application with its own users uses `auth.authority` to start sessions from its own proof. An
application with the bundled accounts mounts `auth.asgi()` and calls `auth.principal`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from dutchdoor.auth.arguments import (
    check_alone,
    check_types,
    check_values,
    read_issuers,
    read_languages,
    read_local_origin,
    read_transport,
    with_registration,
)
from dutchdoor.auth.key_file import read_or_make_master_key
from dutchdoor.auth.own_paths import OwnPaths
from dutchdoor.auth.upkeep import Upkeep
from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.credentials.strength import BreachedList
from dutchdoor.errors import (
    InvalidKey,
    InvalidToken,
    Misconfigured,
    NotAuthenticated,
    NotFound,
)
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.mail import Transport
from dutchdoor.mail.console import ConsoleTransport
from dutchdoor.mail.letters import Letters
from dutchdoor.model.acting import BY_SYSTEM
from dutchdoor.model.audit_entry import EventName, check_events
from dutchdoor.model.base_path import read_base_path
from dutchdoor.model.deployment import Served
from dutchdoor.model.durations import Duration, read_duration
from dutchdoor.model.http_client import Client, CountryReader, DeviceReader
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import STANDARD, Policy, RegistrationMode
from dutchdoor.model.principal import Principal
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.model.sightings import NetworkReader
from dutchdoor.model.spelling import spelt
from dutchdoor.model.suspicion import Reaction, Suspected
from dutchdoor.revocation.lease import Terms
from dutchdoor.services.accounts import Directory
from dutchdoor.services.delivering import Deliveries
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.services.hooks import BreachedHook, ClaimsHook, CodeHook, Hooks, Listener
from dutchdoor.services.own_steps import SignInStep
from dutchdoor.services.passkeys import relying_party
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.sessions import Authority
from dutchdoor.services.sign_in_steps import Waiting
from dutchdoor.services.webhooks import Webhooks
from dutchdoor.stores.base import Store
from dutchdoor.stores.urls import is_in_memory, make_store, with_redis
from dutchdoor.web.api import Api, Call, Caller, Site
from dutchdoor.web.asgi import AsgiApplication
from dutchdoor.web.cookies import PREFIX, Cookies
from dutchdoor.web.cors import Cors
from dutchdoor.web.device_binding import BINDS_NO_COOKIE, offers
from dutchdoor.web.endpoints import ROUTES
from dutchdoor.web.forwarded import Edge
from dutchdoor.web.geoip import RegistryCountryReader
from dutchdoor.web.headers import Hsts
from dutchdoor.web.http import BadRequest, Request
from dutchdoor.web.networks import KnownNetworks
from dutchdoor.web.openapi import document
from dutchdoor.web.origin import SAFE_METHODS, csrf_token, is_handshake
from dutchdoor.web.own_users import routes_for
from dutchdoor.web.pages import routes as page_routes
from dutchdoor.web.pages.branding import UNBRANDED, Branding, Look
from dutchdoor.web.pages.site import CONFIRM_PATH, LOGIN_PATH, Pages
from dutchdoor.web.scope import request_of
from dutchdoor.web.sign_in_answer import cookies_of
from dutchdoor.web.sign_in_page import read_home, read_sign_in_page
from dutchdoor.web.user_agent import UserAgentReader

__all__ = ["Auth"]

LOCAL_URL = "http://localhost:8000"
"""Where an application without a public URL is, before its first request."""
_TEST_PORT = 80
"""What the test clients of frameworks name as their port; this machine's own users would need to be root."""
LEASE_FOR = Terms().lease_for
log = logging.getLogger("dutchdoor")

ListenerT = TypeVar("ListenerT", bound=Listener)


class HasScope(Protocol):
    """A request of a framework over ASGI."""

    @property
    def scope(self) -> MutableMapping[str, Any]: ...


class Auth:
    """Authentication for one application. Use it as an async context manager, or `open` and `close` it.

    A duration is "15m", a `timedelta`, or seconds.

    Args:
        database: a URL (`sqlite:///app.db`, `postgresql://...`, `memory:`) or a store of your own that obeys the laws.
        redis: the URL of a Redis or Valkey to stand beside it, for several nodes over one database. It may be emptied
            at any moment. While it is out of reach, sign-ins are answered 503.
        master_key: the keys themselves, or the file they are kept in, created with mode 0600 if it does not exist;
            `dutchdoor.keys` if not given, and for `memory:` a key that is kept in memory too. Keep the file apart from
            the database's backups: an attacker needs both.
        public_url: the https address that people use. Without it, this machine alone is served, over plain HTTP.
        local_url: what stands for the public URL where there is none. If not given, it is `http://localhost` at the
            port that the first request comes to, and port 8000 until then.
        base_path: what stands before every path of the API, such as `/id`. Then the issuer is the URL and this path.
        hosts: further host names that this answers to.
        proxies: addresses or networks of proxies whose forwarding headers are believed.
        origins: other origins whose pages may call this API, each exact.
        origin_headers: request headers that these pages may send besides what this API reads, such as `traceparent`.
        passkey_domain: the domain that passkeys are for: the host of the public URL if not given, or a parent domain,
            such as `example.com`, so that its subdomains share them. With another one, all passkeys are lost.
        passkey_origins: other origins whose pages and apps may use these passkeys, such as `https://example.org`, or
            `android:apk-key-hash:...`. Pages have to stand in `origins`, too.
        pass_preflights: whether `/auth/check` lets CORS preflights pass, which carry no credentials.
        sign_in_page: the path of the page where people sign in: `/auth/login` here if not given, or one of yours, such
            as `/login`. Guards and `/auth/check` send browsers there that open a page without a valid proof, with the
            path of that page as `next`. "" sends none.
        home: where people go who signed in and came from no page of yours: a path such as `/orders`; `/` below the base
            path if not given.
        hsts: what Strict-Transport-Security covers for a year where the public URL is https: this `host`, its
            `subdomains` too, or nothing (`off`).
        clear_site_data: whether a log-out by cookie has the browser clear its cache and storage of this origin, those
            of your own pages included.
        audience: who access tokens are for (`aud`, RFC 9068); the issuer itself if empty.
        policy: every duration and limit; `STANDARD`, `HIGH` and `RELAXED` are ready.
        registration: who creates accounts: anyone (`open`), administrators who invite by mail (`invite`), or only the
            command line (`closed`). As the policy says, if not given.
        limits: how many attempts at passwords, registrations, resets and links are looked at, by name.
        alg: what signs access tokens: `ES256`, `EdDSA`, `RS256` or `HS256`.
        cookie_prefix: what the names of cookies begin with. Applications on one host name need one each.
        docs: whether `/docs` and `/openapi.json` are there.
        console: whether administrators have pages at `/admin`, and all paths below belong to this API. Off, because
            many applications have an `/admin` of their own, such as Django's. Its pages need the mode `session`.
        product: the name people know this by, in mail and on pages.
        languages: the languages of pages and mail, the first for people who ask for none of them; `["de"]` for one
            alone. All that there are if not given, English first.
        catalogues: a folder with texts of your own, or with another language: `de.po`, `fr.po`.
        branding: how pages and mails look: accent, logo, corners, fonts, and templates in place of ours.
        issuers: other log-ins, such as `dutchdoor.issuers.google(client_id=..., client_secret=...)`. Where each of them
            sends people back to is `/auth/issuers/{name}/callback` below the public URL: register that there.
        users: users of the application's own, who replace the bundled accounts (`ExternalUsers`).
        steps: what the application asks at each sign-in besides, in this order (`SignInStep`).
        mail: how mail is carried: a URL (`smtp://user:password@host:587`, `smtps://...`, `file:DIRECTORY`, `console:`),
            or a transport of your own; printed to the console if not given.
        mail_from: who mail is from, where `mail` is a URL: `login@example.com`, or `Example <login@example.com>`;
            `noreply@` at the host of `public_url` if not given.
        hasher: how passwords are hashed; Argon2id with 19 MiB and two passes if not given.
        breached: answers whether a password is known from a leak, such as `BreachedList`.
        deliver_code: delivers a code for signing in (`Policy.sign_in_by_mail`) to the owner of an account, by SMS, say.
            Mailed if not given.
        claims: returns what `principal.claims` holds, by account and session id (None for a stateless token). It is
            called for each access token, within 2,000 bytes, and at most once a minute for the session of a cookie.
        lease: for how long a verifier may trust what it knows of the revocation log. It decides both the longest a
            fence can take (times 1.1 / 0.9) and the outage of this that stateless checks survive (`Terms.survives`).
        security_contact: a mailto: or https: address for reports of weaknesses, published as
            `/.well-known/security.txt` (RFC 9116); "" publishes none.
        devices: reads a User-Agent header into a device, for the list of sessions; a table of known ones if not given.
        countries: finds the country of an address, for the list of sessions and against theft; a table of the
            registries if not given.
        webhook_networks: networks besides the Internet that webhooks may be sent to, such as `10.0.0.0/8`.
        networks: finds what kind of network an address belongs to, against theft: data centre, VPN, Tor, carrier of
            telephones; a table of what providers publish if not given.
        on_suspicion: called with a `Suspected` before something is done about a session that is used in a suspicious
            way; returns another reaction (`calm`, `record`, `notify`, `step_up`, `revoke`), or None.
        clock: the time of day in seconds since 1970, for tests. Without one it is the store's, where that is one for
            all nodes, else this machine's.

    Raises:
        Misconfigured: two settings contradict each other, one is not safe, or a driver is not installed.
    """

    @spelt
    def __init__(
        self,
        database: str | Store = "sqlite:///dutchdoor.db",
        *,
        redis: str = "",
        master_key: MasterKeys | str | os.PathLike[str] | None = None,
        public_url: str | None = None,
        local_url: str | None = None,
        base_path: str = "",
        hosts: Iterable[str] = (),
        proxies: Iterable[str] = (),
        origins: Iterable[str] = (),
        origin_headers: Iterable[str] = (),
        passkey_domain: str = "",
        passkey_origins: Iterable[str] = (),
        pass_preflights: bool = False,
        sign_in_page: str | None = None,
        home: str | None = None,
        hsts: Hsts = "host",
        clear_site_data: bool = False,
        audience: Sequence[str] = (),
        policy: Policy = STANDARD,
        registration: RegistrationMode | None = None,
        limits: Limits = DEFAULT_LIMITS,
        alg: str = "ES256",
        cookie_prefix: str = PREFIX,
        docs: bool = True,
        console: bool = False,
        product: str = "dutchdoor",
        languages: Sequence[str] = (),
        catalogues: str | os.PathLike[str] | None = None,
        branding: Branding = UNBRANDED,
        issuers: Sequence[Issuer] = (),
        users: ExternalUsers[Any] | None = None,
        steps: Sequence[SignInStep] = (),
        mail: str | Transport | None = None,
        mail_from: str | None = None,
        hasher: PasswordHasher | None = None,
        breached: BreachedHook | None = None,
        deliver_code: CodeHook | None = None,
        claims: ClaimsHook | None = None,
        lease: Duration = LEASE_FOR,
        security_contact: str = "",
        devices: DeviceReader | None = None,
        countries: CountryReader | None = None,
        webhook_networks: Iterable[str] = (),
        networks: NetworkReader | None = None,
        on_suspicion: Callable[[Suspected], Awaitable[Reaction | None] | Reaction | None] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.made_with = {name: given for name, given in locals().items() if name != "self"}
        check_types(self.made_with)
        check_values(policy, limits, alg=alg, hsts=hsts, console=console)
        if users is not None:
            check_alone(
                users,
                policy,
                registration=registration,
                mail=mail,
                hasher=hasher,
                breached=breached,
                issuers=issuers or None,
                deliver_code=deliver_code,
            )
        policy = with_registration(policy, registration)
        lease, look, issuers = read_duration(lease, "lease"), Look(branding), read_issuers(issuers, policy)
        edge = Edge(public_url=public_url, hosts=hosts, proxies=proxies)
        if master_key is None:
            master_key = MasterKeys(MasterKey.generate()) if is_in_memory(database) else "dutchdoor.keys"
        self._made_key_file: Path | None = None
        if isinstance(master_key, MasterKeys):
            keys = master_key
        else:
            keys, is_new = read_or_make_master_key(Path(master_key))
            self._made_key_file = Path(master_key) if is_new else None
        base_path = read_base_path(base_path)
        origin = edge.public_origin or read_local_origin(local_url or LOCAL_URL)
        issuer = origin + base_path
        cookies = Cookies(secure=edge.secure, prefix=cookie_prefix)
        self.store = make_store(database) if isinstance(database, str) else database
        copies = with_redis(self.store, redis, key=keys.current.derive("redis")) if redis else None
        if copies is not None:
            self.store = copies
        self.authority = Authority(
            self.store,
            master=keys,
            issuer=issuer,
            audience=audience,
            policy=policy,
            alg=alg,
            hooks=Hooks(
                claims=claims,
                breached=breached,
                deliver_code=deliver_code,
                networks=networks or KnownNetworks(),
                suspicious=on_suspicion,
            ),
            lease=lease,
            copies=copies,
            clock=clock,
        )
        self.deliveries = Deliveries(Webhooks(self.authority, tuple(webhook_networks)))
        hasher = hasher or PasswordHasher()
        transport = read_transport(mail, mail_from, public_url)
        self.directory = Directory(
            self.authority,
            hasher=hasher,
            mail=transport,
            letters=Letters(
                product=product,
                public_url=issuer,
                languages=read_languages(languages, catalogues),
                accent=look.accent,
            ),
            limits=limits,
            product=product,
            party=relying_party(passkey_domain, passkey_origins, origin, product),
            users=users,
            issuers=issuers,
            steps=steps,
        )
        listed = breached if isinstance(breached, BreachedList) else None
        withheld = {
            "mail": not isinstance(transport, ConsoleTransport),
            "pepper": hasher.is_peppered,
            "breached": breached is not None and listed is None,
        }
        served = Served(
            policy=policy,
            alg=alg,
            audience=tuple(audience),
            public_url=edge.public_origin,
            local_url=local_url or LOCAL_URL,
            base_path=base_path,
            lease=lease,
            product=product,
            webhook_network=tuple(webhook_networks),
            withheld=tuple(name for name, there in withheld.items() if there),
            breached="" if listed is None else str(listed.path),
        )
        self._upkeep = Upkeep(self.authority, self.directory, served)
        self._user_agents = UserAgentReader()
        own_page = base_path + LOGIN_PATH if "session" in policy.modes else ""
        asked_to_sign_in = own_page if sign_in_page is None else read_sign_in_page(sign_in_page)
        forms = Pages(
            product=product,
            base=base_path,
            sign_in_page=asked_to_sign_in or base_path + LOGIN_PATH,
            home=f"{base_path}/" if home is None else read_home(home),
            registration=users is None and policy.registration == "open",
            issuers=issuers,
            own_users=users is not None,
            own_roles=users is not None and users.roles is not None,
            console=console,
            look=look,
            languages=self.directory.post.letters.languages,
            key_cookie=cookies.key.name,
        )
        self.site = Site(
            edge=edge,
            error_page=forms.error,
            cors=Cors(origins, headers=origin_headers, pass_preflights=pass_preflights),
            cookies=cookies,
            csrf_key=keys.current.derive("csrf"),
            devices=devices or self._user_agents,
            countries=countries or RegistryCountryReader(),
            base_path=base_path,
            sign_in_page=asked_to_sign_in,
            confirm_page=base_path + CONFIRM_PATH if asked_to_sign_in == base_path + LOGIN_PATH else "",
            product=product,
            security_contact=security_contact,
            hsts=hsts,
            clear_site_data=clear_site_data,
        )
        routes = routes_for(users, ROUTES)
        pages = page_routes.routes(
            routes,
            product=product,
            issuer=lambda: self.authority.issuer,
            base_path=base_path,
            version=_version(),
            keyless=edge.development,
            cookie=cookies.session.name,
            docs=docs,
            look=look,
            languages=forms.languages,
        )
        self.api = Api(
            self.authority,
            self.directory,
            self.webhooks,
            self.site,
            (*page_routes.with_pages(routes, forms), *pages),
        )
        self.own_paths = OwnPaths(self.api.routes, base_path, console=console)
        self._open, self._opening = False, asyncio.Lock()
        if edge.development and local_url is None:
            self.api.first_request = self._learn_port

    @property
    def webhooks(self) -> Webhooks:
        """The endpoints that are sent audit events."""
        return self.deliveries.webhooks

    def on(self, *names: EventName) -> Callable[[ListenerT], ListenerT]:
        """Return a decorator: the function is called with an `AuditEvent`, after the commit of each such event.

            @auth.on("account_created")
            async def welcome(event: AuditEvent) -> None: ...

        `names` are those of the audit log. The process that wrote the event calls the function once, and the answer to
        the client does not wait for it. A plain function runs in a thread. An exception is logged and undoes nothing.
        If the process is killed meanwhile, the call is lost; the audit log is what loses nothing.

        Raises:
            Misconfigured: there is no such event.
        """
        check_events(names)

        def decorate(listener: ListenerT) -> ListenerT:
            self.authority.hooks.listen(names, listener)
            return listener

        return decorate

    def call_inside(self, around: Callable[[], AbstractContextManager[object]]) -> None:
        """Call the functions of the application inside of what `around` returns, for an adapter."""
        self.authority.hooks.calling.around = around
        if self.directory.external is not None:
            self.directory.external.calling.around = around
        self.directory.steps.calling.around = around

    async def create_user(
        self, email: str, *, password: str | None = None, name: str = "", roles: Iterable[str] = ()
    ) -> str:
        """Create a bundled account, as `dutchdoor user create` does, also where `registration` is closed.

        Args:
            email: the address, which counts as verified.
            password: the password. Without one, a link is mailed by which the owner chooses it.
            name: the name people see; "" for none.
            roles: its roles, each a plain word.

        Returns:
            The id of the account, the subject of its tokens.

        Raises:
            Taken: the address has an account.
            InvalidInput, WeakPassword: the address, the name, a role or the password is not acceptable.
            Misconfigured: the users are the application's own. They have an account from their first sign-in.
            Unavailable: the store is out of reach.
        """
        if self.directory.external is not None:
            raise Misconfigured("The users are your application's own: create them there.")
        if not self._open:
            await self.open()
        made = await self.directory.admin.create(email, **BY_SYSTEM, name=name, roles=tuple(roles), password=password)
        return made.subject

    async def end_all(self, subject: str, *, reason: str = "ended_by_application", wait: float = 1.0) -> float:
        """Revoke all sessions and tokens of a `subject`: after a change of the password, and when a user is disabled.
        Call it after your own commit.

        Args:
            reason: one word, for the audit log.
            wait: seconds to wait at most until no verifier accepts them any more.

        Returns:
            Seconds after which the last verifier refuses them: 0.0 if all of them do already.

        Raises:
            NotFound: there is no such account. Users of the application's own have one from their first sign-in.
            Unavailable: the store is out of reach. Nothing was revoked.
        """
        if not self._open:
            await self.open()
        if self.directory.external is not None:
            # A first sign-in by the old password may be under way: without an account, nothing would stop it.
            await self.authority.provide(subject)
        fencing = self.authority.fencing
        while True:
            done = await self.authority.end_all(subject, **BY_SYSTEM, reason=reason)
            fence = await fencing.fence(done, wait=wait)
            if fence.state != "lost":  # another log began: it may lack what was revoked
                return fence.due_in(fencing.now())

    async def erase(self, subject: str, *, wait: float = 1.0) -> float:
        """Erase what is kept of a `subject`: sessions, session data, tokens, credentials, and the account itself. Audit
        events stay under the subject, and name no client any more. Call it after a user of your own is deleted.

        Args:
            wait: seconds to wait at most until no verifier accepts the subject's tokens any more.

        Returns:
            Seconds after which the last verifier refuses them: 0.0 if all of them do already, or if nothing was kept.

        Raises:
            LastAdministrator: it is the last active administrator among the bundled accounts.
            Unavailable: the store is out of reach. What was begun is finished later.
        """
        if not self._open:
            await self.open()
        try:
            done = await self.directory.deletion.erase(subject, **BY_SYSTEM)
        except NotFound:
            return 0.0
        fencing = self.authority.fencing
        fence = await fencing.fence(done, wait=wait)
        return fence.due_in(fencing.now())

    async def open(self, *, upkeep: bool = True) -> None:
        """Open the store, update its schema, and create the first signing key. Idempotent.

        Args:
            upkeep: whether this process creates signing keys and deletes expired records when its policy says so, sends
                to webhooks, and stores its settings for commands. False is for a command beside a server.

        Raises:
            Unavailable: the store is unavailable.
            Misconfigured: the store is unusable: it has the schema of another version, or others can read its files. Or
                there was no master key file, and the store's keys were sealed by another master key.
            InvalidKey: the store's keys were sealed by another master key.
        """
        # The first requests may arrive together: one opens the store, and the others wait.
        async with self._opening:
            if self._open:
                return
            try:
                await self.authority.open(upkeep=upkeep, is_new_master=self._made_key_file is not None)
            except InvalidKey:
                if self._made_key_file is None:
                    raise
                # It sealed nothing, and it would stand where the right key is looked for.
                self._made_key_file.unlink(missing_ok=True)
                raise Misconfigured(
                    f"There is no master key file {self._made_key_file}, and another master key sealed what is in this "
                    "database. Put its file back, or follow the page about keys: the master key is lost."
                ) from None
            self._made_key_file = None
            self.directory.open()
            if upkeep:
                # The tables take a quarter of a second to load. A thread loads them now, so that no log-in waits.
                await asyncio.to_thread(self._user_agents.load)
                await self._upkeep.begin()
                self.deliveries.begin()
            self._open = True

    async def close(self) -> None:
        """Close the store, and send waiting mail for a few seconds at most. Idempotent."""
        if self._open:
            self._open = False
            self._upkeep.end()
            await self.deliveries.close()
            await self.directory.close()
            await self.authority.close()

    def _learn_port(self, request: Request) -> None:
        """Take the port of the socket that a request came to: an application in development says it nowhere else."""
        if request.port is None:
            return
        self.api.first_request = None
        url = f"http://localhost:{request.port}"
        if request.port != _TEST_PORT and url != self._upkeep.served.local_url:
            self.authority.sign_as(url + self.site.base_path)
            self.directory.post.letters.public_url = self.authority.issuer
            self._upkeep.move(url)

    async def tidy(self) -> int:
        """Delete expired records by this policy, and return their number. A server does so by itself, every hour.

        Raises:
            Unavailable: the store is unavailable.
        """
        return await self._upkeep.tidy()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def asgi(self) -> AsgiApplication:
        """Return the whole API as an ASGI application, to serve alone or to mount at the root of another."""
        if self.authority.policy.device_binding == "required" and not self.api.demands_binding:
            log.warning(BINDS_NO_COOKIE)
        return AsgiApplication(self.api, opened=self.open, closed=self.close)

    def set_cookies(self, signed_in: SignedIn) -> list[str]:
        """Return the values of the `Set-Cookie` headers that keep a sign-in in the browser, for a response of your own.

        `signed_in` is the result of `authority.start`. The mode `session` sets the session cookie, and `hybrid` the
        refresh cookie. The cookies of an earlier sign-in are cleared.
        """
        return [value.decode("ascii") for _, value in cookies_of(self.site.cookies, signed_in, self.authority.clock())]

    def device_offer(self, signed_in: SignedIn) -> dict[str, str]:
        """Return the header that asks the browser to bind a sign-in to its device, for the response that sets its
        cookies; empty where it is not to be asked. `signed_in` is the result of `authority.start`.
        """
        session = signed_in.session
        if session is None or not self.site.cookies.secure:  # browsers bind nothing without TLS
            return {}
        challenge = self.api.bindings.challenge_for(session, anew=True)
        if not challenge:
            return {}
        name, value = offers(challenge, self.site.base_path)
        return {name.decode("ascii"): value.decode("ascii")}

    def visitor(self, request: Request | HasScope | MutableMapping[str, Any]) -> str:
        """Return the token of the visitor whose cookie a `request` carries, for `authority.start(visitor=...)`: the new
        session takes over what the visitor has kept. "" if there is none.
        """
        return self.site.cookies.visitor.value(_as_request(request).cookie())

    async def waiting(self, request: Request | HasScope | MutableMapping[str, Any], token: str = "") -> Waiting | None:
        """Return the sign-in that waits for its next step in the browser of a `request`, or that a program names by its
        `token`: for the page of a `SignInStep`, which may show what depends on its `subject`. None if there is none, or
        it waited too long.

        Raises:
            RateLimited: too many wrong tokens from there.
            Unavailable: the store is out of reach.
        """
        request = _as_request(request)
        line = request.cookie()
        token = token or self.site.cookies.step.value(line)
        if not token:
            return None
        if not self._open:
            await self.open()
        remembered = self.site.cookies.remembered.value(line)
        with suppress(InvalidToken):
            return await self.directory.sign_in.waiting(token, client=self.observed(request), remembered=remembered)
        return None

    def owns(self, path: str, root_path: str = "") -> bool:
        """Whether an adapter leaves a `path` to the API: those of its routes, but not `/` and the description.
        `root_path` is where the application is mounted.
        """
        return self.own_paths.owns(path, root_path)

    def described(self) -> dict[str, Any]:
        """Return the OpenAPI document of the paths that an adapter leaves to the API."""
        base = self.site.base_path
        described = document(
            [route for route in self.api.routes if route.gives is not None and self.owns(base + route.path)],
            product=self.site.product,
            issuer=self.authority.issuer,
            version=_version(),
            keyless=self.site.edge.development,
            cookie=self.site.cookies.session.name,
        )
        described["paths"] = {base + path: operations for path, operations in described["paths"].items()}
        return described

    def csrf_token(self, session_id: str) -> str:
        """Return the CSRF token of a session, for the forms and scripts of your pages.

        `session_id` is that of the principal.
        """
        return csrf_token(self.site.csrf_key, session_id)

    def observed(self, asked: Request) -> Client:
        """Describe the client of a request, `asked`, for audit events and the list of sessions: for an adapter."""
        with suppress(BadRequest):  # without the word of a configured proxy it is the peer
            self.site.edge.admit(asked)
        return Call(self.api, asked, {}).observed()

    async def look_at_use(self, asked: Request, principal: Principal) -> None:
        """Watch where the sign-in of a `principal` is used, by the request, `asked`: for an adapter that found it by a
        cookie of its own. Raises `NotAuthenticated` and `StepUpRequired`.
        """
        await Call(self.api, asked, {}).look_at_use(principal)

    async def principal(self, request: HasScope | MutableMapping[str, Any]) -> Principal | None:
        """Return who sent a request to your application, by its cookie or bearer token; None without either.

        `request` is a request or a WebSocket of Starlette, FastAPI or Litestar, or an ASGI scope.

        Cross-site request forgery: if a cookie is the proof, a request with an unsafe method must carry the
        `X-CSRF-Token` of its session, and a WebSocket handshake must come from a page of this origin or of a listed
        origin.

        Raises:
            NotAuthenticated: the cookie or token is not valid, or the two contradict each other.
            StaleClaims: the access token is valid, but the roles of its owner changed: the client must refresh. A
                subclass of `NotAuthenticated`.
            Forbidden: a page of another site sent the request, or the request lacks the CSRF token of the session.
            Unavailable: the store is unavailable: answer 503, never "signed out".
            TypeError: `request` is not a request.
        """
        scope = getattr(request, "scope", request)
        if not isinstance(scope, MutableMapping):
            raise TypeError("auth.principal takes a request or its ASGI scope")
        caller = await self.caller(request_of(scope), websocket=scope["type"] == "websocket")
        return None if caller is None else caller.principal

    async def caller(self, asked: Request, *, websocket: bool = False, csrf_field: str | None = None) -> Caller | None:
        """Do what `principal` does, for an adapter: with the account and the session where a cookie proved them.

        `asked` is the request, `websocket` whether it opens one, and `csrf_field` the CSRF token that its form holds.
        """
        if not self._open:
            await self.open()
        if self.api.first_request is not None:
            self.api.first_request(asked)
        call = Call(self.api, asked, {})
        try:
            return self._from_own_page(call, await call.identify(), websocket=websocket, csrf_field=csrf_field)
        except BadRequest as error:
            raise NotAuthenticated(error.reason or str(error), message=str(error)) from None

    def caller_at_once(self, asked: Request, *, csrf_field: str | None = None) -> tuple[bool, Caller | None]:
        """Do what `caller` does in any thread and without waiting. (False, None) if it has to wait.

        `asked` is the request, and `csrf_field` the CSRF token that its form holds.
        """
        if not self._open or self.api.first_request is not None:
            return False, None
        call = Call(self.api, asked, {})
        try:
            found, caller = call.identify_at_once()
            return found, self._from_own_page(call, caller, websocket=False, csrf_field=csrf_field)
        except BadRequest as error:
            raise NotAuthenticated(error.reason or str(error), message=str(error)) from None

    def _from_own_page(
        self, call: Call, caller: Caller | None, *, websocket: bool, csrf_field: str | None
    ) -> Caller | None:
        """Return the caller, unless a page of another site used its cookie. Raises `Forbidden`."""
        asked = call.request
        handshake = websocket or is_handshake(asked)
        unsafe = asked.method not in SAFE_METHODS
        if caller is not None and caller.session is not None and caller.by_cookie and (unsafe or handshake):
            self.site.edge.admit(asked)  # finds the origin under which the browser sees this server
            call.judge(asked.method, by_cookie=True, handshake=handshake)
            if unsafe:
                call.check_csrf(caller.session.id, field=csrf_field)
        return caller


def _as_request(request: Request | HasScope | MutableMapping[str, Any]) -> Request:
    if isinstance(request, Request):
        return request
    return request_of(request if isinstance(request, MutableMapping) else request.scope)


@cache
def _version() -> str:
    try:
        return version("dutchdoor")
    except PackageNotFoundError:
        return "0"
