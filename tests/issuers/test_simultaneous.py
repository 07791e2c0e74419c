"""Races of sign-ins by one identity and by one answer, over two nodes on one database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.issuer import ADA, CLIENT, SECRET, FaultyIssuer
from tests.standins import HOME, Mailbox, endless

from dutchdoor import issuers
from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PASSWORD, PasswordHasher
from dutchdoor.errors import IssuerRefused
from dutchdoor.model.accounts import Credential
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.rate_limits import Limits
from dutchdoor.services.browser import Browser
from dutchdoor.services.issuers import Answer, Came
from dutchdoor.stores.base import Add

BACK = "http://localhost:8000/auth/issuers/corp/callback"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def database(request: pytest.FixtureRequest, tmp_path: Path, patience: None) -> str:
    """The URL of a database for two nodes."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/door.db"
    return str(request.getfixturevalue("postgres_url"))


def nodes(issuer: FaultyIssuer, database: str) -> tuple[Auth, Auth]:
    master = MasterKeys(MasterKey.generate())

    def node() -> Auth:
        corp = issuers.openid(
            name="corp", title="Corp", url=issuer.url, client_id=CLIENT, client_secret=SECRET,
            trusted_for=["example.com"],
        )  # fmt: skip
        return Auth(
            database, master_key=master, hasher=PasswordHasher(CHEAPEST), clock=issuer.clock,
            mail=Mailbox(), issuers=[corp], limits=endless(Limits()),
        )  # fmt: skip

    return node(), node()


async def begin(auth: Auth, issuer: FaultyIssuer) -> tuple[Answer, str]:
    begun = await auth.directory.issuers.begin("corp", redirect_uri=BACK, client=HOME)
    back = issuer.answer(begun.url)
    return Answer(state=back["state"], code=back["code"]), begun.browser


async def finish(auth: Auth, answer: Answer, secret: str) -> Any:
    try:
        return await auth.directory.issuers.finish(
            "corp", answer, Browser(HOME), secret=secret, mode="session", redirect_uri=BACK
        )
    except IssuerRefused as refusal:
        return refusal


async def test_of_64_tries_with_one_answer_one_succeeds(issuer: FaultyIssuer, database: str) -> None:
    """Over two nodes, one session starts, and the issuer sees the code once."""
    one, two = nodes(issuer, database)
    async with one, two:
        answer, browser = await begin(one, issuer)
        came = await asyncio.gather(*[finish((one, two)[n % 2], answer, browser) for n in range(64)])
        assert sum(isinstance(each, Came) for each in came) == 1
        assert len(issuer.forms) == 1
        account = await one.store.account_by_email(ADA)
        assert account is not None
        assert len(await one.store.sessions_of(account.subject)) == 1


async def test_two_first_sign_ins_at_once_create_one_account(issuer: FaultyIssuer, database: str) -> None:
    """Eight browsers of one person who was never here, over two nodes: one account, one identity, eight sessions."""
    one, two = nodes(issuer, database)
    async with one, two:
        flows = [await begin((one, two)[n % 2], issuer) for n in range(8)]
        came = await asyncio.gather(*[finish((one, two)[n % 2], *flow) for n, flow in enumerate(flows)])
        assert all(isinstance(each, Came) for each in came), came
        account = await one.store.account_by_email(ADA)
        assert account is not None
        assert {each.signed_in.account.subject for each in came} == {account.subject}
        assert len(await one.directory.identities.of(account.subject)) == 1
        assert len(await one.store.sessions_of(account.subject)) == 8


async def test_two_that_unlink_at_once_leave_a_way_in(issuer: FaultyIssuer, database: str) -> None:
    """Of two identities and no password, one stays, whichever calls come together."""
    one, two = nodes(issuer, database)
    async with one, two:
        answer, browser = await begin(one, issuer)
        came = await finish(one, answer, browser)
        account = came.signed_in.account
        issuer.person |= {"sub": "ada-2"}
        begun = await one.directory.issuers.begin(
            "corp",
            redirect_uri=BACK,
            client=HOME,
            purpose="link",
            account=account,
            session_id=came.signed_in.session.id,
        )
        back = issuer.answer(begun.url)
        assert isinstance(await finish(one, Answer(state=back["state"], code=back["code"]), begun.browser), Came)
        linked = await one.directory.identities.of(account.subject)
        assert len(linked) == 2
        await asyncio.gather(
            one.directory.identities.unlink(account, linked[0].id, client=HOME),
            two.directory.identities.unlink(account, linked[1].id, client=HOME),
            return_exceptions=True,
        )
        assert len(await one.directory.identities.of(account.subject)) == 1


async def test_a_sign_in_that_is_under_way_starts_nothing_by_an_unlinked_identity(
    issuer: FaultyIssuer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity that is unlinked between its proof and the start of the session starts none for the former owner."""
    one, two = nodes(issuer, database)
    async with one, two:
        account = (await finish(one, *await begin(one, issuer))).signed_in.account
        password = Credential(subject=account.subject, method=PASSWORD, handle="", proof="", created_at=issuer.clock())
        await one.store.commit(Add(password))
        (linked,) = await one.directory.identities.of(account.subject)
        issuer.person["email"] = "else@elsewhere.example"
        start = one.directory.sign_in.begin

        async def late(*given: Any, **more: Any) -> Any:
            monkeypatch.undo()
            await two.directory.identities.unlink(account, linked.id, client=HOME)
            return await start(*given, **more)

        monkeypatch.setattr(one.directory.sign_in, "begin", late)
        came = await finish(one, *await begin(one, issuer))
        assert await one.store.sessions_of(account.subject, limit=9) == []
        assert came.signed_in.account.subject != account.subject
