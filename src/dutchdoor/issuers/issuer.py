"""What is configured of one issuer, checked once, and the rules about who may come by it.

An issuer's word about an address counts only for the addresses that it is trusted for (`trusted_for`). Anyone can run
an issuer, or own a tenant at a large one, and write any address into its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import force_setattr

from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.issuers.identity import Identity
from dutchdoor.jose.id_token import TENANT
from dutchdoor.model.choices import check_choice
from dutchdoor.model.email_address import canonical
from dutchdoor.model.spelling import Spelt

__all__ = ["ANY", "Issuer", "Registers", "is_local"]

Registers = Literal["policy", "always", "never"]
ANY: Final = "*"
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
CLAIM_VALUES_AT_MOST: Final = 1000


class Issuer(Struct, metaclass=Spelt, frozen=True, kw_only=True):
    """One issuer by which people sign in.

    Raises:
        Misconfigured: a value is not acceptable; the message says what to write.
    """

    name: str
    """Its name in addresses and in the audit log, such as `google`."""
    title: str
    """What people see on the button."""
    url: str
    """Its issuer URL: `/.well-known/openid-configuration` below it says the rest."""
    client_id: str
    """Our name there."""
    client_secret: str = ""
    """Our secret there; "" for a public client, which has PKCE alone."""
    scope: str = "openid email profile"
    kind: Literal["openid", "github"] = "openid"
    """The protocol that it speaks."""

    registers: Registers = "policy"
    """Who gets an account at the first sign-in: as the policy's `registration` says; everyone who may come; no one."""
    domains: tuple[str, ...] = ()
    """Only people with a verified address of these domains may come; empty for everyone."""
    hosted_domain_claim: str = ""
    """The claim that must also name one of `domains`, such as Google's `hd`. For its own domains the issuer is trusted.
    """
    trusted_for: tuple[str, ...] = ()
    """The domains whose addresses it is believed to have verified, `*` for all. A person with such an address gets the
    account that has the same verified address, and a new account counts as verified.
    """
    roles_claim: str = ""
    """The claim that gives roles: a text or a list of texts."""
    roles: Mapping[str, str] = {}
    """Which role each value of that claim gives. At each sign-in these roles are given and taken; others stay."""
    trusts_second_factor: bool = False
    """Whether its `amr` (`mfa`, `otp`, `hwk`) counts as a second factor here."""
    proves_again: bool = True
    """Whether it can ask a person to prove again who they are, and says when (`auth_time`)."""

    form_post: bool = False
    """Whether it answers by a form from its own pages, as Apple does if it is asked for a name."""
    key_id: str = ""
    """Apple: the id of the key in `client_secret`, a private key (PEM) that signs the secret that is sent."""
    team_id: str = ""
    """Apple: the team that the key belongs to."""

    def __post_init__(self) -> None:
        for field, hint in self.__annotations__.items():
            # Struct checks no types. A text such as "no" would count as True.
            kind = {"str": str, "bool": bool}.get(hint, object)
            if not isinstance(getattr(self, field), kind):
                raise self._wrong(f"{field} must be {'a text' if kind is str else 'true or false'}")
        for field in ("domains", "trusted_for"):
            given = getattr(self, field)
            if isinstance(given, str) or not isinstance(given, Sequence):  # each letter would be one of them
                raise self._wrong(f'{field} is a list: {field}=["example.com"]')
            force_setattr(self, field, tuple(self._domain(each, field) for each in given))
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(f"The name of an issuer is 1 to 32 of a-z, 0-9 and -, and not {self.name!r}.")
        if not self.client_id or not self.client_id.isprintable():
            raise self._wrong("client_id is missing. The issuer shows it where you register your application")
        if not self.title or not self.title.isprintable() or len(self.title) > 60:  # noqa: PLR2004 - fits a button
            raise self._wrong("title is 1 to 60 printable characters")
        check_choice(self.kind, ("openid", "github"), f"kind of the issuer {self.name}")
        check_choice(self.registers, ("policy", "always", "never"), f"registers of the issuer {self.name}")
        if self.kind == "openid":
            self._check_url()
            if "openid" not in self.scope.split():
                raise self._wrong("scope must contain openid")
        self._check_roles()
        if bool(self.roles) != bool(self.roles_claim):
            raise self._wrong('roles_claim and roles belong together: roles_claim="groups", roles={"staff": "editor"}')
        if TENANT in self.url and (self.roles or self.trusted_for or self.domains):
            # Anyone can own a tenant, and write what they like into its tokens.
            raise self._wrong('roles, domains and trusted_for need one tenant: tenant="the id of your directory"')
        if bool(self.key_id) != bool(self.team_id):
            raise self._wrong("key_id and team_id belong together, with the key itself as client_secret")

    def admits(self, identity: Identity) -> bool:
        """Return whether a person may come by this issuer."""
        if not self.domains:
            return True
        if self.hosted_domain_claim and identity.claims.get(self.hosted_domain_claim) not in self.domains:
            return False
        return identity.email_verified and _domain_of(identity.email) in self.domains

    def vouches_for(self, identity: Identity) -> bool:
        """Return whether the issuer says that the address was verified, and is trusted for it."""
        domain = _domain_of(identity.email)
        if not identity.email_verified or not domain:
            return False
        hosted = identity.claims.get(self.hosted_domain_claim) if self.hosted_domain_claim else None
        return ANY in self.trusted_for or domain in self.trusted_for or (hosted is not None and hosted == domain)

    def roles_of(self, identity: Identity) -> frozenset[str]:
        """Return the roles that the claims of a person give."""
        given = identity.claims.get(self.roles_claim)
        values: Sequence[Any] = given if isinstance(given, list) else [given]
        found = (self.roles.get(each) for each in values[:CLAIM_VALUES_AT_MOST] if isinstance(each, str))
        return frozenset(role for role in found if role)

    def _check_roles(self) -> None:
        if not isinstance(self.roles, Mapping):
            raise self._wrong('roles says which role each value gives: roles={"staff": "editor"}')
        for value, role in self.roles.items():
            if not isinstance(value, str) or not isinstance(role, str):
                raise self._wrong(f'roles: {value!r} gives {role!r}. A text gives a role: roles={{"staff": "editor"}}')

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        if not parts.scheme or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise self._wrong("url is the issuer's URL, such as https://accounts.example.com, without a query")
        if parts.scheme != "https" and not is_local(self.url):
            raise self._wrong("url must be https: an attacker on the network could act as the issuer")

    def _domain(self, given: object, field: str) -> str:
        text = given.lower() if isinstance(given, str) else ""
        if (text == ANY and field == "trusted_for") or _DOMAIN.fullmatch(text):
            return text
        raise self._wrong(f"{field}: {given!r} is not a domain, such as example.com")

    def _wrong(self, words: str) -> Misconfigured:
        return Misconfigured(f"The issuer {self.name}: {words}.")

    def __repr__(self) -> str:
        return f"Issuer(name={self.name!r}, url={self.url!r})"


def is_local(url: str) -> bool:
    """Return whether a URL is plain HTTP to this machine, for development."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOCAL


def _domain_of(address: str) -> str:
    try:
        return canonical(address).rpartition("@")[2]
    except InvalidInput:
        return ""
