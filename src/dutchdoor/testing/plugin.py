"""The pytest plugin: fixtures for the tests of an application that has an `Auth`.

    # pyproject.toml
    [tool.pytest.ini_options]
    dutchdoor_app = "shop.app:app"

    # test_admin.py
    def test_admin_page(auth_client, sign_in):
        assert auth_client.get("/admin").status_code == 401
        assert sign_in("ada@example.com", roles=["admin"]).get("/admin").status_code == 200

Each test has an empty engine of its own, in memory, with a clock that stands still and mail that stays in `outbox`.
Every pytest run loads this file, so it imports pytest and our errors. The rest is imported at the first use.

A fixture here never asks for one by its public name: a `clock` of your own takes the place of ours in your tests alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from dutchdoor.errors import Misconfigured

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.testing.application import MakeAccount, SignIn, Tokens, Trial
    from dutchdoor.testing.clock import Clock
    from dutchdoor.testing.engine_thread import EngineThread
    from dutchdoor.testing.outbox import Outbox
    from dutchdoor.testing.server import TestServer

__all__: list[str] = []

INI = "dutchdoor_app"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(INI, 'the application under test, such as "shop.app:app", for the fixtures of dutchdoor', default="")


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Report a mistake in the set-up by its message, which says the fix, without a traceback through this package."""
    try:
        yield
    except Misconfigured as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def auth_app(request: pytest.FixtureRequest) -> Any:
    """The application under test: what the ini option `dutchdoor_app` names. Override it to build one for each test.

    It is an application of FastAPI, Starlette, Litestar or Flask with an `Auth`; what runs a project of Django; or a
    pair of any other application and its `Auth`.
    """
    with _in_one_sentence():
        return import_module("dutchdoor.testing.application").load(request.config.getini(INI))


@pytest.fixture(scope="session")
def _dutchdoor_thread() -> Iterator[EngineThread]:
    thread = import_module("dutchdoor.testing.engine_thread").EngineThread()
    yield thread
    thread.close()


@pytest.fixture
def _dutchdoor_trial(auth_app: Any, _dutchdoor_thread: EngineThread) -> Iterator[Trial]:
    with ExitStack() as stack:
        with _in_one_sentence():
            trial = import_module("dutchdoor.testing.application").Trial(auth_app, _dutchdoor_thread)
            stack.enter_context(trial)
        yield trial


@pytest.fixture
def auth_engine(_dutchdoor_trial: Trial) -> Auth:
    """The `dutchdoor.Auth` of the application, empty and in memory for this test. A fixture of your own that makes a
    client asks for this one.
    """
    return _dutchdoor_trial.engine


@pytest.fixture
def auth_client(_dutchdoor_trial: Trial) -> Any:
    """A test client of the application's framework, signed out: Starlette's TestClient for ASGI, started and stopped
    with the application's lifespan; that of Flask or Django; httpx2's for WSGI.
    """
    with _in_one_sentence():
        return _dutchdoor_trial.client


@pytest.fixture
def sign_in(_dutchdoor_trial: Trial) -> SignIn:
    """Signs an account in without its password, and returns a client of its own: `sign_in(email, roles=[...])`."""
    return _dutchdoor_trial.sign_in


@pytest.fixture
def make_account(_dutchdoor_trial: Trial) -> MakeAccount:
    """Creates an account, with a password if the test needs one: `make_account(email, roles=[...], password=...)`."""
    return _dutchdoor_trial.make_account


@pytest.fixture
def clock(_dutchdoor_trial: Trial) -> Clock:
    """The engine's time. It stands still: `clock.advance("15m")`."""
    return _dutchdoor_trial.clock


@pytest.fixture
def outbox(_dutchdoor_trial: Trial) -> Outbox:
    """The mails that this test sent, oldest first, each with its `links`."""
    return _dutchdoor_trial.outbox


@pytest.fixture
def tokens(_dutchdoor_trial: Trial) -> Tokens:
    """Access tokens, one valid and five that a route must refuse: `tokens.expired()`, `forged`, `revoked`, `foreign`,
    `stale`.
    """
    return _dutchdoor_trial.tokens


@pytest.fixture(scope="session")
def dutchdoor_server_options() -> list[str]:
    """The options of `dutchdoor serve` for `dutchdoor_server`. Override it: `return ["--audience", "orders"]`."""
    return []


@pytest.fixture(scope="session")
def dutchdoor_server(
    dutchdoor_server_options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestServer]:
    """A real server in a process of its own, on a free port, for all tests of this run: its `url`, `token(email)`."""
    folder = tmp_path_factory.mktemp("dutchdoor_server")
    with ExitStack() as stack:
        with _in_one_sentence():
            server = import_module("dutchdoor.testing.server").TestServer(folder, dutchdoor_server_options)
            stack.enter_context(server)
        yield server
