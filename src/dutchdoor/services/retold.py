"""What the store has lost and this process still knows is ended again.

A standby that lagged was promoted, or a backup put back, while processes ran that had read what was revoked since. They
remember it, and refuse what it names; but whoever starts later, and the store itself, would believe it. So they put it
back: the end of a session, a key's death, a verifier's removal, the entry in the log.

What an entry of a subject stood for, it does not say: a log-out everywhere, another password, a ban, other roles. All
of the subject's sessions end, which is too much for the last of these and not enough for the others: a password, a ban
and roles are what the store says they are.
"""

from __future__ import annotations

from msgspec.structs import replace

from dutchdoor.jose import signing_keys
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import Change, End, EndAll, Log, Remove, Revoke, Store, Swap

__all__ = ["ENDED_AGAIN", "tell_again"]

ENDED_AGAIN = "ended_again"
"""Why a session ended: it had before, for a reason that was lost."""

_NOBODY = Client()


async def tell_again(store: Store, lost: Revocation, now: float) -> None:
    """End what an entry names that the log has lost. Several processes may do so at once.

    Raises:
        Conflict: somebody else changed it in this moment: look whether it is in the log now.
        Unavailable: the store is out of reach.
    """
    # Tokens may have been signed since then for what should have been dead.
    entry = replace(lost, seq=0, expires_at=max(lost.expires_at, now + LONGEST_ACCESS))
    changes: list[Change] = []
    if lost.kind == "session":
        found = await store.session(lost.id)
        if found is not None and found[0].ended_at is None:
            record = event(
                "session_ended",
                now=now,
                client=_NOBODY,
                subject=found[0].subject,
                actor="system",
                session_id=lost.id,
                client_id=found[0].client_id,
                detail=ENDED_AGAIN,
            )
            changes = [End(lost.id, ENDED_AGAIN, now), Log(record)]
    elif lost.kind == "subject":
        account = await store.account(lost.id)
        if account is not None:
            raised = replace(account, epoch=max(account.epoch, lost.min_epoch) + 1)
            entry = replace(entry, min_epoch=raised.epoch)
            record = event(
                "session_ended", now=now, client=_NOBODY, subject=lost.id, actor="system", detail=ENDED_AGAIN
            )
            changes = [Swap(raised), EndAll(lost.id, ENDED_AGAIN, now), Log(record)]
    elif lost.kind == "key":
        key = next((key for key in await store.select(StoredKey) if key.kid == lost.id), None)
        if key is not None and key.revoked_at is None:
            record = event("key_revoked", now=now, client=_NOBODY, actor="system", detail=lost.id)
            changes = [Swap(signing_keys.revoked(key, now)), Log(record)]
    elif lost.kind == "client":
        verifier = await store.get(VerifierKey, lost.id)
        if verifier is not None:
            record = event(
                "verifier_removed", now=now, client=_NOBODY, actor="system", client_id=lost.id, detail=verifier.name
            )
            changes = [Remove(verifier), Log(record)]
    await store.commit(*changes, Revoke(entry))
