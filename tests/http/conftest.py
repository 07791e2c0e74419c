"""Worlds for the tests over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.http.world import PROXY, World, a_world


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A server reached over TLS, directly or through a proxy, with limits that are never reached, and no one in it."""
    async with a_world(proxies=[PROXY]) as made:
        yield made
