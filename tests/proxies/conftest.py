"""Each proxy in front of a node, with the file that is shipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.proxies.sites import Site, a_site

# At the root, and below a base path. Where Debian's is installed, each of two versions has one of these.
SITES = [
    ("nginx", "debian or wheel", ""),
    ("nginx", "wheel", "/id"),
    ("caddy", "debian or wheel", ""),
    ("caddy", "wheel", "/id"),
    ("traefik", "wheel", ""),
    ("traefik", "wheel", "/id"),
]


@pytest.fixture(
    scope="module", params=SITES, ids=lambda each: "-".join(filter(None, each)).replace("/", "").replace(" ", "-")
)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    name, source, base = request.param
    # With a base path, preflights pass, so that both are tried.
    more = {"DUTCHDOOR_PASS_PREFLIGHTS": "true"} if base else {}
    with a_site(name, source, base, **more) as made:
        yield made
