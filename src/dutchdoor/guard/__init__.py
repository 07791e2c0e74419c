"""What the adapters of all frameworks share: who sends a request, what a route requires, and what a refusal looks like.

`gates` finds the principal, in an application that embeds `Auth` and in a service that only verifies; `requirement` is
what `auth.require(...)` checks; `asgi` puts both around an ASGI application.
"""
