"""Bodies: bounded, of one type, of known fields; and no message repeats what was sent."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.costs import cost

from dutchdoor.errors import DutchdoorError, InvalidInput
from dutchdoor.web.body import BODY_AT_MOST, Body, BoundedBody, JsonBody, read_form, read_query
from dutchdoor.web.http import BadRequest, Request, TooLarge, UnsupportedMediaType

FORM = "application/x-www-form-urlencoded"


class Login(Body, frozen=True, kw_only=True):
    email: str
    password: str
    mode: Literal["session", "hybrid", "jwt"] | None = None
    remember: bool = False
    name: Annotated[str, msgspec.Meta(max_length=10)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Part(Body, frozen=True, kw_only=True):
    kind: str


class Nested(Body, frozen=True, kw_only=True):
    parts: tuple[Part, ...] = ()
    free: dict[str, Any] | None = None
    anything: Any = None


LOGIN = JsonBody(Login, at_most=4096)
NESTED = JsonBody(Nested)
GOOD = b'{"email": "a@b.example", "password": "correct horse"}'


def request(
    body: bytes, content_type: str | None = "application/json", *more: tuple[bytes, bytes], query: bytes = b""
) -> Request:
    headers = [] if content_type is None else [(b"content-type", content_type.encode("latin-1"))]
    return Request("POST", "/auth/login", query, [*headers, *more], "127.0.0.1", "http", body)


def test_s19_json_is_read() -> None:
    """The type may name its charset, in any case."""
    for declared in (
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        'application/json ; charset="utf-8"',
        "application/json;",
        "application/json ; ;charset=utf-8;",
        "application/json;  charset=utf-8 ",
    ):
        assert LOGIN.read(request(GOOD, declared)) == Login(email="a@b.example", password="correct horse")


@pytest.mark.parametrize(
    "declared",
    [
        None,
        "",
        "text/plain",
        "text/plain;charset=utf-8",
        FORM,
        "multipart/form-data; boundary=x",
        "application/problem+json",
        "application/jsonp",
        "application/json5",
        "xapplication/json",
        "text/plain; application/json",
        "application/json, text/plain",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; x=y",
        "application/json; charset",
        "application/json charset=utf-8",
        "json",
        "*/*",
        "application/json\x00",
        "application/ json",
    ],
)
def test_s19_anything_but_json_is_refused(declared: str | None) -> None:
    """A form on another site can send text/plain, a form or multipart without asking; it cannot send JSON."""
    with pytest.raises(UnsupportedMediaType):
        LOGIN.read(request(GOOD, declared))


def test_s19_the_type_is_refused_before_anything_is_parsed() -> None:
    """A body that is not even JSON gets 415, and one that is too long 413, whatever is in it."""
    with pytest.raises(UnsupportedMediaType):
        LOGIN.read(request(b"\xff\xff", "text/plain"))
    with pytest.raises(TooLarge):
        LOGIN.read(request(b"\xff" * 5000, "text/plain"))


def test_s19_two_content_types_are_refused() -> None:
    """The proxy would believe one, and we the other."""
    with pytest.raises(BadRequest):
        LOGIN.read(request(GOOD, "application/json", (b"content-type", b"text/plain")))


def test_s19_a_compressed_body_is_refused() -> None:
    """A kilobyte of gzip can be a megabyte of body."""
    with pytest.raises(UnsupportedMediaType):
        LOGIN.read(request(GOOD, "application/json", (b"content-encoding", b"gzip")))
    assert LOGIN.read(request(GOOD, "application/json", (b"content-encoding", b"identity")))


def test_p21_a_body_that_may_be_missing_is_strict_when_it_is_there() -> None:
    """P21: a log-out sends none, and the type that a library declares for it does not matter. With a body, the rules
    are the same as anywhere.
    """
    for declared in (None, "application/json", "Application/JSON; charset=utf-8", "text/plain;charset=UTF-8", FORM, ""):
        assert LOGIN.read_if_sent(request(b"", declared)) is None
    assert LOGIN.read_if_sent(request(b"", "text/plain", (b"content-encoding", b"gzip"))) is None
    assert LOGIN.read_if_sent(request(GOOD)) == LOGIN.read(request(GOOD))
    for declared in ("text/plain", FORM):
        with pytest.raises(UnsupportedMediaType):
            LOGIN.read_if_sent(request(GOOD, declared))
    with pytest.raises(UnsupportedMediaType):
        LOGIN.read_if_sent(request(GOOD, None))


@pytest.mark.parametrize(
    "field", ["role", "roles", "is_admin", "admin", "email_verified", "id", "sub", "status", "__class__", "Email"]
)
def test_p05_a_field_no_one_asked_for_is_refused_by_name(field: str) -> None:
    """Mass assignment: what is not in the record cannot reach it, and the client gets an error."""
    body = json.dumps({"email": "a@b.example", "password": "x", field: True}).encode()
    with pytest.raises(InvalidInput, match="not known") as refused:
        LOGIN.read(request(body))
    assert refused.value.field == field


def test_p05_a_record_that_forgives_unknown_fields_is_no_body() -> None:
    """The root class carries the rule, so that no body forgets it, nested ones included."""

    class Lax(msgspec.Struct):
        email: str

    with pytest.raises(TypeError):
        JsonBody(Lax)
    with pytest.raises(InvalidInput) as refused:
        NESTED.read(request(b'{"parts": [{"kind": "a"}, {"kind": "b", "role": "admin"}]}'))
    assert refused.value.field == "parts[1].role"


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        (b"{}", "email", "This field is required."),
        (b'{"email": "a"}', "password", "This field is required."),
        (b'{"email": 7, "password": "x"}', "email", "This must be text."),
        (b'{"email": null, "password": "x"}', "email", "This must be text."),
        (b'{"email": ["a"], "password": "x"}', "email", "This must be text."),
        (b'{"email": {"$ne": 1}, "password": "x"}', "email", "This must be text."),
        (b'{"email": "a", "password": "x", "remember": "yes"}', "remember", "This must be true or false."),
        (b'{"email": "a", "password": "x", "remember": 1}', "remember", "This must be true or false."),
        (b'{"email": "a", "password": "x", "mode": "canary"}', "mode", "This must be session, hybrid or jwt."),
        (b'{"email": "a", "password": "x", "mode": 1}', "mode", "This must be session, hybrid or jwt."),
        (
            b'{"email": "a", "password": "x", "name": "canary canary"}',
            "name",
            "This has the wrong length: it must be <= 10.",
        ),
        (b'{"email": "a", "password": "x", "count": 0}', "count", "This must be a number >= 1."),
        (b'{"email": "a", "password": "x", "count": 1.5}', "count", "This must be a whole number or null."),
        (b'{"email": "a", "password": "x", "count": 1e400}', "count", "This value is not accepted."),
        (b"[]", "", "The body must be an object."),
        (b"null", "", "The body must be an object."),
        (b'"canary"', "", "The body must be an object."),
    ],
)
def test_bad_input_is_named_by_its_field_in_words(body: bytes, field: str, says: str) -> None:
    """A person can fix it, and a program knows where."""
    with pytest.raises(InvalidInput) as refused:
        LOGIN.read(request(body))
    assert (refused.value.field, str(refused.value)) == (field, says)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        GOOD + b"x",
        GOOD + GOOD,
        b"{'email': 'a'}",
        b'{"email": "a",}',
        b'{"email": NaN, "password": "x"}',
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        b'{"email": "\xff", "password": "x"}',
        b'{"email": "\xed\xa0\x80", "password": "x"}',
        b'{"email": "\\ud800", "password": "x"}',
        b'{"email": "a\x00"}',
        b'{"anything": ' + b"[" * 60_000,
        b'{"free": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
        b'{"anything": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    """Wrong syntax, wrong UTF-8, depth: one refusal, and no stack runs out."""
    for reader in (NESTED, JsonBody(Login)):
        with pytest.raises((BadRequest, InvalidInput)) as refused:
            reader.read(request(body))
        assert refused.value.code in {"malformed_json", "invalid_input"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"email": "a", "password": "x", "email": "b"}',
        b'{"email": "a", "password": "x", "password": "x"}',
        b'{"em\\u0061il": "a", "password": "x", "email": "b"}',
    ],
)
def test_a_member_named_twice_is_refused(body: bytes) -> None:
    """The one who checks would read the first and the one who acts the last."""
    with pytest.raises(BadRequest, match="occurs twice") as refused:
        LOGIN.read(request(body))
    assert refused.value.code == "repeated_field"


def test_a_member_named_twice_is_refused_at_any_depth() -> None:
    """Also where the shape is free."""
    for body in (b'{"parts": [{"kind": "a", "kind": "b"}]}', b'{"free": {"a": {"b": 1, "b": 2}}}'):
        with pytest.raises(BadRequest, match="twice"):
            NESTED.read(request(body))
    assert NESTED.read(request(b'{"free": {"a": {"a": {"a": 1}}}}')).free == {"a": {"a": {"a": 1}}}


CANARY = "canary5ecret"


def test_i23_no_refusal_of_repeats_says_more_than_a_name() -> None:
    """Neither the two values nor a name that is no name: it may be a password in the wrong place."""
    bodies = [
        b'{"email": "canary5ecret", "password": "canary5ecret", "email": "canary5ecret"}',
        b'{"free": {"canary5ecret !": 1, "canary5ecret !": 2}}',
    ]
    for reader, body in zip((LOGIN, NESTED), bodies, strict=True):
        with pytest.raises(BadRequest, match="twice") as refused:
            reader.read(request(body))
        assert CANARY not in f"{refused.value} {refused.value.reason}"
    with pytest.raises(BadRequest, match="more than once") as refused:
        read_form(request(b"canary5ecret+%21=a&canary5ecret+%21=b", FORM))
    assert CANARY not in str(refused.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5).map(lambda t: CANARY + t),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["email", "password", "mode", "name", "count", "parts", "kind", "free", "role"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=8,
    )
)
def test_i23_no_refusal_repeats_a_value(value: object) -> None:
    """Whatever is sent, an error's texts hold nothing of it: it may be a password in the wrong field."""
    body = json.dumps(value).encode()
    for reader in (LOGIN, NESTED):
        try:
            reader.read(request(body))
        except DutchdoorError as error:
            assert CANARY not in f"{error} {error.reason} {getattr(error, 'field', '')}"


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda t: json.dumps({"email": t, "password": t}).encode()))
def test_any_bytes_give_a_record_or_our_refusal(body: bytes) -> None:
    """And the text in a record can be written out again."""
    try:
        read = LOGIN.read(request(body))
    except DutchdoorError:
        return
    read.email.encode("utf-8")


@given(st.text(max_size=100))
def test_a_fields_name_is_repeated_only_if_it_looks_like_one(name: str) -> None:
    """A name is the caller's text as well: quotes, markup and megabytes stay out of our answers."""
    body = json.dumps({"email": "a", "password": "b", name: 1}).encode()
    try:
        LOGIN.read(request(body))
    except InvalidInput as error:
        assert all(c.isascii() and (c.isalnum() or c in "_.-") for c in error.field)
        assert len(error.field) <= 64
    except BadRequest:
        pass


# --- length ---


def test_c03_a_body_is_refused_by_its_declared_length() -> None:
    """Before the first byte of it is read."""
    sent = request(b"", "application/json", (b"content-length", b"65537"))
    with pytest.raises(TooLarge):
        BoundedBody(sent)
    BoundedBody(request(b"", "application/json", (b"content-length", b"65536")))
    with pytest.raises(TooLarge):
        BoundedBody(request(b"", None, (b"content-length", b"9" * 5000)))  # more digits than int() reads


def test_c03_a_body_is_refused_at_its_first_byte_too_many() -> None:
    """A chunked body declares nothing, and a false length is no promise."""
    body = BoundedBody(request(b"", None, (b"content-length", b"3")), at_most=10)
    body.add(b"12345")
    body.add(b"67890")
    assert body.whole() == b"1234567890"
    with pytest.raises(TooLarge):
        body.add(b"1")
    assert BoundedBody(request(b"", None)).whole() == b""


@pytest.mark.parametrize("length", ["", "-1", "+1", "1.0", "0x10", "1 2", "1,1", "\u00b2", "1_000", "NaN"])
def test_c03_a_length_that_is_no_number_is_refused(length: str) -> None:
    """Two readings of a length are how requests are smuggled."""
    with pytest.raises(BadRequest):
        BoundedBody(request(b"", None, (b"content-length", length.encode("latin-1"))))


def test_i24_the_costliest_body_is_cheap() -> None:
    """The most names and the deepest nesting that fit: refused or read in a moment."""
    many = b"{" + b",".join(b'"%d":1' % n for n in range(6500)) + b"}"
    assert len(many) <= BODY_AT_MOST

    def is_read() -> None:
        NESTED.read(request(b'{"free": ' + many + b"}"))
        with pytest.raises(InvalidInput):
            JsonBody(Login).read(request(many))

    assert cost(is_read) < 0.5


# --- forms ---


def test_o16_a_form_is_read() -> None:
    """Plus, percent and UTF-8; a parameter without a value is as good as absent."""
    body = b"grant_type=refresh_token&refresh_token=ddr1_a-b&scope=a+b%20c&empty=&bare&name=%C3%A4"
    expected = {"grant_type": "refresh_token", "refresh_token": "ddr1_a-b", "scope": "a b c", "name": "ä"}
    assert read_form(request(body, FORM)) == expected
    assert read_form(request(body, FORM + ";charset=UTF-8")) == expected
    assert read_form(request(b"", FORM)) == {}


@pytest.mark.parametrize(
    "body", [b"token=a&token=b", b"token=a&token=a", b"token=a&x=1&token=", b"token&token=a", b"tok%65n=a&token=b"]
)
def test_o16_a_repeated_parameter_is_refused(body: bytes) -> None:
    """RFC 6749, section 3.1, also where one of them is empty or spelled otherwise."""
    with pytest.raises(BadRequest, match="token was sent more than once") as refused:
        read_form(request(body, FORM))
    assert refused.value.code == "invalid_request"


def test_o16_parameters_in_the_url_are_refused() -> None:
    """Neither mixed with the body nor alone: URLs are logged."""
    for query in (b"token=a", b"token=b", b"x", b"&"):
        with pytest.raises(BadRequest):
            read_form(request(b"token=a", FORM, query=query))


@pytest.mark.parametrize(
    "declared", [None, "application/json", "text/plain", "multipart/form-data; boundary=x", FORM + "; charset=latin-1"]
)
def test_o16_only_a_form_is_a_form(declared: str | None) -> None:
    """The token endpoint reads one type."""
    with pytest.raises(UnsupportedMediaType):
        read_form(request(b"token=a", declared))


@pytest.mark.parametrize(
    "body",
    [b"a=%", b"a=%4", b"a=%zz", b"a=%ff", b"a=\xc3\xa4", b"a b=c", b"a=b\n", b"a=\x00", b"a=%ed%a0%80", b'a="b"'],
)
def test_o16_what_is_not_properly_encoded_is_refused(body: bytes) -> None:
    """It is not guessed at."""
    with pytest.raises(BadRequest):
        read_form(request(body, FORM))


def test_o18_long_forms_are_refused_before_they_are_parsed() -> None:
    """A megabyte of scope, or of parameters, costs nothing."""

    def is_refused() -> None:
        with pytest.raises(TooLarge):
            read_form(request(b"scope=" + b"a" * 1_000_000, FORM))
        with pytest.raises(BadRequest, match="too many"):
            read_form(request(b"&".join(b"a%d=1" % n for n in range(65)), FORM))
        with pytest.raises(BadRequest, match="too many"):
            read_form(request(b"&" * 60_000, FORM))

    assert cost(is_refused) < 0.05


@given(st.binary(max_size=200))
def test_o16_any_bytes_give_a_form_or_our_refusal(body: bytes) -> None:
    """No exception but ours, and nothing in a form that is not UTF-8."""
    try:
        form = read_form(request(body, FORM))
    except BadRequest:
        return
    assert "".join([*form, *form.values()]).encode("utf-8") is not None


def test_a_query_is_read_by_name() -> None:
    """What is not known is refused, as in a body; what is repeated as in a form."""
    assert read_query(request(b"", None, query=b"except=current"), known={"except"}) == {"except": "current"}
    assert read_query(request(b"", None, query=b""), known={"except"}) == {}
    assert read_query(request(b"", None, query=b"except="), known={"except"}) == {"except": ""}
    with pytest.raises(InvalidInput) as refused:
        read_query(request(b"", None, query=b"all=1"), known={"except"})
    assert refused.value.field == "all"
    with pytest.raises(BadRequest):
        read_query(request(b"", None, query=b"except=current&except=x"), known={"except"})


@pytest.mark.parametrize("sent", ['"cookie"', '"Session"', "5", "[]", '""'])
def test_p05_a_choice_is_refused_with_the_choices(sent: str) -> None:
    """A field that takes some values alone names them all, and does not repeat what was sent."""
    body = f'{{"email": "a@example.com", "password": "x", "mode": {sent}}}'
    with pytest.raises(InvalidInput) as refusal:
        LOGIN.read(request(body.encode()))
    assert (refusal.value.field, str(refusal.value)) == ("mode", "This must be session, hybrid or jwt.")


def test_a_field_that_is_not_known_is_answered_with_those_that_are() -> None:
    """Who sends `username`, as other systems want it, reads what the field is called here."""

    class Named(Body, frozen=True):
        email: str
        password: str = ""

    with pytest.raises(InvalidInput, match="The fields are email, password") as refused:
        JsonBody(Named).take({"email": "ada@example.com", "username": "ada"})
    assert refused.value.field == "username"
