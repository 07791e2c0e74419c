"""What speaks to each configured issuer. All of them share the connections."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dutchdoor.issuers.apple_key import apple_key
from dutchdoor.issuers.github_provider import GithubProvider
from dutchdoor.issuers.identity import Provider
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.issuers.openid_provider import OpenIdProvider
from dutchdoor.issuers.outbound import Outbound

__all__ = ["make_providers"]


def make_providers(issuers: Iterable[Issuer], clock: Callable[[], float]) -> dict[str, Provider]:
    """Return a provider for each issuer, by its name. Raises `Misconfigured` for a key that cannot sign."""
    outbound = Outbound()
    made: dict[str, Provider] = {}
    for issuer in issuers:
        if issuer.key_id:
            apple_key(issuer)  # a wrong file must stop the start, not the first sign-in
        if issuer.kind == "github":
            made[issuer.name] = GithubProvider(issuer, outbound)
        else:
            made[issuer.name] = OpenIdProvider(issuer, outbound, clock)
    return made
