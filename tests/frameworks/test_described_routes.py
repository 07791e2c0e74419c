"""The application's own OpenAPI document describes the API, and what each route with a guard asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from fastapi import APIRouter, Depends, FastAPI
from litestar import Litestar, get
from litestar.params import FromPath
from litestar.testing import TestClient as LitestarClient
from starlette.testclient import TestClient

import dutchdoor.fastapi
import dutchdoor.litestar


def fastapi_document(**settings: Any) -> Any:
    app = FastAPI()
    auth = dutchdoor.fastapi.Auth(app, **settings)

    @app.get("/open")
    async def anyone() -> None: ...

    @app.get("/hello")
    async def hello(user: dutchdoor.fastapi.CurrentUser) -> None: ...

    @app.get("/maybe")
    async def maybe(user: dutchdoor.fastapi.OptionalUser) -> None: ...

    reports = APIRouter(prefix="/reports")

    @reports.get("/{number}", dependencies=[Depends(auth.require(role="admin"))])
    async def report(number: int) -> None: ...

    app.include_router(reports)
    return TestClient(app).get("/openapi.json").json()


def litestar_document(**settings: Any) -> Any:
    auth = dutchdoor.litestar.Auth(**settings)

    @get("/open")
    async def anyone() -> None: ...

    @get("/hello")
    async def hello(current_user: dutchdoor.litestar.CurrentUser) -> None: ...

    @get("/maybe")
    async def maybe(optional_user: dutchdoor.litestar.OptionalUser) -> None: ...

    @get("/reports/{number:int}", guards=[auth.require(role="admin")])
    async def report(number: FromPath[int]) -> None: ...

    app = Litestar([anyone, hello, maybe, report], plugins=[auth])
    return LitestarClient(app).get("/schema/openapi.json").json()


DOCUMENTS = pytest.mark.parametrize("document", [fastapi_document, litestar_document], ids=["fastapi", "litestar"])


@DOCUMENTS
def test_the_document_has_the_api_and_the_guards(document: Callable[..., Any]) -> None:
    """The routes of the API stand in the application's document with their schemas, and a route with a guard names the
    ways to prove who one is. It is valid OpenAPI.
    """
    found = document(database="memory:")
    schemathesis.openapi.from_dict(found).validate()
    proofs = [{"session": []}, {"bearer": []}, {"dpop": []}]
    for path in ("/hello", "/reports/{number}"):
        assert found["paths"][path]["get"]["security"] == proofs
        assert "401" in found["paths"][path]["get"]["responses"]
    for path in ("/open", "/maybe"):
        assert "security" not in found["paths"][path]["get"]
    assert {"/auth/login", "/auth/refresh", "/.well-known/jwks.json"} <= found["paths"].keys()
    assert "/livez" not in found["paths"] and "/docs" not in found["paths"]
    assert {"session", "bearer"} <= found["components"]["securitySchemes"].keys()


@DOCUMENTS
def test_the_document_has_the_base_path(document: Callable[..., Any]) -> None:
    """Below a base path the routes stand as clients call them."""
    found = document(database="memory:", base_path="/id")
    assert "/id/auth/login" in found["paths"] and "/auth/login" not in found["paths"]


@DOCUMENTS
def test_a_service_that_only_verifies_describes_the_token(document: Callable[..., Any]) -> None:
    """It has no route of the API, and only tokens prove who one is."""
    found = document(issuer="http://localhost:1")
    schemathesis.openapi.from_dict(found).validate()
    assert found["paths"].keys() == {"/open", "/hello", "/maybe", "/reports/{number}"}
    assert found["paths"]["/hello"]["get"]["security"] == [{"bearer": []}, {"dpop": []}]
