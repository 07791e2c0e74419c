"""Which letters a mailbox gets, and what their writing says to others."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.services.house import ANN, THIRD_PASSWORD, House
from tests.standins import (
    HOME,
    OTHER_PASSWORD,
    PASSWORD,
    THIEF,
    Clock,
    Mailbox,
    Watched,
    authority,
    directory,
    endless,
    opened,
)

from dutchdoor.errors import InvalidToken, RateLimited, Unavailable
from dutchdoor.mail import Mail
from dutchdoor.mail.letters import Letters
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limits
from dutchdoor.services.browser import Browser
from dutchdoor.services.ongoing import Ongoing


async def test_a_proven_theft_is_reported_to_the_owner(house: House) -> None:
    """C18, I-07: when a copied refresh token is found out the owner gets one message, to the address of the account."""
    await house.verify()
    hybrid = await house.sign_in(mode="hybrid")
    assert isinstance(house.clock, Clock)
    house.clock.forward(900)
    await house.clean.authority.refresh(hybrid.refresh_token, HOME)
    house.clock.forward(900)
    for _ in range(3):
        with pytest.raises(InvalidToken):
            await house.clean.authority.refresh(hybrid.refresh_token, THIEF)
    await house.posted()
    assert [mail.to for mail in house.mailbox.mails] == [ANN]
    assert await house.events("refresh_theft") == 1


async def test_c21_notices_to_one_mailbox_are_few(house: House) -> None:
    """A thief who has the password provokes thefts and signs in from new places in a loop: of each kind of notice three
    go out at once, and then one in ten minutes. The notice of a changed password is not used up by the others.
    """
    through = house.over(house.store, limits=DEFAULT_LIMITS)
    await house.verify()
    assert isinstance(house.clock, Clock)
    copied = [(await through.sign_in.by_password(ANN, PASSWORD, Browser(HOME), mode="hybrid"))[0] for _ in range(12)]
    for n in range(8):
        await through.sign_in.by_password(
            ANN, PASSWORD, Browser(replace(HOME, address=f"203.0.113.{n}")), mode="session"
        )
    await house.posted()
    for renewed in range(2):
        house.clock.forward(900)
        for signed_in in copied:
            if not renewed:
                await through.authority.refresh(signed_in.refresh_token, HOME)
                continue
            with pytest.raises(InvalidToken):
                await through.authority.refresh(signed_in.refresh_token, THIEF)
    await through.recovery.change_password(Ongoing(await house.ann(), None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
    await house.posted()
    assert Counter(mail.subject.partition(" - ")[0] for mail in house.mailbox.mails) == {
        "New sign-in to your account": 3,
        "Someone else may have used your sign-in": 3,
        "Your password was changed": 1,
    }


async def test_c21_an_address_that_no_one_verified_gets_no_notice(house: House) -> None:
    """A stranger who registers another person's address cannot make the server write to it: no notice goes out to an
    address that was never verified, and the link of a reset verifies it.
    """
    signed_in = await house.sign_in(mode="hybrid")
    assert isinstance(house.clock, Clock)
    house.clock.forward(900)
    await house.clean.authority.refresh(signed_in.refresh_token, HOME)
    house.clock.forward(900)
    with pytest.raises(InvalidToken):
        await house.clean.authority.refresh(signed_in.refresh_token, THIEF)
    await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(THIEF), mode="session")
    await house.clean.recovery.change_password(Ongoing(await house.ann(), None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
    await house.posted()
    assert house.mailbox.mails == []
    await house.clean.recovery.reset_password(await house.reset_token(), THIRD_PASSWORD, client=HOME)
    await house.posted()
    assert ["password was changed" in mail.subject for mail in house.mailbox.mails] == [False, True]


@pytest.mark.parametrize("verified", [False, True], ids=["open", "by mail"])
async def test_c21_tags_of_a_mailbox_share_its_letters(kind: str, tmp_path: Path, verified: bool) -> None:
    """Accounts for a hundred tags of one mailbox bring it no more letters than one: of registering and of resets three
    at once. The plain address, and a tag that its owner has verified, still get their reset.
    """
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, require_verified_email=verified)) as over:
        mailbox = Mailbox()
        limits = replace(endless(Limits()), register_by_mailbox=DEFAULT_LIMITS.register_by_mailbox)
        limits = replace(limits, reset_by_mailbox=DEFAULT_LIMITS.reset_by_mailbox)
        house = House(directory(over, mailbox, limits=limits), mailbox)
        tags = [f"ann+{n}@example.com" for n in range(100)]
        for tag in tags:
            with contextlib.suppress(RateLimited):
                await house.clean.registration.register(tag, PASSWORD, "", client=HOME)
        await house.posted()
        assert len(mailbox.mails) == (3 if verified else 0)
        for tag in tags:
            await house.clean.recovery.forget_password(tag, client=HOME)
        await house.posted()
        assert len(mailbox.mails) == (6 if verified else 3)
        for address in (ANN, "ann+own@example.com"):
            await house.clean.admin.create(address, client=HOME, actor="cli", password=PASSWORD)
            await house.clean.recovery.forget_password(address, client=HOME)
            await house.posted()
            assert mailbox.mails[-1].to == address
        await house.clean.close()


# What tells whether there is an account


class Watching(Letters):
    """Writes letters, and keeps which and whether they were written in the thread of the loop."""

    def __init__(self) -> None:
        super().__init__(product="Example", public_url="https://login.example.com")
        self.written: list[tuple[str, bool]] = []

    def _write(self, letter: Any, to: str, language: str, link: str, **values: Any) -> Mail:
        self.written.append((letter.subject, threading.current_thread() is threading.main_thread()))
        return super()._write(letter, to, language, link, **values)


@pytest.mark.parametrize("what", ["forgot", "register"])
async def test_c10_the_work_after_an_answer_is_the_same(kind: str, tmp_path: Path, what: str) -> None:
    """After a reset was asked for, or an address was registered where addresses are verified, the store gets the same
    calls and one letter is written, whether there is an account or not; and never in the thread that answers others.
    """
    async with opened(kind, tmp_path, Clock(), replace(STANDARD, require_verified_email=True)) as over:
        watched = Watched(over.store)
        mailbox, letters = Mailbox(), Watching()
        house = House(directory(authority(watched, over.clock, over.policy), mailbox), mailbox)  # type: ignore[arg-type]
        house.clean.post.letters = letters
        await house.clean.admin.create("known@example.com", client=HOME, actor="cli", password=PASSWORD)
        gone = await house.clean.admin.create("disabled@example.com", client=HOME, actor="cli", password=PASSWORD)
        await house.clean.admin.disable(gone.subject, client=HOME, actor="cli")
        seen = []
        for email in ("known@example.com", "disabled@example.com", "nobody@example.com"):
            watched.calls.clear()
            letters.written.clear()
            if what == "forgot":
                await house.clean.recovery.forget_password(email, client=HOME)
            else:
                await house.clean.registration.register(email, OTHER_PASSWORD, "", client=HOME)
            await house.posted()
            seen.append(([call.partition(" ")[0] for call in watched.calls], [where for _, where in letters.written]))
        assert seen == seen[:1] * 3
        assert seen[0][1] == [False]
        assert "commit" in seen[0][0]
        await house.clean.close()
        if what == "forgot":
            assert [mail.to for mail in mailbox.mails] == ["known@example.com"]
            assert (await over.store.counts())["one_time_tokens"] == 2, "one of the account, and one of no account"


async def test_c10_every_letter_is_written_in_a_thread(house: House) -> None:
    """Notices too are written where nothing else waits for them."""
    letters = house.clean.post.letters = Watching()
    await house.verify()
    await house.sign_in()
    await house.clean.sign_in.by_password(ANN, PASSWORD, Browser(THIEF), mode="session")
    await house.clean.recovery.change_password(Ongoing(await house.ann(), None, HOME, "app"), PASSWORD, OTHER_PASSWORD)
    await house.reset_token()
    await house.posted()
    subjects = ("Choose a new password", "New sign-in to your account", "Your password was changed")
    assert sorted(letters.written) == [(subject, False) for subject in subjects]


class Undeliverable:
    """A transport that cannot send."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send(self, message: Mail) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            Unavailable("mail not sent: mail.test port 465: Connection refused"),
            "mail.test port 465: Connection refused",
        ),
        (AttributeError(f"no {ANN}"), "AttributeError at "),
    ],
)
async def test_p14_a_letter_that_was_not_sent_leaves_its_reason_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    """A letter after an answer that cannot be sent is a line in the log with the transport's reason; a mistake of our
    own has its place there, and no text that may quote an address.
    """
    house.clean.post.transport = Undeliverable(error)
    await house.clean.recovery.forget_password(ANN, client=HOME)
    await asyncio.gather(*house.clean.post._posting)
    (line,) = caplog.messages
    assert line.startswith(f"mail was not sent: {said}")
    assert ("test_letters_of_accounts.py:" in line) is isinstance(error, AttributeError)
    assert ANN not in line
