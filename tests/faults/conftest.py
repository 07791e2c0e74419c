"""Clusters that several tests share: a start takes longer than most of them."""

from __future__ import annotations

import pytest
from tests.faults.cluster import cluster
from tests.faults.stores import SERVERS, STORES, stored


@pytest.fixture(scope="module", params=STORES)
def shared(request, tmp_path_factory):
    """Three nodes over each kind of store."""
    with stored(request.param) as place, cluster(tmp_path_factory.mktemp("cluster"), **place) as ours:
        yield ours


@pytest.fixture(params=STORES)
def place(request):
    """Where a cluster of the test's own may keep things."""
    with stored(request.param) as found:
        yield found


@pytest.fixture(params=SERVERS)
def server_place(request):
    """The same, a network away: a store that can be cut off."""
    with stored(request.param) as found:
        yield found
