"""A browser that binds its session, over three real nodes with one PostgreSQL and one Valkey: nodes are killed, answers
are lost and the database goes away. The owner is served or asked to wait, and never signed out.
"""

from __future__ import annotations

import asyncio
import itertools
import json as jsonlib
import random
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.faults.cluster import Cluster, Node, cluster
from tests.faults.stores import stored
from tests.http.world import Answer
from tests.softbrowser import SoftBrowser

from dutchdoor.model.bindings import Binding

pytestmark = [pytest.mark.long]

PASSWORD = "correct horse battery staple 7"
REGISTER, REFRESH = "/auth/device-binding", "/auth/device-binding/refresh"
NUMBERS = itertools.count()
BOUND = "__Host-dd_bound"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with stored("valkey") as place, cluster(tmp_path_factory.mktemp("bound"), **place) as ours:
        yield ours


class Owner(SoftBrowser[Answer]):
    """A browser behind a balancer, which takes the next node where one does not accept a connection."""

    def __init__(self, ours: Cluster, rng: random.Random) -> None:
        self.ours, self.rng = ours, rng
        super().__init__(self.over, ours.public, clock=time.time)
        self.next: list[Node] = []
        """Where the next requests go; then anywhere."""
        self.who = {"email": f"person{next(NUMBERS)}@example.com", "password": PASSWORD}

    async def over(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        nodes = self.rng.sample(self.ours.nodes, 3)
        first = [self.next.pop(0)] if self.next else []
        error: OSError = ConnectionRefusedError("no node")
        for node in [*first, *nodes]:
            wire = node.wire()
            # It sets the length and the type by itself.
            sent = [each for each in headers if each[0] not in {"content-length", "content-type"}]
            try:
                answer = await wire.send(method, path, jsonlib.loads(body) if body else None, headers=sent)
            except (ConnectionResetError, EOFError) as lost:  # it may have been done: no balancer sends it again
                error = ConnectionResetError(str(lost))
                if node.process is not None:
                    raise error from None
            except (OSError, TimeoutError) as refused:
                error = OSError(str(refused))
            else:
                return Answer(answer.status, answer.headers, answer.raw)
            finally:
                wire.close()
        raise error

    def outlives_its_cookie(self) -> None:
        """Lose the bound cookie, as a browser does when its time is over."""
        self.jar.pop(BOUND, None)

    async def signs_in(self) -> Answer:
        while (answer := await self.fetch("POST", "/auth/login", json={**self.who, "mode": "session"})).status == 503:
            await asyncio.sleep(0.1)  # a busy machine's database was slow
        assert answer.status == 200, answer
        return answer

    async def is_served(self) -> bool:
        """Ask until there is an answer. Fails where the owner is refused."""
        for _ in range(240):
            try:
                answer = await self.fetch("GET", "/auth/me")
            except OSError:
                continue
            if answer.status == 200:
                return True
            unproved = answer.status == 401 and answer.code == "device_proof_required"
            # The browser could not ask for its cookie, and says so: it is the next request that is served.
            assert answer.status == 503 or (unproved and self.registered), (answer, self.events)
            await asyncio.sleep(0.25)
        return False


@pytest.fixture
async def owner(shared: Cluster) -> AsyncIterator[Owner]:
    owner = Owner(shared, random.Random(7))
    wire = shared.nodes[0].wire()
    assert (await wire.served("POST", "/auth/register", owner.who)).status in {201, 202}  # a 503 is tried again
    wire.close()
    yield owner
    shared.heal()
    for node in shared.nodes:
        if node.process is None or node.process.poll() is not None:
            node.kill()
            node.start()


async def bound(owner: Owner) -> None:
    await owner.signs_in()
    for _ in range(3):
        assert await owner.is_served()


async def state_of(owner: Owner) -> str:
    """What the database says of the key."""
    async with owner.ours.beside() as node:
        found = await node.store.session(next(iter(owner.registered)))
    assert found is not None
    return Binding.parse(found[0].binding or "").state


async def test_l61_any_node_takes_what_another_has_made(owner: Owner) -> None:
    """The offer of the first node, the key at the second, its challenge at the third, its proof at the first."""
    one, two, three = owner.ours.nodes
    owner.next = [one, two, one, three, one]
    await bound(owner)
    for _ in range(3):
        owner.outlives_its_cookie()
        assert await owner.is_served()
    assert await state_of(owner) == "confirmed"


async def test_l62_a_node_is_killed_between_challenge_and_proof(owner: Owner) -> None:
    """`kill -9` of the node that has given the challenge: another one takes the proof, and nothing is asked twice."""
    await bound(owner)
    left = list(owner.ours.nodes)
    while left:
        node = left[0]
        owner.outlives_its_cookie()

        async def killing(
            method: str, path: str, headers: list[tuple[str, str]], body: bytes, node: Node = node
        ) -> Answer:
            if path == REFRESH:
                owner.next = [node]
            answer = await owner.over(method, path, headers, body)
            if path == REFRESH and answer.status == 403:
                await asyncio.to_thread(node.kill)
                owner._send = owner.over
            return answer

        owner._send, before = killing, len(owner.sent)
        assert await owner.is_served()
        said = [each[1:] for each in owner.sent[before:]]
        if node.process is None:
            await asyncio.to_thread(node.start)
        if 503 in {status for _, status in said}:  # a busy machine's database was slow: once more
            continue
        assert said == [(REFRESH, 403), (REFRESH, 200), ("/auth/me", 200)]
        left.remove(node)


@pytest.mark.parametrize("path", [REGISTER, REFRESH])
@pytest.mark.parametrize("after", [0, 120, 700])
async def test_l63_a_node_dies_as_it_answers(owner: Owner, path: str, after: int) -> None:
    """The answer to a registration or a refresh is cut after so many bytes. The owner is served."""
    node = owner.ours.nodes[1]

    async def cutting(method: str, sent: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        if sent == path and any(name == "secure-session-response" for name, _ in headers):
            owner._send = owner.over
            owner.next = [node]
            node.link.down.cut(after=after, once=True)
        return await owner.over(method, sent, headers, body)

    owner._send = cutting
    await owner.signs_in()
    for _ in range(4):
        assert await owner.is_served()
        owner.outlives_its_cookie()
    if path == REFRESH:  # else it is offered anew after half a minute
        assert await state_of(owner) == "confirmed"


async def test_l64_the_database_is_away(owner: Owner) -> None:
    """The browser is answered 503, and forgets nothing: all is well when it is back."""
    await bound(owner)
    owner.outlives_its_cookie()
    for link in owner.ours.to_store():
        link.refuse()
    before = len(owner.sent)
    for _ in range(4):
        await owner.fetch("GET", "/auth/me")
    assert {status for _, path, status in owner.sent[before:] if path == REFRESH} == {503}
    assert owner.registered
    owner.ours.heal()
    assert await owner.is_served()
    assert not [event for event in owner.events if event.startswith("forgot")]


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.soak)])
async def test_l65_nodes_are_killed_at_any_moment(owner: Owner, rounds: int) -> None:
    """While nodes are killed and started at random, the owner is served each time, still signed in."""
    rng = random.Random(rounds)
    await bound(owner)
    for _ in range(rounds):
        node = rng.choice(owner.ours.nodes)
        owner.outlives_its_cookie()

        async def killer(node: Node = node) -> None:
            await asyncio.sleep(rng.random() * 0.05)
            await asyncio.to_thread(node.kill)

        _, served = await asyncio.gather(killer(), owner.is_served())
        assert served
        await asyncio.to_thread(node.start)
    assert not [event for event in owner.events if event.startswith("forgot")]
