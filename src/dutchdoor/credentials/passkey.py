"""Passkeys: key pairs of a phone, a laptop or a security key, one for each account (WebAuthn, level 3).

The record holds the public key and no secret. Its handle is the credential's id, so that a passkey finds its account.
What a browser answers to a challenge is JSON, as `PublicKeyCredential.toJSON()` writes it. `client_data_of` reads what
the browser says of the ceremony (the challenge, and the origin of the page), and `Passkey.check` what the key itself
signed, in the order of the specification (7.1, 7.2). Attestation is ignored: it says who made a key, and would let a
site choose which keys people may own.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from fido2 import cbor
from fido2.cose import ES256, RS256, CoseKey, EdDSA
from fido2.webauthn import AttestationObject, AuthenticatorData
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.credentials.base import Checked
from dutchdoor.errors import ClonedPasskey, InvalidInput
from dutchdoor.model.accounts import Credential
from dutchdoor.model.ids import decode, encode
from dutchdoor.texts import mark

__all__ = [
    "ALGORITHMS",
    "NAME_AT_MOST",
    "PASSKEY",
    "ClientData",
    "Passkey",
    "PasskeyFacts",
    "client_data_of",
    "descriptors",
    "facts_of",
    "renamed",
]  # fmt: skip

PASSKEY: Final = "passkey"
"""The method of the credential that is a passkey."""
ANSWER_AT_MOST: Final = 16_384
"""Characters of an answer. The longest come with an attestation, which has certificates."""
NAME_AT_MOST: Final = 60
ALGORITHMS: Final = (ES256.ALGORITHM, EdDSA.ALGORITHM, RS256.ALGORITHM)
"""What keys may sign with (COSE), the best first. Nearly all have the first; RS256 is for older TPMs of Windows."""

_ID_AT_MOST: Final = 1364
"""Characters of a credential's id: 1,023 bytes."""
_KEY_AT_MOST: Final = 600
"""Bytes of a public key in COSE. RSA with 4,096 bits takes 526: a longer one would only cost time at each check."""
_RSA_AT_LEAST: Final = 256
"""Bytes of an RSA modulus."""
_TRANSPORTS: Final = frozenset(("ble", "hybrid", "internal", "nfc", "smart-card", "usb"))

T = TypeVar("T")


class PasskeyFacts(Struct, frozen=True, kw_only=True):
    """What the record of a passkey says. None of it is secret."""

    key: str
    """The public key (COSE), in base64url."""
    user: str
    """The random handle under which the key knows the account, in base64url. It says nothing of the person."""
    count: int
    """How often the key has signed, if it counts: it may only rise."""
    eligible: bool
    """Whether it may be synchronised to other devices of its owner. That never changes."""
    backed_up: bool
    """Whether it is synchronised now."""
    transports: tuple[str, ...] = ()
    name: str = ""
    used_at: float | None = None
    """When it was last used."""


class _Response(Struct, frozen=True, rename="camel"):
    client_data: str = msgspec.field(name="clientDataJSON")
    authenticator_data: str = ""
    signature: str = ""
    user_handle: str | None = None
    attestation_object: str = ""
    transports: tuple[str, ...] = ()


class _Answer(Struct, frozen=True):
    """`AuthenticationResponseJSON` and `RegistrationResponseJSON`: what we read of them."""

    id: str
    type: Literal["public-key"]
    response: _Response


_read_answer = msgspec.json.Decoder(_Answer).decode
_read_facts = msgspec.json.Decoder(PasskeyFacts).decode


class ClientData(NamedTuple):
    """What a browser says of a ceremony (`clientDataJSON`). The key signs a hash of it."""

    id: str
    """The id of the credential."""
    type: str
    """`webauthn.get` or `webauthn.create`."""
    challenge: bytes
    origin: str
    """That of the page."""
    embedded: bool
    """Whether the page was a frame in a page of another site, which could cover it with its own."""


def client_data_of(answer: str) -> ClientData:
    """Read what a browser says of the ceremony that an `answer` belongs to. Raises `InvalidInput`."""
    return _reading(lambda: _client_data_in(_parsed(answer)))


class Passkey:
    """Checks what passkeys sign for one site: `rp_id`, a domain."""

    name, amr, second = PASSKEY, "hwk", True

    def __init__(self, rp_id: str) -> None:
        self.rp_id = rp_id
        self._hash = sha256(rp_id.encode()).digest()

    def registered(self, subject: str, answer: str, *, user: str, name: str, now: float) -> tuple[Credential, Checked]:
        """Return the record of a new passkey, and what making it has proved.

        Args:
            subject: that of the account.
            answer: what the browser answered.
            user: the handle under which the key was asked to keep the account.
            name: what its owner calls it.

        Raises:
            InvalidInput: the answer is malformed, for another site, or without its owner's touch.
        """

        def read() -> tuple[str, AuthenticatorData, Mapping[Any, Any], tuple[str, ...]]:
            parsed = _parsed(answer)
            data = AttestationObject(decode(parsed.response.attestation_object, ANSWER_AT_MOST)).auth_data
            found = data.credential_data
            if found is None or encode(found.credential_id) != parsed.id:
                raise ValueError("the key signed for another credential")
            known = sorted(_TRANSPORTS.intersection(parsed.response.transports))
            return parsed.id, data, found.public_key, tuple(known)

        handle, data, key, transports = _reading(read)
        if not self._is_ours(data) or not handle:
            raise _malformed()
        facts = PasskeyFacts(
            key=_reading(lambda: _checked_key(key)),
            user=user,
            count=data.counter,
            eligible=data.is_backup_eligible(),
            backed_up=data.is_backed_up(),
            transports=transports,
            name=name,
        )
        record = Credential(subject=subject, method=PASSKEY, handle=handle, proof=_written(facts), created_at=now)
        return record, Checked(amr=_amr_of(data))

    def handle_of(self, response: str) -> str:
        return _reading(lambda: _parsed(response)).id

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:
        """Check an assertion: for this site, with its owner's touch, by the key of the record.

        Raises:
            InvalidInput: the response is malformed.
            ClonedPasskey: the signature is right, and the key has signed more often than this one says.
        """
        parsed, client_data, signed, signature, data = _reading(lambda: _signed(response))
        if record is None:
            return None
        facts = facts_of(record)
        if not self._is_ours(data) or parsed.id != record.handle or data.is_backup_eligible() != facts.eligible:
            return None
        # A passkey that names an account names the one that it was made for.
        if parsed.response.user_handle is not None and not hmac.compare_digest(
            parsed.response.user_handle.encode(), facts.user.encode()
        ):
            return None
        key: Any = cbor.decode(decode(facts.key, 2 * _KEY_AT_MOST))
        try:
            CoseKey.parse(key).verify(signed + sha256(client_data).digest(), signature)
        except InvalidSignature:
            return None
        if (data.counter or facts.count) and data.counter <= facts.count:
            raise ClonedPasskey("the counter of a passkey went back")
        used = replace(facts, count=data.counter, backed_up=data.is_backed_up(), used_at=now)
        return Checked(spent=replace(record, proof=_written(used)), amr=_amr_of(data))

    async def upgraded(self, record: Credential, response: str) -> Credential | None:  # noqa: ARG002
        return None  # there is no better form

    def _is_ours(self, data: AuthenticatorData) -> bool:
        """Return whether a key signed for this site, with a touch of its owner, and with flags that fit together."""
        return (
            hmac.compare_digest(data.rp_id_hash, self._hash)
            and data.is_user_present()
            and (data.is_backup_eligible() or not data.is_backed_up())
        )


def facts_of(record: Credential) -> PasskeyFacts:
    """Return what the record of a passkey says."""
    return _read_facts(record.proof)


def renamed(record: Credential, name: str) -> Credential:
    """Return the record of a passkey under another name."""
    return replace(record, proof=_written(replace(facts_of(record), name=name)))


def _written(facts: PasskeyFacts) -> str:
    return msgspec.json.encode(facts).decode()


def _parsed(answer: str) -> _Answer:
    if len(answer) > ANSWER_AT_MOST:
        raise ValueError("an answer this long is no passkey's")
    parsed = _read_answer(answer)
    decode(parsed.id, _ID_AT_MOST)  # a store is asked for it
    return parsed


def _client_data_in(parsed: _Answer) -> ClientData:
    data = json.loads(_client_data(parsed))
    kind, challenge, origin = data["type"], data["challenge"], data["origin"]
    if not all(isinstance(each, str) for each in (kind, challenge, origin)):
        raise TypeError("not text")
    return ClientData(parsed.id, kind, decode(challenge), origin, data.get("crossOrigin", False) is not False)


def _client_data(parsed: _Answer) -> bytes:
    return decode(parsed.response.client_data, ANSWER_AT_MOST)


def _signed(answer: str) -> tuple[_Answer, bytes, bytes, bytes, AuthenticatorData]:
    parsed = _parsed(answer)
    raw = decode(parsed.response.authenticator_data, ANSWER_AT_MOST)
    return parsed, _client_data(parsed), raw, decode(parsed.response.signature, ANSWER_AT_MOST), AuthenticatorData(raw)


def _checked_key(key: Mapping[Any, Any]) -> str:
    """Return a public key as it is kept, if it can be used at each later sign-in. Raises whatever is wrong with it."""
    encoded = cbor.encode(key)
    if key[3] not in ALGORITHMS or len(encoded) > _KEY_AT_MOST:
        raise ValueError("a key that was not asked for")
    if key[3] == RS256.ALGORITHM and len(key[-1].lstrip(b"\0")) < _RSA_AT_LEAST:
        raise ValueError("a weak key")
    try:
        CoseKey.parse(key).verify(b"", b"")
    except InvalidSignature:
        return encode(encoded)
    raise ValueError("a key that takes any signature")


def _amr_of(data: AuthenticatorData) -> tuple[str, ...]:
    """Return what a signature has proved (RFC 8176). A key that never leaves its device is hardware for this purpose.
    One that has also checked a fingerprint, a face or a PIN stands for two kinds of proof.
    """
    held = "swk" if data.is_backup_eligible() else "hwk"
    return (held, "user", "mfa") if data.is_user_verified() else (held, "user")


def _reading(read: Callable[[], T]) -> T:
    """Read what a client has sent, which may be anything. Raises `InvalidInput` for what cannot be read."""
    try:
        return read()
    except Exception as exc:
        raise _malformed() from exc


def _malformed() -> InvalidInput:
    return InvalidInput(mark("This is not the answer of a passkey for this site."), field="response")


def descriptors(records: Sequence[Credential]) -> list[dict[str, Any]]:
    """Return how options name passkeys (`PublicKeyCredentialDescriptorJSON`)."""
    return [
        {"type": "public-key", "id": each.handle, "transports": list(facts_of(each).transports)} for each in records
    ]
