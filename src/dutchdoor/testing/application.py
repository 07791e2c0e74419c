"""An application under test: its engine is empty and in memory for the length of one test.

`Auth` was made when the application was imported, with its database, its mail and its hasher. A trial makes another
with the same settings but those, and lends its state to the objects that the application holds. After the test they
have their own state again. Tests therefore see the routes, the policy and the hooks of the application as they are.

An application that only verifies tokens gets an issuer in memory, whose tokens it accepts.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from importlib import import_module
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from msgspec.structs import force_setattr

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.guard.asgi import Middleware
from dutchdoor.guard.gates import Gate, Verifying
from dutchdoor.guard.on_asgi import OnAsgi
from dutchdoor.guard.on_wsgi import OnWsgi
from dutchdoor.guard.threads import SyncGate
from dutchdoor.jose.access_token import AccessTokenIssuer
from dutchdoor.jose.dpop import DpopProof
from dutchdoor.jose.jwk import Key
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import NO_CLIENT, Acting
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Device
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Principal, Verified
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.roles import check_roles
from dutchdoor.stores.base import Change, Revoked
from dutchdoor.testing.clients import carry, is_django, new_client
from dutchdoor.testing.clock import Clock
from dutchdoor.testing.engine_thread import EngineThread
from dutchdoor.testing.outbox import Outbox
from dutchdoor.web.forwarded import Edge
from dutchdoor.web.http import Request

__all__ = ["MakeAccount", "SignIn", "Tokens", "Trial", "load"]

_MODES: Final = ("session", "hybrid", "jwt")
_BY_TEST: Final = Acting(client=NO_CLIENT, actor="test")
_LATE: Final = 120.0
"""Seconds since which an expired token has expired: more than any leeway."""
_HOW: Final = (
    'Name it in the configuration of pytest, dutchdoor_app = "package.module:app", or write the fixture auth_app, '
    "which returns it."
)


# --- finding the application and its engine --------------------------------------------------------------------------


def load(named: str) -> Any:
    """Return the application that the ini option names. Raises `Misconfigured` that says what to write."""
    if not named:
        raise Misconfigured(f"The fixtures of dutchdoor do not know your application. {_HOW}")
    module, colon, name = named.partition(":")
    if not (module and colon and name):
        raise Misconfigured(f'dutchdoor_app = "{named}" names no application. Write "package.module:app".')
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the application itself imports what is not installed
        raise Misconfigured(
            f'dutchdoor_app = "{named}": there is no module {error.name}. If it is in the directory of your '
            'configuration, add pythonpath = ["."] to it.'
        ) from None
    try:
        return getattr(found, name)
    except AttributeError:
        raise Misconfigured(f'dutchdoor_app = "{named}": the module {module} has no {name}.') from None


class _Found(NamedTuple):
    app: Any
    engine: Auth | None
    gate: Gate | None = None
    threads: SyncGate | None = None
    django: Any = None
    """`dutchdoor.testing.django_users`, for a project of Django."""


def _find(app: Any) -> _Found:
    """Return an application with what is attached to it. Raises `Misconfigured` that says what to write."""
    beside: object = None
    if isinstance(app, tuple):
        app, beside = app if len(app) == 2 else (None, None)  # noqa: PLR2004
        if isinstance(beside, Auth):
            return _Found(app, beside)
        if not isinstance(beside, OnAsgi | OnWsgi):
            raise Misconfigured("auth_app returns an application, or a pair: the application and its Auth.")
    django = import_module("dutchdoor.testing.django_users") if is_django(app) else None
    threads = django.gate_of_project() if django else _threads_of(app, beside)
    gate = threads.gate if threads else beside.gate if isinstance(beside, OnAsgi) else _gate_of(app)
    if gate is not None:
        return _Found(app, getattr(gate, "auth", None), gate, threads, django)
    if inspect.isfunction(app):
        raise Misconfigured(
            f"{app.__name__} is a function and no application. Write the fixture auth_app, and call it there."
        )
    raise Misconfigured(
        f"No Auth is attached to {app!r}. Attach it, auth = Auth(app); or write the fixture auth_app, which returns "
        "the application and its Auth as a pair."
    )


def _threads_of(app: Any, beside: object) -> SyncGate | None:
    """Return the gate of an application that runs in threads: Flask, or WSGI beside its `Auth`."""
    found = beside._gate if isinstance(beside, OnWsgi) else getattr(app, "extensions", {}).get("dutchdoor")  # noqa: SLF001
    return found if isinstance(found, SyncGate) else None


def _gate_of(app: Any) -> Gate | None:
    """Return the gate of an application over ASGI: Starlette and FastAPI, Litestar, or one without a framework."""
    guards = [each.kwargs.get("guard") for each in getattr(app, "user_middleware", ())]
    guards += [getattr(each, "gate", None) and each for each in getattr(getattr(app, "plugins", None), "init", ())]
    guards += [app.guard] if isinstance(app, Middleware) else []
    return next((each.gate for each in guards if each is not None), None)


# --- the engine of a test --------------------------------------------------------------------------------------------


class _AnyHost(Edge):
    """Lets every host through: a client of a test calls the application by any name (`testserver`, `test`)."""

    __slots__ = ()

    def admit(self, request: Request) -> None:
        request.client, request.host = request.peer, (request.header(b"host") or "").lower()


def _like(engine: Auth | None, *, clock: Clock, outbox: Outbox) -> Auth:
    """Return an engine with the settings of another, empty and in memory, that serves every host over plain HTTP."""
    settings = {} if engine is None else dict(engine.made_with)
    settings |= {
        "database": "memory:", "redis": "", "master_key": None, "public_url": None, "hosts": (), "proxies": (),
        "devices": Device(), "clock": clock,
    }  # fmt: skip
    if settings.get("users") is None:  # users of the application's own have passwords and mail elsewhere
        settings |= {"mail": outbox, "mail_from": None, "hasher": PasswordHasher(CHEAPEST)}
    made = Auth(**settings)
    force_setattr(made.site, "edge", _AnyHost())
    if engine is not None:
        # Listeners that the application added after it had made its engine. Those of the engine itself are there.
        for name in made.authority.hooks.__struct_fields__:
            theirs, ours = getattr(engine.authority.hooks, name), getattr(made.authority.hooks, name)
            if isinstance(ours, list):
                ours += [each for each in theirs if getattr(each, "__self__", None) is not engine.directory]
        made.authority.hooks.listeners = {name: [*each] for name, each in engine.authority.hooks.listeners.items()}
        made.call_inside(engine.authority.hooks.calling.around)
    return made


def _wait_for_listeners(engine: Auth) -> None:
    """Have each commit wait for the listeners that it calls, so that a test sees what they did."""
    announcing = engine.authority._announcing  # noqa: SLF001 - no application may wait for them
    commit, calls = announcing.commit, announcing._calls  # noqa: SLF001

    async def committed(*changes: Change) -> Revoked:
        done = await commit(*changes)
        here, task = asyncio.get_running_loop(), asyncio.current_task()
        called = {each for each in calls if each.get_loop() is here}
        if called and task not in called:  # a listener that commits does not wait for itself
            await asyncio.wait(called)
        return done

    vars(announcing).update(commit=committed)


class _Issuer:
    """Stands for the `Verifier` of an application that only verifies: it judges tokens by the engine of the test."""

    applied_seq = 0

    def __init__(self, engine: Auth, run: Callable[[Coroutine[Any, Any, Principal]], Principal]) -> None:
        self._engine, self._run = engine, run

    public_url = None

    def __call__(self, token: str, proof: DpopProof | None = None) -> Principal:
        return self._run(self.check(token, proof))

    def again(self, token: str) -> Principal:
        return self._run(self.check_again(token))

    def seen(self, token: str | bytes, principal: Principal, address: str) -> None:
        """Pass over a use: the engine of the test sees each token by itself."""

    def close(self) -> None: ...

    async def check(self, token: str, proof: DpopProof | None = None) -> Principal:
        return await self._engine.authority.verify(token, proof)

    async def check_again(self, token: str) -> Principal:
        return await self._engine.authority.verify_again(token)

    async def __aenter__(self) -> None: ...

    async def aclose(self) -> None: ...


class Trial:
    """One test of an application. Use it as a context manager."""

    def __init__(self, app: Any, thread: EngineThread) -> None:
        self._found, self._thread = _find(app), thread
        self.app = self._found.app
        self.clock, self.outbox = Clock(float(int(time.time()))), Outbox()
        self.make_account, self.sign_in, self.tokens = MakeAccount(self), SignIn(self), Tokens(self)
        self._stack = contextlib.ExitStack()
        self._client: Any = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            found = self._found
            self.engine = made = _like(found.engine, clock=self.clock, outbox=self.outbox)
            opened, closed = made.open, made.close
            # The clients of a test start and stop the application in loops of their own. This engine outlives them.
            vars(made).update(open=_nothing, close=_nothing)
            _wait_for_listeners(made)
            vars(made.directory.post).update(later=self._at_once(made.directory.post.later, made.directory.post.close))
            if found.engine is not None:
                for theirs, ours in _pairs(found.engine, made):
                    stack.callback(setattr, theirs, "__dict__", theirs.__dict__)
                    theirs.__dict__ = ours.__dict__
            elif isinstance(found.gate, Verifying):
                stack.callback(vars(found.gate).update, verifier=found.gate.verifier, clock=found.gate.clock)
                vars(found.gate).update(verifier=_Issuer(made, self._thread.run), clock=self.clock)
            if found.threads is not None:
                stack.callback(found.threads.close)
            self.run(opened())
            stack.callback(lambda: self.run(closed()))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def run(self) -> Callable[..., Any]:
        """Runs a coroutine of the engine, and returns its result."""
        return self._thread.run

    @property
    def client(self) -> Any:
        """A client that is signed out. The first one starts the application, and the end of the test stops it."""
        if self._client is None:
            self._client = self._stack.enter_context(
                new_client(self.app, None, is_wsgi=self._found.threads is not None)
            )
        return self._client

    def new_client(self) -> Any:
        """Return one more client, with cookies of its own."""
        return self._new_client(self.client)

    def _new_client(self, first: Any) -> Any:
        return self._stack.enter_context(new_client(self.app, first, is_wsgi=self._found.threads is not None))

    @property
    def django(self) -> Any:
        """What makes users of a Django project; None elsewhere."""
        return None if self.only_verifies else self._found.django

    @property
    def only_verifies(self) -> bool:
        return self._found.engine is None

    def _at_once(
        self, later: Callable[[Awaitable[None]], None], sent: Callable[[], Awaitable[None]]
    ) -> Callable[[Awaitable[None]], None]:
        """Return what sends mail before the answer: the loop of a TestClient ends with it."""

        async def now(work: Awaitable[None]) -> None:
            later(work)
            await sent()

        def post(work: Awaitable[None]) -> None:
            if self._thread.is_current():
                later(work)
            else:
                self.run(now(work))

        return post


def _pairs(old: Auth, new: Auth) -> list[tuple[Any, Any]]:
    """Return what an application may hold of its engine, each with its counterpart."""
    parts = ("registration", "sign_in", "recovery", "admin")
    return [
        (old.authority, new.authority),
        (old.api, new.api),
        *((getattr(old.directory, part), getattr(new.directory, part)) for part in parts),
        *([] if old.directory.external is None else [(old.directory.external, new.directory.external)]),
        (old.directory, new.directory),
        (old, new),
    ]


async def _nothing(**_: object) -> None:
    """Do nothing: the engine is open for the whole test."""


# --- accounts, sign-ins, tokens --------------------------------------------------------------------------------------


class MakeAccount:
    """Creates accounts, at once and without mail. No password is hashed unless one is given."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def __call__(
        self,
        login: str,
        *,
        roles: Iterable[str] | None = None,
        name: str = "",
        password: str | None = None,
        verified: bool = True,
    ) -> Account:
        """Return the account of an address, and create it if there is none.

        Args:
            login: an e-mail address; with users of your own, and for what has no @, the id of the user. In Django, the
                name that the user signs in with.
            roles: its roles from now on; those it has, if not given.
            name: the name people see, for a new account.
            password: what it signs in with by its form, for a new account. Any will do.
            verified: whether its owner has proved the address, for a new account.

        Raises:
            InvalidInput: the address or a role is not acceptable.
        """
        if isinstance(roles, str):
            raise InvalidInput(f'roles is a list: roles=["{roles}"].', field="roles")
        if self._trial.django is not None:  # in this thread, which has the test's transaction
            login, name, password = self._trial.django.made(login, roles, name, password), "", None
        account: Account = self._trial.run(self._made(login, roles, name, password, verified=verified))
        return account

    async def _made(
        self, login: str, roles: Iterable[str] | None, name: str, password: str | None, *, verified: bool
    ) -> Account:
        engine, external = self._trial.engine, self._trial.engine.directory.external
        if external is not None and (name or password is not None):
            raise InvalidInput("Names and passwords are in your own table. Create the user there, and give the id.")
        elsewhere = external is not None and external.users.roles is not None
        if elsewhere and roles is not None and self._trial.django is None:  # whose groups have them by now
            raise InvalidInput("ExternalUsers has `roles`: give the user the roles in your own table.", field="roles")
        if external is not None or "@" not in login:
            account = await engine.authority.provide(login)
        else:
            found = await engine.store.account_by_email(canonical(login))
            if found is None:
                encoded = None if password is None else await engine.directory.hasher.hash(password)
                return await engine.directory.registration.add(
                    login, name, encoded, client=NO_CLIENT, roles=check_roles(tuple(roles or ())), verified=verified
                )
            account = found
            if password is not None:
                raise InvalidInput(f"{login} has an account already. Give the password when you create it.")
        wanted = account.roles if roles is None else check_roles(tuple(roles))
        if set(wanted) != set(account.roles):
            account, _ = await engine.directory.admin.set_roles(account.subject, wanted, **_BY_TEST)
        return account


class SignIn:
    """Signs accounts in without their password."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def __call__(
        self,
        login: str,
        *,
        roles: Iterable[str] | None = None,
        name: str = "",
        mode: Mode | None = None,
        scope: str = "",
        amr: tuple[str, ...] = ("pwd",),
        client: Any = None,
    ) -> Any:
        """Return a client that is signed in. It sends the cookie and the CSRF token, or the access token, by itself.

        Args:
            login: an e-mail address; with users of your own, and for what has no @, the id of the user. An account
                that is not there is created.
            roles: its roles from now on; those it has, if not given.
            name: the name people see, for a new account.
            mode: `session` (a cookie), `hybrid` or `jwt` (an access token). A cookie if not given; a token where the
                application only verifies.
            scope: the scope of the sign-in.
            amr: how the owner proved who they are: `("pwd", "otp")` for two factors.
            client: a client to sign in: of httpx2, Starlette, Flask or Django. A new one if not given.

        Raises:
            InvalidInput: an argument is not acceptable; the message says what is.
        """
        signed_in = self.start(login, roles=roles, name=name, mode=mode, scope=scope, amr=amr)
        engine = self._trial.engine
        client = self._trial.new_client() if client is None else client
        if signed_in.session is not None and signed_in.mode == "session":
            headers = {"X-CSRF-Token": engine.csrf_token(signed_in.session.id)}
            carry(client, headers, engine.set_cookies(signed_in))
        else:
            carry(client, {"Authorization": f"Bearer {signed_in.access_token}"}, [])
        return client

    def headers(self, login: str, *, roles: Iterable[str] | None = None, scope: str = "") -> dict[str, str]:
        """Return the headers of a request with an access token, for any other client. Parameters as for a call."""
        return {"Authorization": f"Bearer {self.start(login, roles=roles, mode='hybrid', scope=scope).access_token}"}

    def start(
        self,
        login: str,
        *,
        roles: Iterable[str] | None = None,
        name: str = "",
        mode: Mode | None = None,
        scope: str = "",
        amr: tuple[str, ...] = ("pwd",),
    ) -> SignedIn:
        """Sign in, and return what the engine issues: the tokens, the session and the account."""
        if mode is not None and mode not in _MODES:
            raise InvalidInput(f"mode={mode!r} is none of {', '.join(_MODES)}.", field="mode")
        trial = self._trial
        if trial.only_verifies and mode == "session":
            raise InvalidInput('This application only verifies tokens: no cookie reaches it. Use mode="hybrid".')
        modes = trial.engine.authority.policy.modes
        default: Mode = "hybrid" if trial.only_verifies else ("session" if "session" in modes else modes[0])
        account = trial.make_account(login, roles=roles, name=name)
        if trial.run(_is_unknown(trial.engine, account)):
            raise InvalidInput(
                f"Your function `load` returned no user for {login!r}. Create the user in your own table, and give "
                "sign_in the id."
            )
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=tuple(amr), at=trial.clock())
        started: SignedIn = trial.run(
            trial.engine.authority.start(verified, mode=mode or default, client=NO_CLIENT, scope=scope)
        )
        return started


async def _is_unknown(engine: Auth, account: Account) -> bool:
    """Return whether an account stands for a user that the application does not know."""
    external = engine.directory.external
    return external is not None and await external.calling(external.users.load, account.subject) is None


class Tokens:
    """Access tokens for the header `Authorization: Bearer ...`: one that a route accepts, and five that it must not."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def valid(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token that is accepted."""
        return self._start(login, roles).access_token

    def expired(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token that was valid, until two minutes ago."""
        lives_for = self._trial.engine.authority.policy.access_for
        return self._signed(login, roles, age=lives_for + _LATE)

    def forged(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token that an attacker signed, under the id of our key."""
        return self._signed(login, roles, ours=False)

    def foreign(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token that another server signed correctly, for the same audience."""
        return self._signed(login, roles, ours=False, issuer="https://auth.another.example")

    def revoked(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token whose session was signed out."""
        started = self._start(login, roles)
        if started.session is not None:
            self._trial.run(self._trial.engine.authority.end(started.session.id, **_BY_TEST))
        return started.access_token

    def stale(self, login: str = "ada@example.com", *, roles: Iterable[str] | None = None) -> str:
        """Return a token of an account whose roles have changed since: its holder must refresh it."""
        started, admin = self._start(login, roles), self._trial.engine.directory.admin
        account = started.account
        for now in ((*account.roles, "changed"), account.roles):
            self._trial.run(admin.set_roles(account.subject, now, **_BY_TEST))
        return started.access_token

    def _start(self, login: str, roles: Iterable[str] | None) -> SignedIn:
        return self._trial.sign_in.start(login, roles=roles, mode="hybrid")

    def _signed(
        self, login: str, roles: Iterable[str] | None, *, age: float = 0.0, ours: bool = True, issuer: str = ""
    ) -> str:
        """Return a token that is like a valid one but for its age, its key and its issuer."""
        account, authority = self._start(login, roles).account, self._trial.engine.authority
        key = authority.ring.signing(self._trial.clock(), authority.alg)
        if not ours:
            key = Key.generate(authority.alg, kid=None if issuer else key.kid)
        sign = AccessTokenIssuer(issuer=issuer or authority.issuer, audience=authority.audience)
        then = self._trial.clock() - age
        return sign(
            key=key, now=then, lifetime=authority.policy.access_for, subject=account.subject,
            client_id=authority.client_id, epoch=account.epoch, auth_time=then, amr=("pwd",), roles=account.roles,
        )  # fmt: skip
