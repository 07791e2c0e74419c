"""The arguments of `Auth`: each is read or refused here, before anything is made of it, with what to give instead."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast, get_args

from msgspec.structs import replace

from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.mail import Transport
from dutchdoor.mail.console import ConsoleTransport
from dutchdoor.mail.urls import make_transport, noreply
from dutchdoor.model.choices import check_choice
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.model.policy import STANDARD, Policy, RegistrationMode
from dutchdoor.model.rate_limits import Limits
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.services.own_steps import SignInStep
from dutchdoor.texts.languages import SHIPPED, Languages, slips
from dutchdoor.web.headers import Hsts
from dutchdoor.web.http import is_loopback

__all__ = [
    "check_alone",
    "check_types",
    "check_values",
    "read_issuers",
    "read_languages",
    "read_local_origin",
    "read_transport",
    "with_registration",
]

log = logging.getLogger("dutchdoor")

ALGORITHMS: Final = ("ES256", "EdDSA", "RS256", "HS256")
"""What signs access tokens."""
_CONTACT: Final = re.compile(r"(mailto:[^\s@]+@[^\s@]+|https://[^\s/]+\S*)")


def check_values(policy: object, limits: object, *, alg: object, hsts: object, console: bool) -> None:
    """Check settings that have choices, or a type that text could be taken for."""
    if not isinstance(policy, Policy):
        raise Misconfigured(f"policy is {policy!r}. Give a Policy(...), or STANDARD, HIGH or RELAXED of dutchdoor.")
    if not isinstance(limits, Limits):
        raise Misconfigured(f"limits is {limits!r}. Give dutchdoor.model.rate_limits.Limits(...).")
    check_choice(alg, ALGORITHMS, "alg")
    check_choice(hsts, get_args(Hsts), "hsts")
    if console and "session" not in policy.modes:
        raise Misconfigured(
            "Auth got console=True, and a policy without the mode session. A browser shows the console to a session "
            "cookie only. Add session to the modes of the policy, or leave console out."
        )


_TEXT: Final = ("a text", lambda value: isinstance(value, str))
_TEXT_OR_NONE: Final = ("a text", lambda value: value is None or isinstance(value, str))
_PATH: Final = ("a path", lambda value: value is None or isinstance(value, str | os.PathLike))
_SWITCH: Final = ("True or False", lambda value: isinstance(value, bool))
_TEXTS: Final = (
    "a list of texts",
    lambda value: (
        isinstance(value, Iterable)
        and not isinstance(value, str)
        and not (isinstance(value, list | tuple) and not all(isinstance(each, str) for each in value))
    ),
)
_FUNCTION: Final = ("a function", lambda value: value is None or callable(value))


def _with(method: str) -> tuple[str, Callable[[Any], bool]]:
    return f"an object with the method `{method}`", lambda value: value is None or hasattr(value, method)


_TYPES: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "database": (
        "a URL such as sqlite:///app.db, or a store",
        lambda value: isinstance(value, str) or hasattr(value, "commit"),
    ),
    "master_key": ("a file, or MasterKeys", lambda value: isinstance(value, MasterKeys) or _PATH[1](value)),
    "steps": ("a list of SignInStep", lambda value: isinstance(value, SignInStep | Sequence)),
    "hasher": ("a PasswordHasher", lambda value: value is None or isinstance(value, PasswordHasher)),
    "catalogues": _PATH,
    "devices": _with("read"),
    "countries": _with("country"),
    "networks": _with("network"),
    **dict.fromkeys(("redis", "base_path", "passkey_domain", "cookie_prefix", "product", "security_contact"), _TEXT),
    **dict.fromkeys(("public_url", "local_url", "sign_in_page", "home", "mail_from"), _TEXT_OR_NONE),
    **dict.fromkeys(("pass_preflights", "clear_site_data", "docs", "console"), _SWITCH),
    **dict.fromkeys(
        (
            "hosts", "proxies", "origins", "origin_headers", "passkey_origins", "audience", "languages",
            "webhook_networks",
        ),
        _TEXTS,
    ),
    **dict.fromkeys(("breached", "deliver_code", "claims", "on_suspicion", "clock"), _FUNCTION),
}  # fmt: skip
"""What each argument is, in words, and whether a value is that: of those that no function below reads by itself."""


def check_types(given: Mapping[str, object]) -> None:
    """Check that each argument is what it must be. Else, some would fail at the first request that needs them.

    Raises:
        Misconfigured: one is not. A value that could be a secret is not repeated.
    """
    for name, (says, fits) in _TYPES.items():
        value = given[name]
        if fits(value):
            continue
        if says == _TEXTS[0] and isinstance(value, str):  # each letter would be one of them
            raise Misconfigured(f"{name} is a list: {name}=[{value!r}].")
        what = "" if isinstance(value, list | tuple) else f", and not of the type {type(value).__name__}"
        raise Misconfigured(f"{name} is {says}{what}.")
    contact = str(given["security_contact"])
    if contact and not _CONTACT.fullmatch(contact):
        raise Misconfigured(f"security_contact is {contact!r}. Give mailto:security@example.com, or an https address.")


def check_alone(users: object, policy: Policy, **others: object) -> None:
    """Refuse `users` of the application's own beside settings that are for the bundled accounts."""
    if not isinstance(users, ExternalUsers):
        raise Misconfigured(f"users is {users!r}. Give Auth(users=ExternalUsers(authenticate=..., load=...)).")
    for name, given in others.items():
        if given is not None:
            raise Misconfigured(
                f"Auth got users and {name}. The second is for the bundled accounts: with users of your own, it does "
                "nothing. Leave it out."
            )
    if policy.sign_in_by_mail:
        raise Misconfigured(
            "Auth got users and sign_in_by_mail. dutchdoor does not know the addresses of users of your own. Mail a "
            "code yourself, and start the session by `auth.authority.start`."
        )
    if policy.require_verified_email:
        raise Misconfigured(
            "Auth got users and require_verified_email. Let `authenticate` return None for a user whose address is not "
            "verified."
        )


def with_registration(policy: Policy, registration: RegistrationMode | None) -> Policy:
    """Return the policy with a mode of registration that is given beside it. Raises `Misconfigured` for two of them."""
    if registration is None:
        return policy
    if policy.registration not in {STANDARD.registration, registration}:
        raise Misconfigured(
            f"Auth got registration={registration!r} and Policy(registration={policy.registration!r}). Give one."
        )
    return replace(policy, registration=registration)


def read_issuers(issuers: object, policy: Policy) -> tuple[Issuer, ...]:
    """Return the other log-ins. Raises `Misconfigured` for what is none, and for two of one name."""
    given: list[Issuer] = []
    for each in issuers if isinstance(issuers, list | tuple) else (issuers,):
        if not isinstance(each, Issuer):
            raise Misconfigured(
                f"issuers: {each!r} is not an issuer. Give a list: issuers=[dutchdoor.issuers.google(client_id=..., "
                "client_secret=...)]."
            )
        given.append(each)
    names = [each.name for each in given]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise Misconfigured(f'issuers: two of them have the name {twice!r}. Name one of them: name="{twice}-2".')
    if given and not {"session", "hybrid"} & set(policy.modes):
        raise Misconfigured("issuers need the mode session or hybrid: a browser that comes back keeps a cookie.")
    return tuple(given)


def read_transport(mail: object, mail_from: str | None, public_url: str | None) -> Transport:
    """Return the transport that a setting describes. Raises `Misconfigured`, without a password that it holds."""
    if isinstance(mail, str):
        return make_transport(mail, sender=mail_from or noreply(public_url))
    if mail_from is not None:
        raise Misconfigured(
            "mail_from is for a URL: Auth(mail='smtp://user:password@host:587', mail_from='login@example.com')."
        )
    if mail is None:
        return ConsoleTransport()
    if not callable(getattr(mail, "send", None)):
        raise Misconfigured(
            "mail is a URL, such as smtp://user:password@host:587, or an object with the coroutine function `send`."
        )
    return cast("Transport", mail)


def read_languages(tags: Sequence[str], catalogues: str | os.PathLike[str] | None) -> Languages:
    """Return the languages of pages and mail, with the texts of the folder `catalogues`. Raises `Misconfigured`."""
    folder = None if catalogues is None else Path(catalogues)
    if folder is not None and not folder.is_dir():
        raise Misconfigured(f"catalogues: there is no folder {folder}.")
    try:
        made = Languages(tags, folder)
    except LookupError as exc:
        raise Misconfigured(
            f"languages: {exc.args[0]}. There are {', '.join(SHIPPED)}; `catalogues` names a folder with others."
        ) from None
    except ValueError as exc:
        raise Misconfigured(f"catalogues: {exc}.") from None
    for name, text, meant in () if folder is None else slips(folder):
        log.warning("catalogues: %s translates %r, which nothing says. Did you mean %r?", name, text, meant)
    return made


def read_local_origin(url: str) -> str:
    """Return a URL of this machine. Raises `Misconfigured` for every other."""
    scheme, _, host = url.partition("://")
    if scheme != "http" or not is_loopback(host):
        raise Misconfigured(
            f"local_url {url!r} is not a URL of this machine. Use a URL without a path, such as http://localhost:5000."
        )
    return url
