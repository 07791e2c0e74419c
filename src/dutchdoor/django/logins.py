"""Log-in, log-out and changes of Django's users, as its signals report them.

Django's own functions do the work: `login()` has written the user into Django's session when its signal comes, and
`logout()` empties that session after its own. Here a session of ours begins and ends with them.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.db import transaction

from dutchdoor.auth import Auth
from dutchdoor.django.accounts import FENCE_FOR, agree, end_of
from dutchdoor.django.configuration import gate, is_embedded
from dutchdoor.django.users import find, name_of, roles_of, stamps_of, subject_of
from dutchdoor.django.visit import BOUND, OWNER, Visit, visit_of
from dutchdoor.errors import DutchdoorError, NotAuthenticated
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.gates import Known
from dutchdoor.guard.user import User
from dutchdoor.model.http_client import Client
from dutchdoor.model.principal import Principal, Verified
from dutchdoor.model.refresh_tokens import RefreshToken
from dutchdoor.model.sessions import SessionToken, principal_of
from dutchdoor.services.endings import Found
from dutchdoor.services.fencing import as_one
from dutchdoor.services.presenting import SignedIn
from dutchdoor.web.http import AmbiguousCookie

__all__ = [
    "changed", "finish", "follow", "group_changed", "groups_changed", "logged_in", "logged_out", "proved", "removed",
]  # fmt: skip

_MATTERS = {"password", "is_active", "is_superuser"}
"""The columns of a user that decide about sessions and roles."""

_OF_LOG_IN = (SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY)
"""What Django's `login` writes into its session."""

_BY_PASSWORD = "django.contrib.auth.backends.ModelBackend"

_log = logging.getLogger("dutchdoor")


# --- log-in and log-out ----------------------------------------------------------------------------------------------


def logged_in(*, request: Any, user: Any, **_: Any) -> None:
    """Start a session. Raises `Unavailable` and `SessionLimitReached`, which undo nothing of Django's own log-in: the
    request is refused, and its session of Django's proves no one.
    """
    if getattr(request, "session", None) is None or not is_embedded():
        return
    visit = visit_of(request)
    _start(request, visit, user, _methods(request), None)


def _start(request: Any, visit: Visit, user: Any, amr: tuple[str, ...], at: float | None) -> None:
    subject, stamps = subject_of(user), stamps_of(user)
    started = _started(visit, subject, stamps, roles_of(user), name_of(user), amr, at, request.session.get(BOUND))
    signed_in = visit.run(started)
    session = signed_in.session
    if session is not None:
        account = signed_in.account
        claims = engine_of(visit.gate.gate).authority.claims_of(account, session.id)
        visit.become(Known(principal_of(session, account, claims), User.of(account)))
        _forget_others(request.session, subject)
        _bind_data(request.session, session.id, subject)
    visit.signed_in, visit.signed_out, visit.user, visit.stamp = signed_in, False, user, stamps[0]


async def _started(
    visit: Visit,
    subject: str,
    stamps: tuple[str, ...],
    roles: tuple[str, ...],
    name: str,
    amr: tuple[str, ...],
    at: float | None,
    bound: str | None,
) -> SignedIn:
    auth = engine_of(visit.gate.gate)
    authority = auth.authority
    await authority.provide(subject)
    await agree(visit.gate, subject, stamps, roles, name)
    account = await authority.provide(subject)  # read after what may have raised its epoch
    proof = Verified(subject=subject, epoch=account.epoch, amr=amr, at=authority.clock() if at is None else at)
    return await authority.start(
        proof,
        mode="session",
        client=_client_of(auth, visit),
        account=account,
        replacing=await _held(auth, visit, bound),
    )


def _methods(request: Any) -> tuple[str, ...]:
    """Return how the user has authenticated (RFC 8176), as far as that is known: another backend may have asked another
    provider.
    """
    return ("pwd",) if request.session.get(BACKEND_SESSION_KEY) == _BY_PASSWORD else ()


def proved(request: Any, methods: tuple[str, ...]) -> None:
    """Start the session anew of a user who has just given further proofs. Raises `NotAuthenticated` without a user."""
    visit = visit_of(request)
    known, user = visit.known(), request.user
    if known is None or not user.is_authenticated:
        raise NotAuthenticated("no proof was sent")
    amr = tuple(dict.fromkeys((*known.principal.amr, *methods)))
    _start(request, visit, user, amr, None)


def logged_out(*, request: Any, **_: Any) -> None:
    """End the session of a request. Raises `Unavailable`: then the log-out did not happen, and must not seem to."""
    if request is None or not is_embedded():
        return
    visit = visit_of(request)
    known = visit.valid()
    session = getattr(request, "session", None)
    visit.run(_ended(visit, known, None if session is None else session.get(BOUND)))
    visit.become(None)
    visit.signed_in, visit.signed_out, visit.user = None, True, None


async def _ended(visit: Visit, known: Known | None, bound: str | None) -> None:
    auth = engine_of(visit.gate.gate)
    authority, client = auth.authority, _client_of(auth, visit)
    done = [
        await authority.end(session.id, client=client, actor=account.subject, found=(session, account))
        for session, account in await _held(auth, visit, bound)
    ]
    if known is not None and known.token is not None:
        done.append(await authority.end_named(await authority.claims_of_any_age(known.token), client=client))
    if done:
        await authority.fencing.fence(as_one(done), wait=FENCE_FOR)


async def _held(auth: Auth, visit: Visit, bound: str | None) -> list[Found]:
    """Return the live sessions that this browser holds: of each cookie of ours, and of Django's session."""
    authority = auth.authority
    found: dict[str, Found] = {}
    try:
        in_session, in_refresh = auth.site.cookies.standing(visit.asked.cookie())
    except AmbiguousCookie:  # more than any browser has
        in_session, in_refresh = [], []
    for tokens, owner_of in ((in_session, authority.bearer_of), (in_refresh, authority.holder)):
        for token in tokens:
            try:
                each = await owner_of(token)
            except NotAuthenticated:
                continue
            found[each[0].id] = each
    if bound is not None and bound not in found:
        theirs = await authority.store.session(bound)
        if theirs is not None and theirs[0].ended_at is None:
            found[bound] = theirs
    return list(found.values())


def _client_of(auth: Auth, visit: Visit) -> Client:
    return auth.observed(visit.asked)


# --- after a view ----------------------------------------------------------------------------------------------------


def finish(request: Any, visit: Visit) -> None:
    """Take care of what a view has written into Django's session. Raises `TooMuchData` and `Unavailable`."""
    session = getattr(request, "session", None)
    if session is None or not session.modified:
        return
    known = visit.valid()
    if known is not None and known.token is None:
        _continue_after_change(request, visit, known.principal)
        if visit.signed_in is None and not session.is_empty():
            _bind(session, visit, known)
    if hasattr(session, "store_now"):
        session.store_now()


def _bind(session: Any, visit: Visit, known: Known) -> None:
    """Have data end with the session of the cookie."""
    try:
        visit.gate.check(known)
    except NotAuthenticated:  # it has ended meanwhile, perhaps by this view
        session.flush()
        return
    if session.get(BOUND) != known.principal.session_id:
        _bind_data(session, known.principal.session_id or "", known.principal.subject)


def _forget_others(session: Any, subject: str) -> None:
    """Delete what another user has kept in this browser. Django's `login` takes that for a visitor's, unless it was the
    one that signed the other user in.
    """
    if session.get(OWNER, subject) != subject:
        mine = {name: session[name] for name in _OF_LOG_IN if name in session}
        session.flush()
        session.update(mine)


def _bind_data(session: Any, session_id: str, subject: str) -> None:
    """Have the data be that of one user, and end with the session, where our engine keeps it."""
    session[BOUND], session[OWNER] = session_id, subject
    if hasattr(session, "belong_to"):
        session.belong_to(session_id, subject)


def follow(request: Any, visit: Visit, response: Any) -> None:
    """Take care of Django's session after the API has answered: a sign-in there takes the visitor's data along, and a
    log-out deletes it.
    """
    session, cookies = getattr(request, "session", None), engine_of(visit.gate.gate).site.cookies
    if session is None or settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return
    found = cookies.present("; ".join(f"{name}={each.value}" for name, each in response.cookies.items()).encode())
    if found.session is not None:
        _adopt(session, visit, SessionToken.parse(found.session).id)
    elif found.refresh is not None:
        _adopt(session, visit, RefreshToken.parse(found.refresh).session_id)
    elif cookies.session.name in response.cookies:
        session.flush()


def _adopt(session: Any, visit: Visit, session_id: str) -> None:
    if session.get(BOUND) == session_id:  # a refresh, for example
        return
    known = visit.run(visit.gate.gate.of_session(session_id))
    subject = "" if known is None else known.principal.subject
    if subject != session.get(SESSION_KEY, subject) or subject != session.get(OWNER, subject):
        session.flush()  # the data of another user
    elif not session.is_empty():
        session.cycle_key()
    session.pop(SESSION_KEY, None)
    if not session.is_empty():
        _bind_data(session, session_id, subject)


def _continue_after_change(request: Any, visit: Visit, principal: Principal) -> None:
    """Start the session anew in which the user has changed the password: Django's `update_session_auth_hash` has put
    another hash into its session. Everything else that the user had is ended.
    """
    if visit.stamp is None or visit.signed_in is not None:
        return
    stamp = request.session.get(HASH_SESSION_KEY)
    if not stamp or stamp == visit.stamp:
        return
    user = find(principal.subject)  # as it is now: a form may have changed another object of the same user
    if user is not None and stamp == stamps_of(user)[0]:
        _start(request, visit, user, principal.amr, principal.auth_time)


# --- changes of users ------------------------------------------------------------------------------------------------


def changed(*, instance: Any, created: bool, raw: bool, update_fields: Any = None, **_: Any) -> None:
    """End what a user has when the password has changed or the user is inactive, after the transaction."""
    if created or raw or (update_fields is not None and not _MATTERS & set(update_fields)):
        return
    with_roles = update_fields is None or "is_superuser" in update_fields
    _after_commit([instance], is_active=getattr(instance, "is_active", True), with_roles=with_roles)


def removed(*, instance: Any, **_: Any) -> None:
    """End what a user had that was deleted."""
    _after_commit([instance], is_active=False)


def groups_changed(*, instance: Any, action: str, reverse: bool, pk_set: Any = None, **_: Any) -> None:
    """Give users the names of their groups as roles, when a user or a group has others."""
    if action == "pre_clear" and reverse:
        _after_commit(_members(instance))
    elif action.startswith("post_"):
        users = get_user_model()._default_manager  # noqa: SLF001 - Django's public way to a model's rows
        _after_commit(list(users.filter(pk__in=pk_set or ())) if reverse else [instance])


def group_changed(*, instance: Any, created: bool = False, raw: bool = False, **_: Any) -> None:
    """Give the members of a group that has another name, or is about to be deleted, their roles."""
    if not created and not raw:
        _after_commit(_members(instance))


def _members(group: Any) -> list[Any]:
    return list(get_user_model()._default_manager.filter(groups=group))  # noqa: SLF001


def _after_commit(users: list[Any], *, is_active: bool = True, with_roles: bool = True) -> None:
    named = [(user, subject_of(user), stamps_of(user)) for user in users]  # a deleted one has no key any more

    def now() -> None:
        held = gate()
        for user, subject, stamps in named:
            try:
                if is_active:
                    held.run(agree(held, subject, stamps, roles_of(user) if with_roles else None))
                else:
                    held.run(end_of(held, subject, "account_disabled"))
            except DutchdoorError as error:
                # The change stands. The next request of the user finds it.
                _log.warning("sessions of %s were not ended yet: %s", subject, error.reason or error)

    if users and is_embedded():
        transaction.on_commit(now)
