"""Clusters that tests share: a start takes longer than most of them."""

from __future__ import annotations

import pytest
from tests.faults.cluster import cluster
from tests.faults.stores import SERVERS, STORES, stored

EACH = [*(pytest.param(kind, marks=pytest.mark.long) for kind in STORES[:-1]), STORES[-1]]
"""Each kind of store. A short run has the one that has most parts."""


@pytest.fixture(autouse=True)
def nodes_beside_are_patient(patience):
    """The nodes in this process, which look at what the others did, wait for a busy machine's database."""


def running(kind, factory):
    with stored(kind) as place, cluster(factory.mktemp(kind), **place) as ours:
        yield ours


def whole(ours):
    """What a test has broken, whether it passed or not, is whole again for the next."""
    yield ours
    ours.heal()
    for node in ours.nodes:
        if node.process is None or node.process.poll() is not None:
            node.kill()
            node.start()


@pytest.fixture(scope="session")
def one_kind(tmp_path_factory):
    yield from running(STORES[-1], tmp_path_factory)


@pytest.fixture(scope="session", params=EACH)
def each_kind(request, tmp_path_factory):
    if request.param == STORES[-1]:
        yield request.getfixturevalue("one_kind")
    else:
        yield from running(request.param, tmp_path_factory)


@pytest.fixture
def shared(each_kind):
    """Three nodes over each kind of store."""
    yield from whole(each_kind)


@pytest.fixture
def several(one_kind):
    """Three nodes over the store that has most parts: where the store makes no difference, or a test takes long."""
    yield from whole(one_kind)


@pytest.fixture(params=STORES)
def place(request):
    """Where a cluster of the test's own may keep things: each kind of store."""
    with stored(request.param) as found:
        yield found


@pytest.fixture(params=SERVERS)
def server_place(request):
    """The same, a network away: a store that can be cut off."""
    with stored(request.param) as found:
        yield found


@pytest.fixture
def full_place():
    """The same, the one that has most parts."""
    with stored(STORES[-1]) as found:
        yield found
