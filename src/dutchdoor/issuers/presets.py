"""The issuers that have a name here: a table of what is known of each, and no code.

`trusted_for` is as narrow as what each issuer documents. Google runs the mailboxes of gmail.com, and those of a
workspace are named by `hd`. Microsoft writes addresses that no one has verified. Apple, GitHub and GitLab mail a link
once, and keep the address when it changes its owner: they are trusted for the domains that they run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.jose.id_token import TENANT
from dutchdoor.model.choices import near
from dutchdoor.model.spelling import spelt

__all__ = ["PRESETS", "Preset"]


class Preset(Struct, frozen=True):
    """What is known of one issuer. Call it with `client_id`, `client_secret` and whatever else `Issuer` takes."""

    values: Mapping[str, Any]
    needs: Mapping[str, str] = {}
    """The values that it has none of, with an example of each."""

    def __str__(self) -> str:
        return str(self.values.get("name", "openid"))

    @spelt
    def __call__(self, *, client_id: str, client_secret: str = "", **more: Any) -> Issuer:
        """Return the issuer. Raises `Misconfigured` for a name or a value that is not acceptable."""
        given = {**self.values, "client_id": client_id, "client_secret": client_secret, **more}
        named = f"The issuer {given['name']}" if given.get("name") else "The issuer"
        unknown = sorted(given.keys() - set(Issuer.__struct_fields__) - {"tenant"})
        if unknown:
            known = (*Issuer.__struct_fields__, "tenant")
            meant = near(unknown[0], known)
            hint = f" Did you mean {meant}?" if meant else ""
            raise Misconfigured(f"{named}: {unknown[0]} is not known. It takes {', '.join(known)}.{hint}")
        missing = next((each for each in self.needs if not given.get(each)), None)
        if missing is not None:
            raise Misconfigured(f"{named} needs {missing}, such as {self.needs[missing]}.")
        tenant = given.pop("tenant", "")
        if not isinstance(tenant, str) or not isinstance(given.get("url", ""), str):
            raise Misconfigured(f"{named}: {'url' if isinstance(tenant, str) else 'tenant'} must be a text.")
        if tenant and TENANT not in given.get("url", ""):
            raise Misconfigured(f"{named}: tenant has no place in its URL. Leave it out, or write {TENANT} into url.")
        if tenant:
            given["url"] = given["url"].replace(TENANT, tenant)
        return Issuer(**given)


PRESETS: Final[Mapping[str, Preset]] = {
    "google": Preset({
        "name": "google",
        "title": "Google",
        "url": "https://accounts.google.com",
        "hosted_domain_claim": "hd",
        "trusted_for": ("gmail.com", "googlemail.com"),
        "proves_again": False,  # it ignores prompt=login
    }),
    "microsoft": Preset({
        "name": "microsoft",
        "title": "Microsoft",
        # Of every tenant; `tenant` names one.
        "url": "https://login.microsoftonline.com/{tenantid}/v2.0",
    }),
    "apple": Preset(
        {
            "name": "apple",
            "title": "Apple",
            "url": "https://appleid.apple.com",
            "scope": "openid email name",
            "form_post": True,
            "trusted_for": ("privaterelay.appleid.com", "icloud.com", "me.com", "mac.com"),
            "proves_again": False,
        },
        {"key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "client_secret": "the text of the key file AuthKey_....p8"},
    ),
    "github": Preset(
        {
            "name": "github",
            "title": "GitHub",
            "url": "https://github.com",
            "kind": "github",
            "scope": "user:email",
            "proves_again": False,
        },
        {"client_secret": "the one that GitHub shows once"},
    ),
    "gitlab": Preset({"name": "gitlab", "title": "GitLab", "url": "https://gitlab.com"}),
    "keycloak": Preset(
        {"name": "keycloak", "title": "Keycloak"}, {"url": "https://keycloak.example.com/realms/staff"}
    ),
    "openid": Preset(
        {}, {"name": "company", "title": "Example company", "url": "https://login.example.com"}
    ),
}  # fmt: skip
