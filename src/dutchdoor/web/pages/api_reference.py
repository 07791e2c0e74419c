"""Convert an OpenAPI 3.1 document to the content of the API page: groups of calls, and the records that they use.

A call shows the fields of its request. All other records appear once, in the list of records, with links to them. So a
reference is followed only one step, and a record may contain itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

__all__ = ["Body", "Field", "Group", "Operation", "Outline", "Piece", "Record", "outline"]

_METHODS = ("get", "post", "put", "patch", "delete")


class Piece(Struct, frozen=True):
    """A part of the text of a type. `record` is the name of a record to link to, or "" for plain text."""

    text: str
    record: str = ""


class Field(Struct, frozen=True, kw_only=True):
    """A property, a parameter or a header. `place` is the location of a parameter: path, query, header or cookie."""

    name: str
    type: Sequence[Piece]
    required: bool
    description: str
    place: str = ""


class Body(Struct, frozen=True, kw_only=True):
    """The body of a request or a response. `label` is the media type of a request or the status of a response."""

    label: str
    description: str
    type: Sequence[Piece]
    fields: Sequence[Field]


class Operation(Struct, frozen=True, kw_only=True):
    id: str
    method: str
    path: str
    summary: str
    description: str
    deprecated: bool
    guarded: bool
    parameters: Sequence[Field]
    requests: Sequence[Body]
    answers: Sequence[Body]


class Group(Struct, frozen=True, kw_only=True):
    name: str
    operations: Sequence[Operation]


class Record(Struct, frozen=True, kw_only=True):
    name: str
    description: str
    type: Sequence[Piece]
    fields: Sequence[Field]


class Outline(Struct, frozen=True, kw_only=True):
    title: str
    version: str
    description: str
    groups: Sequence[Group]
    records: Sequence[Record]


def outline(document: Mapping[str, Any]) -> Outline:
    """Group the calls of a document by their first tag, or by the first segment of the path, in document order."""
    about = document.get("info", {})
    groups: dict[str, list[Operation]] = {}
    for path, item in document.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                call = item[method]
                group = next(iter(call.get("tags", ())), None) or path.strip("/").split("/")[0] or "/"
                groups.setdefault(group, []).append(_operation(document, path, method, item, call))
    return Outline(
        title=about.get("title", ""),
        version=about.get("version", ""),
        description=about.get("description", ""),
        groups=[Group(name=name, operations=operations) for name, operations in groups.items()],
        records=[
            Record(
                name=name,
                description=schema.get("description", ""),
                type=_type(schema),
                fields=_fields(schema),
            )
            for name, schema in document.get("components", {}).get("schemas", {}).items()
        ],
    )


def _operation(
    document: Mapping[str, Any], path: str, method: str, item: Mapping[str, Any], call: Mapping[str, Any]
) -> Operation:
    found = (_found(document, p) for p in (*item.get("parameters", ()), *call.get("parameters", ())))
    answers = ((status, _found(document, answer)) for status, answer in call.get("responses", {}).items())
    return Operation(
        id=re.sub(r"[^a-z0-9]+", "-", f"{method}{path}".lower()).strip("-"),
        method=method.upper(),
        path=path,
        summary=call.get("summary", ""),
        description=call.get("description", ""),
        deprecated=bool(call.get("deprecated")),
        guarded=bool(call.get("security", document.get("security"))),
        parameters=[
            Field(
                name=p.get("name", ""),
                type=_type(p.get("schema", {})),
                required=bool(p.get("required")),
                description=p.get("description", ""),
                place=p.get("in", ""),
            )
            for p in found
        ],
        requests=list(_bodies(document, _found(document, call.get("requestBody", {})))),
        answers=[body for status, answer in answers for body in _answer(document, str(status), answer)],
    )


def _found(document: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow one reference inside the document. Another reference is returned unchanged, a broken one as {}."""
    where = part.get("$ref", "")
    if not where.startswith("#/"):
        return part
    found: Any = document
    for step in where[2:].split("/"):
        found = found.get(step, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def _bodies(document: Mapping[str, Any], holder: Mapping[str, Any]) -> Iterator[Body]:
    for media, content in holder.get("content", {}).items():
        schema = content.get("schema", {})
        yield Body(
            label=media,
            description=holder.get("description", ""),
            type=_type(schema),
            fields=_fields(_found(document, schema)),
        )


def _answer(document: Mapping[str, Any], status: str, answer: Mapping[str, Any]) -> Iterator[Body]:
    words = answer.get("description", "")
    bodies = list(_bodies(document, answer)) or [Body(label="", description=words, type=(), fields=())]
    for body in bodies:
        yield Body(label=status, description=words, type=body.type, fields=body.fields)


def _fields(schema: Mapping[str, Any]) -> list[Field]:
    required = schema.get("required", ())
    return [
        Field(
            name=name,
            type=_type(part),
            required=name in required,
            description=part.get("description", "") if isinstance(part, Mapping) else "",
        )
        for name, part in schema.get("properties", {}).items()
    ]


def _type(schema: Any) -> list[Piece]:
    """Describe the type of a JSON Schema in a few words: "string (email)", "array of User or null"."""
    if not isinstance(schema, Mapping):
        return [Piece("anything" if schema is True else "nothing")]
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return [Piece(name, record=name)]
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return _joined([_type(part) for part in schema[either]], " or ")
    if len(schema.get("allOf", ())) == 1:
        return _type(schema["allOf"][0])
    if "const" in schema:
        return [Piece(_literal(schema["const"]))]
    if "enum" in schema:
        return [Piece(" or ".join(_literal(value) for value in schema["enum"]))]
    kinds = schema.get("type", "object" if "properties" in schema else "anything")
    return _joined([_kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds)], " or ")


def _kind(kind: str, schema: Mapping[str, Any]) -> list[Piece]:
    if kind == "array" and "items" in schema:
        return [Piece("array of "), *_type(schema["items"])]
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        return [Piece("object of "), *_type(schema["additionalProperties"])]
    if kind == "string" and "format" in schema:
        return [Piece(f"string ({schema['format']})")]
    return [Piece(kind)]


def _joined(parts: Sequence[Sequence[Piece]], word: str) -> list[Piece]:
    joined: list[Piece] = []
    for part in parts:
        joined += [Piece(word), *part] if joined else part
    return joined


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else "null" if value is None else str(value).lower()
