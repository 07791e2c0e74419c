"""Export: everything of one account, nothing of another, and no secret."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.services.house import ANN, House
from tests.standins import HOME, PASSWORD, THIEF, Clock, Mailbox, directory, opened

from dutchdoor.errors import NotFound, RateLimited, WrongCredentials
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.services import export as exporting
from dutchdoor.services.browser import Browser


async def test_a_copy_has_all_of_the_account_and_nothing_of_another(tmp_path: Path, monkeypatch) -> None:
    """A21: sessions, what the application keeps for them, events and links are the account's own, newest first; where
    there are more events than one copy holds, it says so.
    """
    async with opened("memory", tmp_path, Clock()) as over:
        house = House(directory(over, Mailbox()), Mailbox())
        for email in (ANN, "bob@example.com"):
            await house.clean.registration.register(email, PASSWORD, email[:3], client=HOME)
        mine = await house.sign_in()
        bobs, _ = await house.clean.sign_in.by_password("bob@example.com", PASSWORD, Browser(THIEF), mode="session")
        for signed_in in (mine, bobs):
            assert signed_in.session is not None
            data = await over.data.of_session(signed_in.session.id, signed_in.session.subject)
            data["basket"] = [signed_in.session.subject]
            await over.data.save(data)
        with pytest.raises(WrongCredentials):
            await house.clean.sign_in.by_password(ANN, "wrong wrong wrong 1", Browser(HOME), mode="jwt")
        await house.clean.email_change.ask(await house.ann(), "ann@new.example", client=HOME)
        await house.posted()
        ann = await house.ann()
        house.clock.forward(1)  # type: ignore[attr-defined]
        copy = await house.clean.export.collect(ann.subject, client=HOME)
        assert mine.session is not None
        assert copy.account == ann
        assert [session.id for session in copy.sessions] == [mine.session.id]
        assert msgspec.json.decode(copy.data[mine.session.id]) == {"basket": [ann.subject]}
        assert len(copy.data) == 1
        assert [link.purpose for link in copy.links] == ["change_email"]
        assert [credential.method for credential in copy.credentials] == ["password"]
        assert copy.complete
        assert {event.subject for event in copy.events} == {ann.subject}
        assert copy.events[0].name == "account_exported"
        assert [event.at for event in copy.events] == sorted([event.at for event in copy.events], reverse=True)
        monkeypatch.setattr(exporting, "EVENTS_AT_MOST", 4)
        monkeypatch.setattr(exporting, "_PAGE", 2)
        short = await house.clean.export.collect(ann.subject, client=HOME)
        assert (len(short.events), short.complete) == (4, False)
        with pytest.raises(NotFound):
            await house.clean.export.collect("nobody", client=HOME)
        bounded = house.over(house.store, limits=DEFAULT_LIMITS)
        for _ in range(5):
            await bounded.export.collect(ann.subject, client=HOME)
        with pytest.raises(RateLimited):
            await bounded.export.collect(ann.subject, client=HOME)
        for made in [*house.spoiled, house.clean]:
            await made.close()
