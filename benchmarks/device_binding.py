"""What a browser's bound session costs: `python -m benchmarks.device_binding [--quick]`.

Each figure is who sends a request, found by its session cookie, without HTTP and with the session in memory: unbound,
and bound with its bound cookie. Beside it, what else the bound cookie could have been: a MAC, as it is, or a signature
that other services could check. Then a refresh, which a browser does once in eight minutes. The contenders take turns.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from functools import partial

from msgspec.structs import replace

from benchmarks.jwt import take_turns
from dutchdoor.auth import Auth
from dutchdoor.jose import jws
from dutchdoor.jose.dbsc import key_of, read_proof, text_of
from dutchdoor.jose.jwk import Key
from dutchdoor.model.bindings import Binding
from dutchdoor.model.device_binding import ALGORITHMS
from dutchdoor.model.http_client import Client
from dutchdoor.model.principal import Verified
from dutchdoor.stores.base import Swap
from dutchdoor.web.api import Call
from dutchdoor.web.http import Request

ROUNDS, QUICK = 300, 30


async def main() -> None:
    rounds = QUICK if "--quick" in sys.argv else ROUNDS
    auth = Auth("memory:", public_url="https://login.example.com")
    async with auth:
        over, bindings = auth.authority, auth.api.bindings
        device, now = Key.generate("ES256"), over.clock()
        lines: dict[str, bytes] = {}
        sessions = {}
        for name in ("unbound", "bound"):
            await over.provide(name)
            verified = Verified(subject=name, epoch=0, amr=("pwd",), at=now)
            signed_in = await over.start(verified, mode="session", client=Client())
            session = signed_in.session
            assert session is not None
            line = f"__Host-dd_mark=x; __Host-dd_session={signed_in.session_token}"
            if name == "bound":
                kept = Binding("confirmed", "ES256", device.kid, text_of(device.public()), int(now))
                await over.store.commit(Swap(replace(session, binding=kept.text())))
                line += f"; __Host-dd_bound={bindings.stamps.made('cookie', session.id, now)}"
            lines[name], sessions[name] = line.encode(), session
            await over.resume(signed_in.session_token)

        def found(name: str) -> None:
            request = Request("GET", "/orders", b"", [(b"cookie", lines[name])], "192.0.2.7", "https")
            known, caller = Call(auth.api, request, {}).identify_at_once()
            assert known
            assert caller is not None

        over.policy = replace(over.policy, suspicion="off")  # its own benchmark has what that costs
        bound, session_id = bindings.stamps.made("cookie", sessions["bound"].id, now), sessions["bound"].id
        statement = jws.sign(b'{"sid":"AaIqFZgX7BH70Dcxh6xMug","iat":1796001234}', device, typ="bound")
        challenge = bindings.stamps.made("refresh", session_id, now)
        head = b'{"alg":"ES256","typ":"dbsc+jwt"}'
        signed = b".".join(part.rstrip(b"=") for part in map(_b64, (head, b'{"jti":"%b"}' % challenge.encode())))
        proof = f"{signed.decode()}.{_b64(device.sign(signed)).rstrip(b'=').decode()}"
        kept_key = text_of(device.public())

        def refreshed() -> None:
            assert read_proof(proof, registers=False).is_by(key_of(kept_key, ALGORITHMS[0]))
            bindings.stamps.made("cookie", session_id, now)

        seconds = take_turns(
            {
                "a request by a session cookie, unbound": partial(found, "unbound"),
                "a request by a session cookie, bound": partial(found, "bound"),
                "the bound cookie as a MAC: checked": lambda: bindings.stamps.time_of(bound, "cookie", session_id),
                "the bound cookie as an ES256 signature: checked": lambda: jws.verify(statement, device),
                "the same: made": lambda: jws.sign(b"x" * 60, device, typ="bound"),
                "a refresh: the proof read and checked, a cookie made": refreshed,
            },
            rounds=rounds,
        )
    base = seconds["a request by a session cookie, unbound"]
    print("| what | µs | of an unbound request |")
    print("|---|---:|---:|")
    for name, took in seconds.items():
        print(f"| {name} | {took * 1e6:.1f} | {took / base:.2f} |")


def _b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw)


if __name__ == "__main__":
    asyncio.run(main())
