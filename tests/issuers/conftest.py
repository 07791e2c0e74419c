"""A faulty issuer, and a server with it. Of the variants of one attack, the first is short, and the others are long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.issuer import FaultyIssuer, House
from tests.standins import Clock

FAMILIES = frozenset({
    "test_no_other_address_links", "test_who_gets_an_account", "test_a_wrong_id_token_signs_no_one_in",
    "test_keys_that_are_none_sign_no_one_in", "test_metadata_leads_to_no_other_scheme",
    "test_what_github_refuses_signs_no_one_in", "test_a_made_up_state_is_refused",
})  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seen: set[str] = set()
    for item in items:
        name = item.name.partition("[")[0]
        if name in FAMILIES and name in seen:
            item.add_marker(pytest.mark.long)
        seen.add(name)


@pytest.fixture
def issuer() -> Iterator[FaultyIssuer]:
    with FaultyIssuer(Clock()) as found:
        yield found


@pytest.fixture
def house(issuer: FaultyIssuer) -> House:
    return House(issuer)
