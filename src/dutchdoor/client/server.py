"""Calls of a dutchdoor server by its public HTTP API. A refusal is raised as the error that the server had."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpx2
import msgspec

from dutchdoor import errors
from dutchdoor.client.dpop import Nonces, ProofKey
from dutchdoor.client.tokens import check_url
from dutchdoor.errors import DutchdoorError, Misconfigured, Unavailable, UseDpopNonce

__all__ = ["Server"]

_TIMEOUT: Final = 10.0
"""Seconds without progress after which a call fails."""
_ANSWER_AT_MOST: Final = 1 << 20
ErrorT = TypeVar("ErrorT", bound=DutchdoorError)
_BY_CODE: Final[dict[str, type[DutchdoorError]]] = {
    kind.code: kind
    for kind in [getattr(errors, name) for name in errors.__all__]
    if "code" in vars(kind) and kind is not DutchdoorError  # one that inherits its code says more than the answer did
}
_BY_STATUS: Final[dict[int, type[DutchdoorError]]] = {
    401: errors.NotAuthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
}


class Server:
    """One server. Safe to share between threads.

    Args:
        url: its public URL, with the base path of its API if it has one.
        client: the HTTP client to call it with. It must not follow redirects: a secret would follow them, too.
    """

    def __init__(
        self, url: str, client: httpx2.Client | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises `Misconfigured` for a URL or a client that must not be used."""
        self.url = check_url(url)
        self.nonces = Nonces(clock)
        if client is not None and client.follow_redirects:
            raise Misconfigured("The client for a server must not follow redirects: follow_redirects=False.")
        # A call every few minutes: no connection would still be open for the next one.
        self._client = client or httpx2.Client(
            timeout=_TIMEOUT,
            headers={"user-agent": "dutchdoor.client"},
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        body: dict[str, object] | None = None,
        *,
        token: str = "",
        key: ProofKey | None = None,
    ) -> Any:
        """Call the server, and return what its answer holds. With a `key`, prove it; and once more, if the server
        says with which nonce, or that the clock of this machine is wrong.

        Raises:
            Unavailable: it is out of reach, or says so; `retry_after` seconds.
            Misconfigured: what answers is no dutchdoor server.
            DutchdoorError: the error that it answers, of the class with its code.
        """
        answer, content = self._sent(method, self.url + path, body, token, key)
        if key is not None and self.nonces.learn(self.url, answer.headers) and answer.status_code == 401:  # noqa: PLR2004
            answer, content = self._sent(method, self.url + path, body, token, key)
            self.nonces.learn(self.url, answer.headers)
        return self._read(answer, content)

    def _sent(
        self, method: str, url: str, body: dict[str, object] | None, token: str, key: ProofKey | None
    ) -> tuple[httpx2.Response, bytes]:
        headers = {"authorization": f"{'DPoP' if key else 'Bearer'} {token}"} if token else {}
        if key is not None:
            headers["dpop"] = self.nonces.proof(key, method, url, token)
        try:
            with self._client.stream(method, url, json=body, headers=headers, auth=None) as answer:
                return answer, _bounded(answer)
        except httpx2.HTTPError as exc:
            raise _out_of_reach(self.url, exc) from None

    def _read(self, answer: httpx2.Response, content: bytes) -> Any:
        try:
            held: Any = msgspec.json.decode(content)
        except msgspec.DecodeError:
            held = None
        if answer.is_success and held is not None:
            return held
        if isinstance(held, dict) and isinstance(held.get("code"), str):
            raise _error_of(self.url, answer.status_code, held, _retry_after(answer))
        if answer.status_code in {429, 502, 503, 504}:  # of a proxy in front of it
            raise _busy(self.url, _retry_after(answer))
        raise Misconfigured(
            f"{self.url} answered {answer.status_code}, and not as a dutchdoor server does. Check the URL, and the "
            "base path of the API if it has one."
        )


def _bounded(answer: httpx2.Response) -> bytes:
    content = b""
    for piece in answer.iter_bytes():
        content += piece
        if len(content) > _ANSWER_AT_MOST:
            raise Misconfigured("The answer is longer than any of a dutchdoor server.")
    return content


def _out_of_reach(url: str, exc: httpx2.HTTPError) -> Unavailable:
    error = Unavailable(f"{url} is out of reach: {type(exc).__name__}")
    if "CERTIFICATE_VERIFY_FAILED" in str(exc):  # OpenSSL's name of it: the client passes on the text alone
        return _saying(error, f"{url} has a certificate that this machine does not trust.")
    return _saying(error, f"{url} is out of reach. Check the address and the network.")


def _busy(url: str, retry_after: float) -> Unavailable:
    error = Unavailable(f"{url} is not available", retry_after=retry_after)
    return _saying(error, f"{url} is not available now. Try again in {retry_after:.0f} s.")


def _saying(error: ErrorT, message: str) -> ErrorT:
    """Return an error with a sentence of its own, for the person who runs the program."""
    error.message, error.args = message, (message,)
    return error


def _retry_after(answer: httpx2.Response) -> float:
    seconds = answer.headers.get("retry-after", "")
    return float(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) <= 5 else 1.0  # noqa: PLR2004


def _error_of(url: str, status: int, held: dict[str, Any], retry_after: float) -> DutchdoorError:
    """Return the error that a problem document (RFC 9457) stands for."""
    code, detail = held["code"], str(held.get("detail") or "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if kind is errors.RateLimited or (kind is None and status == 429):  # noqa: PLR2004
        limited = errors.RateLimited(code, retry_after=retry_after)
        return _saying(limited, f"{url} had too many attempts. Try again in {retry_after:.0f} s.")
    if kind is Unavailable or (kind is None and status >= 500):  # noqa: PLR2004
        return _busy(url, retry_after)
    if kind is not None and issubclass(kind, errors.InvalidInput):
        wrong = kind.__new__(kind)
        errors.InvalidInput.__init__(wrong, detail, field=str(held.get("field") or ""))  # the sentence is there already
        return wrong
    if kind is errors.StepUpRequired:
        if not {"max_age", "factors"} & held.keys():  # nothing is missing of the proof: it is not believed any more
            return errors.SessionInDoubt(code)
        return errors.StepUpRequired(code, max_age=held.get("max_age"), factors=held.get("factors", 1))
    if kind is UseDpopNonce:
        return UseDpopNonce("")  # the header has it
    if kind is errors.InvalidDpopProof:
        return errors.InvalidDpopProof(detail.removeprefix("The DPoP proof is not valid: ").removesuffix("."))
    if kind is errors.SignInUnfinished:
        methods, token = tuple(map(str, held.get("methods") or ())), str(held.get("token") or "")
        enrol, step = held.get("enrol") is True, str(held.get("step_required") or "")
        return errors.SignInUnfinished(code, token=token, methods=methods, enrol=enrol, step=step)
    if kind is errors.DeviceKeyRefused:  # browsers alone meet it
        kind = errors.Refused
    if kind in {Misconfigured, errors.Misdirected}:
        kind = errors.NotAuthenticated if status == 401 else DutchdoorError  # noqa: PLR2004
    return (kind or DutchdoorError)(code, message=detail or None)
