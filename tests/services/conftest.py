"""Each kind of store, an authority over it, and an account of Ann in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.services.house import ANN, House
from tests.standins import HOME, PASSWORD, Clock, Mailbox, directory, make, opened

from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Store


@pytest.fixture(params=[pytest.param("memory", marks=pytest.mark.long), "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(kind: str, tmp_path: Path) -> AsyncIterator[Store]:
    made = make(kind, tmp_path)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def over(kind: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Authority]:
    async with opened(kind, tmp_path, clock) as made:
        yield made


@pytest.fixture
async def house(kind: str, tmp_path: Path) -> AsyncIterator[House]:
    async with opened(kind, tmp_path, Clock()) as over:
        mailbox = Mailbox()
        house = House(directory(over, mailbox), mailbox)
        await house.clean.registration.register(ANN, PASSWORD, "Ann", client=HOME)
        yield house
        for made in [*house.spoiled, house.clean]:
            await made.close()
