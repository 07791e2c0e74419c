"""`dutchdoor user identities`."""

from __future__ import annotations

from tests.running import Run
from tests.server.conftest import asynchronously, auth_here, made
from tests.standins import HOME

from dutchdoor import issuers
from dutchdoor.issuers.identity import Identity


def with_identity(email: str, subject: str, shown: str) -> None:
    async def link() -> None:
        async with auth_here() as auth:
            account = await auth.store.account_by_email(email)
            assert account is not None
            corp = issuers.openid(name="corp", title="Corp", url="https://corp.example", client_id="us")
            named = Identity(issuer=corp.url, subject=subject, email=shown)
            await auth.directory.identities.link(account, "", named, corp, client=HOME)

    asynchronously(link())


def test_an_operator_lists_and_unlinks_a_login(run: Run) -> None:
    """It is listed with what the person has there, and unlinked by its id."""
    made(run)
    assert "no log-in at another issuer" in run("user", "identities", "list", "ada@example.com").out
    with_identity("ada@example.com", "1", "ada@corp.example")
    with_identity("ada@example.com", "2", "countess@corp.example")
    listed = run("user", "identities", "list", "ada@example.com")
    assert "corp" in listed.out and "countess@corp.example" in listed.out
    first, second = run("user", "identities", "list", "ada@example.com", "--json").json["identities"]
    unlink = ("user", "identities", "unlink", "ada@example.com")
    assert "Unlinked" in run(*unlink, first["id"]).out
    assert run(*unlink, first["id"]).code == 1
    assert run(*unlink, second["id"], "--json").json["unlinked"] == second["id"]
    assert run("user", "identities", "list", "ada@example.com", "--json").json["identities"] == []
