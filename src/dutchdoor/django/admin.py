"""The sessions of a user, in Django's admin, with a button that ends each.

The admin of the user model gets a page for this by itself if `dutchdoor.django` stands after its application in
`INSTALLED_APPS`. Another one inherits from `SessionsOfUser`.

Where `LOGIN_URL` is the engine's page, the admin signs people in there, too.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import ModelAdmin
from django.contrib.auth import get_user_model
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from dutchdoor.django.accounts import FENCE_FOR
from dutchdoor.django.configuration import gate, is_embedded, signs_in_here
from dutchdoor.django.users import subject_of
from dutchdoor.django.visit import visit_of
from dutchdoor.errors import NotFound
from dutchdoor.guard.attached import engine_of
from dutchdoor.model.acting import SYSTEM
from dutchdoor.model.http_client import Client
from dutchdoor.model.sessions import Session

__all__ = ["SessionsOfUser"]


class SessionsOfUser(ModelAdmin):
    """Adds the page of sessions to the admin of users: a link in a field of each user."""

    def get_readonly_fields(self, request: Any, obj: Any = None) -> Any:
        """Return the fields with the link."""
        found = super().get_readonly_fields(request, obj)
        return (*found, "sessions") if obj is not None and is_embedded() else found

    def get_fieldsets(self, request: Any, obj: Any = None) -> Any:
        """Return the sections with one more."""
        found = super().get_fieldsets(request, obj)
        if obj is None or not is_embedded():
            return found
        mine = [section for section in found if "sessions" not in section[1]["fields"]]
        return [*mine, ("Sessions", {"fields": ("sessions",)})]

    @admin.display(description="Sessions")
    def sessions(self, user: Any) -> Any:
        """Return the link to the page."""
        return format_html('<a href="{}">Show and end sessions</a>', self._page_of(user))

    def get_urls(self) -> Any:
        """Return the paths with one more."""
        name = f"{self.opts.app_label}_{self.opts.model_name}_dutchdoor"
        mine = path("<path:key>/sessions/", self.admin_site.admin_view(self._show), name=name)
        return [mine, *super().get_urls()]

    def _page_of(self, user: Any) -> Any:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_dutchdoor"
        return reverse(name, args=[user.pk])

    def _show(self, request: Any, key: str) -> Any:
        """List the sessions of a user; POST ends the one that `end` names, or `all` of them."""
        user = self.get_object(request, key)
        if user is None:
            raise Http404
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        if request.method == "POST":
            _end(request, subject_of(user), request.POST.get("end", ""))
            return HttpResponseRedirect(self._page_of(user))
        held = gate()
        found = held.run(engine_of(held.gate).authority.sessions(subject_of(user)))
        context = {
            **self.admin_site.each_context(request),
            "title": f"Sessions of {user}",
            "opts": self.opts,
            "original": user,
            "sessions": [_row(session) for session in found],
        }
        return TemplateResponse(request, "admin/dutchdoor/sessions.html", context)


def _row(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "device": session.device or "unknown",
        "address": session.address or "unknown",
        "country": session.country,
        "mode": session.mode,
        "created": datetime.fromtimestamp(session.created_at, UTC),
        "seen": datetime.fromtimestamp(session.last_seen_at, UTC),
    }


def _end(request: Any, subject: str, which: str) -> None:
    visit = visit_of(request)
    actor = visit.principal()
    who = actor.subject if actor is not None else SYSTEM
    client = engine_of(visit.gate.gate).observed(visit.asked)
    visit.run(_ended(subject, which, client, who))
    messages.success(request, "All sessions have ended." if which == "all" else "The session has ended.")


async def _ended(subject: str, which: str, client: Client, actor: str) -> None:
    authority = engine_of(gate().gate).authority
    try:
        if which == "all":
            done = await authority.end_all(subject, client=client, actor=actor, reason="ended_by_admin")
        else:
            done = await authority.end(which, client=client, actor=actor, reason="ended_by_admin", subject=subject)
    except NotFound:
        return
    await authority.fencing.fence(done, wait=FENCE_FOR)


def _add_to_registered() -> None:
    """Add the page to the admin of the user model, where it is registered already."""
    user = get_user_model()
    registered = admin.site._registry.get(user)  # noqa: SLF001 - Django has no public way to what is registered
    if registered is not None and not isinstance(registered, SessionsOfUser):
        theirs = type(registered)
        admin.site.unregister(user)
        admin.site.register(user, type(theirs.__name__, (SessionsOfUser, theirs), {}))


def _sign_in_on_one_page() -> None:
    """Lead people who open the admin to the engine's page to sign in, where that is the project's. The admin's own form
    asks for a password alone: with a stolen one, it would be a way around the second factor.
    """
    theirs = admin.site.login

    @functools.wraps(theirs)
    def login(request: Any, extra_context: Any = None) -> Any:
        if not signs_in_here() or (request.method == "GET" and admin.site.has_permission(request)):
            return theirs(request, extra_context)
        if request.user.is_authenticated:  # the page would lead back here
            raise PermissionDenied(f"You are signed in as {request.user}, who may not use this page.")
        return redirect_to_login(request.GET.get("next") or reverse("admin:index", current_app=admin.site.name))

    admin.site.login = login


_add_to_registered()
_sign_in_on_one_page()
