"""Ada: how she registers and signs in over HTTP."""

from __future__ import annotations

from tests.http.world import Answer, World

from dutchdoor.model.accounts import Credential
from dutchdoor.model.rate_limits import Limits

ADA = "ada@example.com"


def registration(password: str, email: str = ADA) -> dict[str, str]:
    return {"email": email, "password": password}


async def register(world: World, password: str, email: str = ADA) -> Answer:
    return await world.call("POST", "/auth/register", json=registration(password, email))


async def login(world: World, password: str, email: str = ADA, **more: object) -> Answer:
    return await world.call("POST", "/auth/login", json={"email": email, "password": password, "mode": "jwt"}, **more)


async def stored(world: World, email: str = ADA) -> str:
    account = await world.store.account_by_email(email)
    assert account is not None
    credential = await world.store.get(Credential, account.subject, "password", "")
    assert credential is not None
    return credential.proof


def by_account(limits: Limits) -> dict[str, object]:
    return {
        name: getattr(limits, name)
        for name in (
            *("sign_in_by_stranger", "strangers_in_a_row", "sign_in_by_network", "networks_in_a_row"),
            *("sign_in_by_device", "devices_in_a_row"),
        )
    }
