"""The same in Django over ASGI, with a stream of an asynchronous iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import django_app
from django.core.asgi import get_asgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path

from dutchdoor.django import auth


@auth.require()
async def hello(request: Any) -> JsonResponse:
    user, principal = await request.auser(), request.principal
    return JsonResponse(
        {"email": user.email, "id": str(user.pk), "subject": principal.subject, "method": principal.method}
    )


@auth.require()
async def stream(request: Any) -> StreamingHttpResponse:
    async def numbers() -> AsyncIterator[str]:
        for number in range(10_000):
            yield f"{number}\n"
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(numbers(), content_type="text/plain")


django_app.urlpatterns[:0] = [path("hello", hello), path("stream", stream)]
app = get_asgi_application()
