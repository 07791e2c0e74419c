"""Several `dutchdoor serve` processes over one store, with a proxy in each link: client to node, node to PostgreSQL,
node to Valkey. One folder, one master key, one public URL; the test stands where the TLS proxy would.

    with cluster(tmp_path, nodes=3, database=url, redis=url) as ours:
        ours.nodes[0].link.down.cut(after=17)       # what its clients see
        ours.nodes[1].to_store.refuse()             # what it sees of PostgreSQL
        ours.nodes[2].kill()
        async with ours.beside() as node: ...       # a node in this process, which can do what HTTP cannot

Over SQLite there is no link to the store, and `workers` makes one node several processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from tests.faults.client import HOST, Wire
from tests.faults.proxy import Proxy, proxy
from tests.faults.shifted import set_clock
from tests.running import PROGRAM
from tests.stores.postgres import patiently

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKey
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.principal import Verified
from dutchdoor.model.rate_limits import Limits
from dutchdoor.services.presenting import SignedIn
from dutchdoor.stores.urls import make_store

__all__ = ["HERE", "OLD_AGE", "Cluster", "Node", "begin", "cluster", "through"]

PUBLIC = f"https://{HOST}"
STARTS_WITHIN = 60.0
STARTS_AGAIN = 5
OLD_AGE = 900.0
"""Seconds: a session of that age has left every window, and its next refresh makes a new generation."""
HERE = Client(address="127.0.0.1")

Mode = Literal["session", "hybrid", "jwt"]


class Node:
    """One server. `link` is what clients go through; `to_store` and `to_redis` what it goes through itself."""

    def __init__(self, name: str, folder: Path, link: Proxy, to_store: Proxy | None, to_redis: Proxy | None) -> None:
        self.name, self.folder, self.link = name, folder, link
        self.to_store, self.to_redis = to_store, to_redis
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[str] | None = None
        self.clock = folder / f"{name}.clock"
        self.log = folder / f"{name}.log"

    @property
    def port(self) -> int:
        """Where its clients connect."""
        return self.link.port

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it, and return when it serves."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
        first = ["-m", "tests.faults.shifted", str(self.clock)] if self.clock.exists() else ["-m", "tests.faults.leash"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, *first, "serve", "--port", "0", *self.arguments],
                cwd=self.folder,
                env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), **self.environment},
                stdin=subprocess.PIPE,  # it ends where this one ends: see leash.py
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        line = self._first_line()
        for _ in range(STARTS_AGAIN):
            if line or not is_late(self.said[-500:]):
                break
            # A busy machine's database may take more than the second that it has. A supervisor starts it again.
            self.kill()
            self.begin()
            line = self._first_line()
        assert " is ready at " in line, f"{self.name} is not ready: {line}\n{self.said[-3000:]}"
        self.link.retarget(("127.0.0.1", int(line.split(" is ready at ")[1].split()[0].rpartition(":")[2])))

    def _first_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        timer = threading.Timer(STARTS_WITHIN, self.process.kill)
        timer.start()
        try:
            return self.process.stdout.readline()
        finally:
            timer.cancel()

    def stop(self) -> int:
        """Ask it to stop; give its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`, all its processes at once."""
        self._end(signal.SIGKILL)

    def _end(self, how: int) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if how == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        return code

    def command(self, *arguments: str) -> str:
        """Run a command of the command line with this node's settings, around its proxies; gives what it printed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DUTCHDOOR_")}
        for _ in range(STARTS_AGAIN):
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, *arguments], cwd=self.folder, env={**clean, **self.environment},
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            if done.returncode == 0 or not is_late(done.stderr):
                break
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def pause(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def set_clock(self, ahead: float) -> None:
        """Seconds by which its wall clock is ahead. Set before the start, if it is ever to be wrong."""
        set_clock(self.clock, ahead)

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wire(self, *, direct: bool = False, **more: Any) -> Wire:
        """A connection to it; `direct`: around the proxy."""
        return Wire(
            self.link.target[1] if direct else self.port, public=self.environment["DUTCHDOOR_PUBLIC_URL"], **more
        )


class Cluster:
    def __init__(self, folder: Path, database: str, redis: str) -> None:
        self.folder, self.database, self.redis = folder, database, redis
        self.master = folder / "master.keys"
        self.public = PUBLIC
        self.balancer: Proxy | None = None
        """Where the public URL leads, if it is one of this machine."""
        self.nodes: list[Node] = []

    @property
    def links(self) -> list[Proxy]:
        """Every link of every node."""
        all_of = [self.balancer, *(link for node in self.nodes for link in (node.link, node.to_store, node.to_redis))]
        return [link for link in all_of if link is not None]

    def to_store(self) -> list[Proxy]:
        return [node.to_store for node in self.nodes if node.to_store is not None]

    def to_redis(self) -> list[Proxy]:
        return [node.to_redis for node in self.nodes if node.to_redis is not None]

    def heal(self) -> None:
        for link in self.links:
            link.heal()

    def start(self) -> None:
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> list[int]:
        return [node.stop() for node in self.nodes]

    @contextlib.asynccontextmanager
    async def wires(self, count: int, **more: Any) -> AsyncIterator[list[Wire]]:
        """Connections, one node after the other."""
        nodes = [(n % len(self.nodes), self.nodes[n % len(self.nodes)]) for n in range(count)]
        made = [node.wire(node=place, **more) for place, node in nodes]
        try:
            yield made
        finally:
            for wire in made:
                wire.close()

    def beside(
        self, clock: Callable[[], float] = time.time, *, policy: Policy = STANDARD, limits: Limits | None = None
    ) -> Auth:
        """One more node, in this process, over the same store and with no proxy between."""
        return Auth(
            make_store(self.database, self.redis),
            master_key=self.master,
            public_url=self.public,
            proxies=["127.0.0.1"],
            policy=policy,
            hasher=PasswordHasher(CHEAPEST),
            clock=clock,
            **({} if limits is None else {"limits": limits}),
        )

    @contextlib.asynccontextmanager
    async def nodes_beside(self) -> AsyncIterator[tuple[Auth, Auth]]:
        """Two more nodes: one of now, and one a quarter of an hour behind, which makes sessions that are old."""
        async with self.beside() as now, self.beside(lambda: time.time() - OLD_AGE) as then:
            yield now, then


def is_late(said: str) -> bool:
    """Whether a program ended since its database gave no answer within the second that it has, or broke off."""
    return any(words in said for words in ("no answer", "in the middle of operation", "out of reach for a moment"))


def through(url: str, link: Proxy | None) -> str:
    """The same URL by way of a proxy."""
    if link is None:
        return url
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{link.port}"))


@contextlib.contextmanager
def cluster(
    folder: Path,
    *,
    nodes: int = 3,
    database: str = "",
    redis: str = "",
    workers: int = 1,
    clocks: bool = False,
    local: bool = False,
    start: bool = True,
    broken: str = "",
    **settings: str,
) -> Iterator[Cluster]:
    """Servers over one store: that of `database`, or a SQLite file. `settings` are settings of the server.

    `clocks`: their wall clocks can be set. `local`: the public URL leads to this machine, to all nodes in turn, so that
    a `Verifier` can follow. `broken`: what each process runs before anything else, to see tests fail.
    """
    folder.mkdir(exist_ok=True)
    ours = Cluster(folder, database or f"sqlite:///{folder}/dutchdoor.db", redis)
    if not ours.master.exists():
        ours.master.touch(0o600)
        ours.master.write_text(MasterKey.generate().text() + "\n")
    with contextlib.ExitStack() as stack:

        def link_to(url: str) -> Proxy | None:
            parts = urlsplit(url)
            if parts.hostname is None or parts.port is None:
                return None
            return stack.enter_context(proxy(parts.hostname, parts.port))

        if local:
            ours.balancer = stack.enter_context(proxy("127.0.0.1", 1))
            ours.public = f"http://localhost:{ours.balancer.port}"
        for n in range(nodes):
            node = Node(
                f"node{n}", folder, stack.enter_context(proxy("127.0.0.1", 1)), link_to(database), link_to(redis)
            )
            node.environment = {
                "DUTCHDOOR_PUBLIC_URL": ours.public,
                "DUTCHDOOR_PROXY": "127.0.0.1",
                "DUTCHDOOR_MASTER_KEY_FILE": str(ours.master),
                "DUTCHDOOR_DATABASE": through(ours.database, node.to_store),
                "DUTCHDOOR_WORKERS": str(workers),
                "DUTCHDOOR_MAIL": f"file:{folder}/mail",
                **({"DUTCHDOOR_REDIS": through(redis, node.to_redis)} if redis else {}),
                **{f"DUTCHDOOR_{name.upper()}": value for name, value in settings.items()},
            }
            if clocks:
                node.set_clock(0.0)
            if broken:
                (folder / "sitecustomize.py").write_text(broken)
                node.environment["PYTHONPATH"] = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
            ours.nodes.append(node)
        if ours.balancer is not None:
            ours.balancer.retarget(*(("127.0.0.1", node.port) for node in ours.nodes))
        try:
            if start:
                ours.start()
            yield ours
        finally:
            for link in ours.links:
                link.heal()
            for node in ours.nodes:
                if node.process is not None and node.process.poll() is None:
                    os.killpg(node.pid, signal.SIGCONT)
                    node.process.send_signal(signal.SIGTERM)
            for node in ours.nodes:
                node.stop()


async def begin(node: Auth, subject: str = "", mode: Mode = "hybrid", *, roles: tuple[str, ...] = ()) -> SignedIn:
    """Sign a person in without a password."""
    subject = subject or f"person {secrets.token_hex(6)}"
    account = await patiently(lambda: node.authority.provide(subject))
    proof = Verified(subject=subject, epoch=account.epoch, amr=("pwd",), at=node.authority.clock())
    return await patiently(lambda: node.authority.start(proof, mode=mode, client=HERE))
