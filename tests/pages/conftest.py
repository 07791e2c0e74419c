"""The servers whose pages are looked at, each started once for a file of tests, by the first that needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from tests.pages.every import HOUSES
from tests.pages.house import House, open_house


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], House]]:
    """Give a server by its name in `HOUSES`."""
    with ExitStack() as stack:
        opened: dict[str, House] = {}

        def house(name: str = "open") -> House:
            if name not in opened:
                opened[name] = stack.enter_context(open_house(tmp_path_factory.mktemp(name), **HOUSES[name]))
            return opened[name]

        yield house


@pytest.fixture(scope="session")
def long_form(pytestconfig: pytest.Config) -> bool:
    """Whether the long tests run too. Then one visit to a page looks at more of it, in place of a second visit."""
    return "not long" not in pytestconfig.option.markexpr
