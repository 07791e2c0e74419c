"""The phases of every request, in every framework.

    admit      is the host configured, and do forwarding headers come from a configured proxy
    preflight  does a browser ask whether a page of another origin may send a request
    origin     did a page of another site cause this request (unsafe methods)
    caller     who sent the request, by cookie or bearer token, and does the route allow them
    key        which key does a client prove that is about to get tokens
    csrf       if the proof is a cookie, did a page of this server send the CSRF token
    body       limited, of the right type, decoded strictly
    handler    the code of the route
    finish     problems, CORS and security headers

A handler cannot forget a phase, because the phases run outside the handlers.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from dutchdoor.errors import DutchdoorError, Forbidden, NotAuthenticated, StepUpRequired, Unavailable
from dutchdoor.web import origin as origins
from dutchdoor.web.api import ADMIN, Api, Call, Page, Route
from dutchdoor.web.body import JsonBody, read_form, read_query
from dutchdoor.web.browser import sends_a_form
from dutchdoor.web.headers import SecurityHeaders
from dutchdoor.web.http import CrossSite, Header, Request, Response
from dutchdoor.web.program_auth import client_of, is_verifier, verifier_of

__all__ = ["Phases"]


class Phases:
    """Takes each request through the phases, over one API."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self._readers = {
            route.body: JsonBody(route.body, at_most=route.body_at_most)
            for route in api.routes
            if route.body is not None
        }
        self._security = SecurityHeaders(hsts=api.site.hsts if api.site.cookies.secure else "off")

    def admit(self, request: Request) -> Response | None:
        """Run the phases before routing. Returns the response to a preflight; raises the error of a refused request."""
        self.api.site.edge.admit(request)
        if self.api.first_request is not None:
            self.api.first_request(request)
        cors = self.api.site.cors
        # The proxy first: what `passes` refuses is for a configured one to read.
        if self.api.site.edge.came_through_proxy(request) and cors.passes(request):
            return Response(204)
        return cors.preflight(request)

    async def answer(self, route: Route, request: Request, params: Mapping[str, str]) -> Response:
        """Run the phases of a route for an admitted request. Raises the error of a refused request."""
        unsafe = request.method not in origins.SAFE_METHODS
        call = Call(self.api, request, params)
        if unsafe and route.own_origin:
            call.judge(request.method, by_cookie=False, handshake=False)
        if request.query and not route.form and not route.query_of_another:
            call.query = read_query(request, known=route.query)
        fields: dict[str, str] | None = None
        if route.page is not None and sends_a_form(request):
            if not call.from_browser:  # what no preflight protects must say where it comes from
                raise CrossSite("a form without an Origin")
            fields = read_form(request)
            call.csrf_field = fields.get("csrf_token")
        try:
            await self._identify(route, call, unsafe=unsafe)
        except (NotAuthenticated, StepUpRequired) as error:
            # A page leads to the proof again by itself; a proxy asks on behalf of one.
            if route.unproven is None or (isinstance(error, StepUpRequired) and not route.query_of_another):
                raise
            return route.unproven(call, error)
        if call.caller is None and unsafe and b"dpop" in request.by_name:
            call.prove_key()
        if fields is not None and route.page is not None:
            return call.offering(call.clearing(await self._answer_form(route, route.page, call, fields)))
        if route.form:
            call.form = read_form(request)
        elif route.body is not None:
            reader = self._readers[route.body]
            call.body = reader.read_if_sent(request) if route.optional_body else reader.read(request)
        return call.with_nonce(call.offering(call.clearing(await route.handler(call))))

    async def _identify(self, route: Route, call: Call, *, unsafe: bool) -> None:
        """Find out who sends a request, and raise unless the route lets them in."""
        request = call.request
        development = self.api.site.edge.development
        if route.demands == "client" or (
            route.demands == "introspection" and not is_verifier(request, development=development)
        ):
            call.service = await client_of(request, self.api.authority.store)
        elif route.demands in {"verifier", "introspection"}:
            call.verifier = await verifier_of(request, self.api.verifiers, development=development)
        elif route.demands != "anyone":
            call.caller = await call.identify(in_doubt=route.in_doubt, by_refresh_cookie=route.by_refresh_cookie)
            caller = call.required
            if route.demands == ADMIN and not caller.principal.has_role(ADMIN):
                raise Forbidden.without_role(ADMIN)
            if route.fresh or (route.demands == ADMIN and unsafe):
                await self.api.check_fresh(caller.principal)
            if unsafe and caller.by_cookie and caller.session is not None:
                call.check_csrf(caller.session.id)

    async def _answer_form(self, route: Route, page: Page, call: Call, fields: Mapping[str, str]) -> Response:
        reader = self._readers.get(route.body) if route.body is not None else None
        try:
            taken = page.take(call, fields)
            call.body = None if reader is None else reader.take(taken)
            return await page.answer(call, await route.handler(call), fields)
        except DutchdoorError as error:
            if isinstance(error, Unavailable):
                self.api.outages.note(error)
            return await page.refuse(call, error, fields)

    def finish(self, request: Request, response: Response) -> list[Header]:
        """Return all headers of the response. Also called after a refusal by `admit`: it must not trust the request."""
        headers = self._security.finish(response)
        if request.renewed is not None and not _sets(headers, request.renewed):
            headers.append(request.renewed)
        with suppress(DutchdoorError):  # a repeated Origin gets no CORS headers
            more = self.api.site.cors.headers(request)
            if not more or more[0] not in headers:  # a preflight has them already, and browsers refuse repeated ones
                headers.extend(more)
        return headers


def _sets(headers: list[Header], cookie: Header) -> bool:
    """Whether headers set or clear the same cookie: a log-out clears it, and another password brings another one."""
    name = cookie[1].partition(b"=")[0] + b"="
    return any(header[0] == b"set-cookie" and header[1].startswith(name) for header in headers)
