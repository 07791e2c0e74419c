"""Races: what is called again, how often, and what ends it."""

from __future__ import annotations

import pytest

from dutchdoor.errors import Conflict, NotFound, Unavailable
from dutchdoor.services.retry import retried


class Racing:
    """A verb that loses so many races, and then does what it does."""

    def __init__(self, losses: int) -> None:
        self.losses, self.calls = losses, list[tuple[str, int]]()

    @retried(3, "racing")
    async def run(self, word: str, *, number: int) -> str:
        self.calls.append((word, number))
        if len(self.calls) <= self.losses:
            raise Conflict("another call was first")
        if word == "absent":
            raise NotFound("no such word")
        return word * number


@pytest.mark.parametrize("losses", [0, 1, 2])
async def test_a_verb_that_loses_is_called_again_with_what_it_was_given(losses: int) -> None:
    """Each attempt begins with the arguments of the call, and the first that wins answers it."""
    racing = Racing(losses)
    assert await racing.run("ab", number=2) == "abab"
    assert racing.calls == [("ab", 2)] * (losses + 1)


async def test_a_verb_that_only_loses_is_unavailable() -> None:
    """After so many attempts it raises `Unavailable`, which says what lost."""
    racing = Racing(9)
    with pytest.raises(Unavailable) as raised:
        await racing.run("ab", number=2)
    assert raised.value.reason == "racing lost too many races: other requests changed the same records"
    assert len(racing.calls) == 3


async def test_no_other_error_is_tried_again() -> None:
    """Whatever is not a lost race leaves at once."""
    racing = Racing(0)
    with pytest.raises(NotFound):
        await racing.run("absent", number=1)
    assert len(racing.calls) == 1
