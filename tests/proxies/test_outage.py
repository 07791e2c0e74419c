"""A database that is away, seen through each proxy."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.faults.proxy import proxy as link_to
from tests.proxies.sites import a_site
from tests.server.running import eventually

pytestmark = [pytest.mark.long]


@pytest.mark.parametrize("name", ["nginx", "caddy", "traefik"])
def test_f29_an_outage_signs_no_one_out(name: str, postgres_url: str) -> None:
    """While the database is away, the answer is 503 with Retry-After, and never 401: nothing reaches the application,
    no cookie is cleared, and with the database the same proofs are valid again.
    """
    database = urlsplit(postgres_url)
    with link_to("127.0.0.1", database.port or 5432) as link:
        netloc = database.netloc.rpartition(":")[0] + f":{link.port}"
        url = urlunsplit(database._replace(netloc=netloc))
        with a_site(name, "wheel", DUTCHDOOR_DATABASE=url) as site:
            clients = [site.signed_in(mode)[0] for mode in ("session", "hybrid")]
            link.refuse()
            for client in clients:
                client.comes_again = False
                answer = client.get("/app/x", headers={"sec-fetch-mode": "navigate"})
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) >= 1
                assert "set-cookie" not in answer.headers
                assert answer.json()["code"] == "unavailable"
            assert site.seen == []
            link.heal()
            for client in clients:
                eventually(lambda client=client: client.get("/app/x").status_code == 200)  # type: ignore[misc]
