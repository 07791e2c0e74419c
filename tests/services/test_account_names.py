"""A name is one line of plain text."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.services.house import ANN, House
from tests.standins import HOME, PASSWORD

from dutchdoor.errors import InvalidInput, InvalidToken
from dutchdoor.model.http_client import Device
from dutchdoor.services.browser import Browser


@pytest.mark.parametrize("name", ["x\0y", "x\x1b[2J", "x\u202ey", "x\ny", "x\x85", "x\u200by", "x\ud800", "x" * 201])
async def test_a05_a_name_is_one_line_of_text_by_every_way(house: House, name: str) -> None:
    """NUL, ESC, bidirectional controls and what is invisible are refused in a name, by whichever way it comes."""
    setup = await house.clean.admin.offer_setup()
    assert setup is not None
    for make in (
        house.clean.registration.register("bob@example.com", PASSWORD, name, client=HOME),
        house.clean.admin.create("bob@example.com", name=name, client=HOME, actor="root"),
        house.clean.admin.adopt("bob@example.com", None, name=name, client=HOME),
        house.clean.admin.set_up(setup.text(), "bob@example.com", PASSWORD, name, client=HOME),
    ):
        with pytest.raises(InvalidInput) as refused:
            await make
        assert refused.value.field == "name"
    assert await house.store.account_by_email("bob@example.com") is None
    assert not house.mailbox.mails


@pytest.mark.parametrize(
    "name", ["", "Ada L.", "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627", "Zo\u00eb \U0001f469", " Ada "]
)
async def test_a05_names_of_people_pass(house: House, name: str) -> None:
    """Names in any script are kept as they are, joiners included, without spaces around."""
    made = await house.clean.admin.create("bob@example.com", name=name, client=HOME, actor="root")
    assert made.name == name.strip()


async def test_a05_what_a_client_says_of_itself_is_shown_in_plain_text(house: House) -> None:
    """A device reader or a client id cannot bring control characters into sessions and events."""
    odd = replace(HOME, devices=Device(name="Fire\x1b[2Jfox\u202e"), user_agent="x")
    signed_in, _ = await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(odd), mode="hybrid")
    assert signed_in.session is not None
    assert signed_in.session.device == "Fire [2Jfox "
    with pytest.raises(InvalidToken):
        await house.clean.authority.refresh(signed_in.refresh_token, odd, client_id="x\x1b\u202ey")
    events = await house.store.events(limit=100)
    assert all((each.detail + each.device + each.client_id).isprintable() for each in events)
    assert "x  y" in {each.detail for each in events}
