"""The API's own description: valid, complete, and true of a running server as far as schemathesis can tell."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from msgspec.structs import replace
from tests.http.world import PASSWORD, World, a_world
from tests.ports import free_port
from tests.standins import MASTER, Mailbox, endless

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import STANDARD
from dutchdoor.model.rate_limits import Limits
from dutchdoor.stores.memory import MemoryStore

ROOT = "root@example.com"


class Running:
    """A server on this machine in a thread of its own, without limits, with one administrator."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        said = json.loads(answer.read())
        connection.close()
        return said

    def token(self) -> str:
        """A fresh administrator's token: what was tried before may have ended the last one."""
        body = {"email": ROOT, "password": PASSWORD, "mode": "jwt"}
        return str(self.post("/auth/login", body)["access_token"])


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    port = free_port()
    auth = Auth(
        MemoryStore(),
        master_key=MASTER,
        local_url=f"http://127.0.0.1:{port}",
        policy=replace(STANDARD, modes=("hybrid", "session", "jwt")),
        limits=endless(Limits()),
        hasher=PasswordHasher(CHEAPEST),
        mail=Mailbox(),
    )
    ready = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            await auth.directory.admin.create(ROOT, client=Client(), actor="cli", roles=("admin",), password=PASSWORD)
            ready.set()

    server = Server(uvicorn.Config(auth.asgi(), port=port, log_level="error", lifespan="on", server_header=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    assert ready.wait(60)
    yield Running(port)
    server.should_exit = True
    thread.join(60)


def read(running: Running, *, edges: bool) -> Any:
    """The document as a server without a public URL gives it. What lies at the edge of each schema is most of the
    cases.
    """
    config = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": edges}}})
    return schemathesis.openapi.from_dict(running.get("/openapi.json"), config=config)


@pytest.fixture(scope="module")
def description(running: Running) -> Any:
    return read(running, edges=settings.get_current_profile_name() == "long")


@pytest.fixture(scope="module")
def without_edges(running: Running) -> Any:
    return read(running, edges=False)


# Read when the tests run: building their cases takes seconds, and each process that collects tests would do it.
described = schemathesis.pytest.from_fixture("description")
described_without_edges = schemathesis.pytest.from_fixture("without_edges")


@pytest.fixture(autouse=True)
def name_of_the_test(request: pytest.FixtureRequest) -> None:
    """Schemathesis reads a test's name where pytest before 9.1 had it."""
    request.node._nodeid = request.node.nodeid


def test_the_document_is_valid_openapi(description: Any) -> None:
    """The document is OpenAPI 3.1 by the standard's own schema."""
    assert description.raw_schema["openapi"].startswith("3.1")
    description.validate()


async def test_the_description_can_be_turned_off() -> None:
    """Without documentation there is no page and no document that describes the API, and no page links to one."""
    async with a_world(docs=False) as world:
        for path in ("/docs", "/openapi.json"):
            assert (await world.call("GET", path)).status == 404
        for path in ("/", "/auth/setup"):
            page = await world.call("GET", path)
            assert page.status == 200
            assert b"/docs" not in page.body
            assert b"/openapi.json" not in page.body
    async with a_world() as world:
        assert b"/docs" in (await world.call("GET", "/")).body


async def test_every_route_is_described(world: World) -> None:
    """Every endpoint of the API is in the document with its method, and nothing is that is not served; each operation
    has an id of its own, a summary, and its answers.
    """
    document = (await world.call("GET", "/openapi.json")).json
    written = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    served = {(route.method, route.path) for route in world.auth.api.routes}
    pages = {
        (route.method, route.path)
        for route in world.auth.api.routes
        if not route.path.startswith(("/auth/", "/admin/", "/oauth2/", "/.well-known/", "/livez", "/readyz"))
        or route.handler.__module__.startswith("dutchdoor.web.pages.")
    }
    assert written == served - pages
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["summary"]
        assert {"400", "503"} <= set(operation["responses"])


async def test_the_cookie_is_described_by_its_name() -> None:
    """The document names the session cookie as it is called here: with the prefix over TLS, without it on loopback."""
    for url, name in (("https://login.example.com", "__Host-dd_session"), (None, "dd_session")):
        async with a_world(public_url=url) as world:
            document = (await world.call("GET", "/openapi.json")).json
            assert document["components"]["securitySchemes"]["session"]["name"] == name


# Weak passwords, taken addresses and the like are refused for what they mean, which no schema can say.
schemathesis.checks.load_all_checks()
MEANING = [schemathesis.checks.CHECKS.get_one("positive_data_acceptance")]
# A page stands beside the endpoint, for its form. The document describes the API alone.
BESIDE_A_PAGE = [
    *MEANING,
    *map(schemathesis.checks.CHECKS.get_one, ("allow_header_conformance", "unsupported_method")),
]


OF_PAGES = {
    route.path for route in World().auth.api.routes if route.handler.__module__.startswith("dutchdoor.web.pages.")
}


def excluded_at(path: str) -> list[Any]:
    return BESIDE_A_PAGE if path in OF_PAGES else MEANING


CALM = settings(
    max_examples=max(1, settings.default.max_examples // 16),
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
)


@pytest.mark.timeout(600)
@described.parametrize()
@CALM
def test_schemathesis_finds_nothing_as_administrator(case: Any, running: Running) -> None:
    """Whatever schemathesis sends as an administrator is answered as described: status, type and shape, never a 500."""
    headers = {"Authorization": f"Bearer {running.token()}"} if not case.path.startswith("/oauth2/") else {}
    # It takes a cookie that no one can read for a wrong proof, though the token beside it is a right one.
    excluded = [*excluded_at(case.path), schemathesis.checks.CHECKS.get_one("ignored_auth")]
    case.call_and_validate(headers=headers, base_url=running.url, excluded_checks=excluded)


@pytest.mark.long
@pytest.mark.timeout(600)
@described_without_edges.parametrize()
@CALM
def test_schemathesis_finds_nothing_without_a_proof(case: Any, running: Running) -> None:
    """Whatever schemathesis sends without proof is answered as described, too."""
    case.call_and_validate(base_url=running.url, excluded_checks=excluded_at(case.path))
