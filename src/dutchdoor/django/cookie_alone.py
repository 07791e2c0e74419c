"""What Django's cookie proves without ours: less, or a copy of it would be a way around our checks.

Django's session names the one of ours that `login()` has begun. A test client and a browser under test have no other
cookie. It proves no key of a browser, so it is no one's where the session is bound or has to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dutchdoor.errors import DeviceProofRequired, NotAuthenticated
from dutchdoor.guard.gates import Known

if TYPE_CHECKING:  # the engine, which a service that only verifies has not
    from dutchdoor.auth import Auth

__all__ = ["check_alone"]


async def check_alone(auth: Auth, known: Known) -> None:
    """Refuse Django's cookie alone for a session whose browser has to prove its key. Raises `DeviceProofRequired`."""
    if known.principal.bound_to:
        raise DeviceProofRequired("Django's cookie proves no key")
    held = await auth.authority.recall(known.principal.session_id or "")
    if held is None:
        raise NotAuthenticated("the session is gone")
    auth.api.bindings.check(held.session, "", demands=auth.api.demands_binding)
