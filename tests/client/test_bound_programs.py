"""Programs whose sign-in is bound to a key, against a real server that demands it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from tests.client.conftest import PASSWORD, Place
from tests.client.test_session_auth import Program, lost
from tests.running import Run
from tests.server.running import running

from dutchdoor.client import FileStorage, MemoryStorage, SessionAuth, Tokens
from dutchdoor.client.dpop import Nonces, ProofKey
from dutchdoor.errors import InvalidDpopProof, Misconfigured


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("bound")
    with running(folder, "--refresh-window", "0s", "--device-binding", "required") as server:
        yield Place(server, folder, itertools.count(1))


@pytest.fixture
def program(place: Place) -> Iterator[Program]:
    program = Program(place, login=place.account(), password=PASSWORD)
    yield program
    program.close()


def test_d37_a_program_is_bound_where_the_server_demands_it(program: Program) -> None:
    """A program that asks for nothing gets a key when the server demands one, proves it with each request and refresh,
    and asks for a nonce once.
    """
    program.me()
    program.me()
    # Refused without a key; given the nonce; signed in. The nonce of the sign-in serves the requests.
    assert program.line.calls == ["/auth/login"] * 3
    program.clock.advance("9m30s")
    program.me()
    assert program.line.calls[3:] == ["/auth/refresh", "/auth/refresh"], "the clock of the program was set"
    assert program.auth.call("GET", "/auth/me")["session"]["bound"] is True


def test_d37_an_asynchronous_program_is_bound_too(place: Place, program: Program) -> None:
    """`httpx2.AsyncClient` sends proofs, too, and takes up a nonce."""
    program.me()
    program.auth.server.nonces = Nonces(program.clock)

    async def ask() -> int:
        async with httpx2.AsyncClient(base_url=place.url, auth=program.auth) as client:
            return (await client.get("/auth/me")).status_code

    assert anyio.run(ask) == 200


def test_d37_a_copy_of_the_tokens_is_worth_nothing(place: Place, program: Program) -> None:
    """What a thief copies from memory or a log, both tokens without the key, is refused by either scheme."""
    program.me()
    tokens = program.auth.fresh()
    as_bearer = {"authorization": f"Bearer {tokens.access_token}"}
    assert httpx2.get(f"{place.url}/auth/me", headers=as_bearer).status_code == 401
    body = {"refresh_token": tokens.refresh_token}
    assert httpx2.post(f"{place.url}/auth/refresh", json=body).json()["code"] == "dpop_required"
    assert tokens.key not in repr(tokens)
    assert program.me()


def test_d37_the_key_is_kept_beside_the_tokens(place: Place, tmp_path: Path) -> None:
    """The next run goes on with the session and its key, from a file that its owner alone can read. A damaged key says
    the fix.
    """
    storage = FileStorage(tmp_path / "tokens")
    first = Program(place, storage, login=place.account(), password=PASSWORD)
    email = first.me()
    first.close()
    second = Program(place, storage)
    assert second.me() == email
    assert second.auth.headers("GET", f"{place.url}/auth/me")["authorization"].startswith("DPoP ")
    second.close()
    kept = storage.load()
    assert kept is not None
    (tmp_path / "tokens").write_bytes((tmp_path / "tokens").read_bytes().replace(kept.key.encode(), b"AAAA"))
    third = Program(place, storage)
    with pytest.raises(Misconfigured, match="sign in again"):
        third.me()
    third.close()


def test_d37_a_lost_answer_is_asked_for_with_another_proof(program: Program) -> None:
    """After a lost answer the refresh is sent again, with a proof of its own: the first one was used."""
    program.clock.at = time.time()
    email = program.me()
    tokens = program.auth.fresh()
    program.clock.advance("10s")
    program.line.faults = [lost]
    assert program.auth._fresh(tokens.access_token).access_token != tokens.access_token
    assert program.line.calls[-2:] == ["/auth/refresh"] * 2
    assert program.me() == email


def test_d38_a_wrong_clock_signs_no_program_out(place: Place) -> None:
    """A machine whose clock is three hours wrong learns the server's time with the nonce."""
    for wrong in (3 * 3600, -3 * 3600):
        program = Program(place, login=place.account(), password=PASSWORD)
        program.clock.at = time.time() + wrong
        assert program.me()
        program.clock.at -= wrong  # and is set right
        assert program.me()
        program.close()


def test_d38_a_proof_that_is_refused_ends_no_session() -> None:
    """Whatever a server has against a proof, the session has not ended: the tokens and their key are kept."""
    answer = {"code": "invalid_dpop_proof", "detail": "The DPoP proof is not valid: it is odd."}
    client = httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(401, json=answer)))
    storage, url = MemoryStorage(), "http://localhost:1"
    kept = Tokens(server=url, login="ada", refresh_token="r", key=ProofKey.generate().text())
    storage.save(kept)
    auth = SessionAuth(url, storage=storage, client=client)
    with pytest.raises(InvalidDpopProof, match="it is odd"):
        auth.token()
    assert storage.load() == kept


def test_d37_a_server_without_binding_gives_bearer_tokens(tmp_path: Path) -> None:
    """A program that wants to be bound works with a server that binds nothing."""
    key = ProofKey.generate()
    answer = {"access_token": "a", "refresh_token": "r", "expires_in": 600, "user": {}, "token_type": "Bearer"}

    def serve(request: httpx2.Request) -> httpx2.Response:
        assert "dpop" in request.headers
        return httpx2.Response(200, json=answer)

    client = httpx2.Client(transport=httpx2.MockTransport(serve))
    auth = SessionAuth("http://localhost:1", login="ada", password=PASSWORD, bound=True, client=client)
    assert auth.fresh().key == ""
    assert auth.headers("GET", "http://localhost:1/")["authorization"] == "Bearer a"
    assert key.text() not in repr(auth)


def test_d37_the_command_line_is_bound_and_gives_no_bearer_token(
    place: Place, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`login`, `whoami` and `logout` work at a server that demands a key. `token` says why it prints nothing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = keyring.get_keyring()
    keyring.set_keyring(NoKeyring())
    email = place.account()
    try:
        done = run("login", place.url, email, "--password-stdin", text=f"{PASSWORD}\n")
        assert done.code == 0, done.err
        assert email in run("whoami").out
        refused = run("token")
        assert refused.code != 0
        assert "SessionAuth" in refused.err
        assert run("logout").code == 0
    finally:
        keyring.set_keyring(before)
