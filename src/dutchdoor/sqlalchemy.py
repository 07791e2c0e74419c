"""Users in a model of SQLAlchemy.

    users = SQLAlchemyUsers(sessionmaker(engine), User, login="email", password="password_hash")
    auth = Auth(app, users=users)

Hashes are those of argon2-cffi, pwdlib, passlib, Werkzeug, Django and bcrypt. The first sign-in replaces one that is
weaker than ours by Argon2id, in the same column.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar
from uuid import UUID

from dutchdoor.credentials.password import PasswordHasher
from dutchdoor.errors import InvalidInput, Misconfigured, Unavailable
from dutchdoor.guard.extra import extra
from dutchdoor.services.external_users import ExternalUsers

with extra("sqlalchemy"):
    from sqlalchemy import ColumnElement, Update, inspect, select, update
    from sqlalchemy.exc import NoInspectionAvailable, SQLAlchemyError
    from sqlalchemy.orm import Mapper, Session, scoped_session, sessionmaker
    from sqlalchemy.orm.interfaces import ORMOption

if TYPE_CHECKING:  # at run time it needs greenlet, which SQLAlchemy brings for its extra `asyncio` alone
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

__all__ = ["SQLAlchemyUsers"]

UserT = TypeVar("UserT")
SessionFactory: TypeAlias = "sessionmaker[Any] | scoped_session[Any] | async_sessionmaker[Any]"

HASH_LENGTH: Final = 97
"""Characters of a hash of ours."""

_log = logging.getLogger("dutchdoor")


class SQLAlchemyUsers(ExternalUsers[UserT]):
    """Users in a model of SQLAlchemy, for `Auth(users=...)`. The primary key is the id.

    Args:
        sessions: a `sessionmaker` or an `async_sessionmaker`, or a `scoped_session` such as `db.session` of
            Flask-SQLAlchemy.
        model: the class of the model.
        login: the attribute that people sign in with; or a function that returns the condition for what was typed:
            `lambda typed: func.lower(User.email) == typed.lower()`.
        password: the attribute that holds the hash.
        active: the attribute that says whether a user may sign in; all may if not given.
        roles: the attribute that lists a user's roles, or a function of the user.
        options: loader options, such as `selectinload(User.team)`. The object that a route gets is detached from its
            session, except in Flask.
        upgrade: whether a weaker hash is replaced. False where other programs check it that do not know Argon2.
        hasher: how passwords are hashed; Argon2id with 19 MiB and two passes if not given.

    Raises:
        Misconfigured: an argument is none of these, or the model has no such attribute.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        model: type[UserT],
        *,
        login: str | Callable[[str], ColumnElement[bool]] = "email",
        password: str = "password_hash",
        active: str | None = None,
        roles: str | Callable[[UserT], Iterable[str]] | None = None,
        options: Sequence[ORMOption] = (),
        upgrade: bool = True,
        hasher: PasswordHasher | None = None,
    ) -> None:
        is_async = _is_async(sessions)
        if not is_async and not isinstance(sessions, sessionmaker | scoped_session):
            raise Misconfigured(
                "SQLAlchemyUsers: the first argument makes sessions: a sessionmaker, an async_sessionmaker, or the "
                f"scoped_session of Flask-SQLAlchemy (db.session), and not {sessions!r}."
            )
        self._sessions, self._model, self._login = sessions, model, login
        mapper = _mapper_of(model)
        names = [password, *([login] if isinstance(login, str) else []), *([active] if active else [])]
        for name in [*names, *([roles] if isinstance(roles, str) else [])]:
            if not hasattr(model, name):
                raise Misconfigured(f"SQLAlchemyUsers: {model.__name__} has no attribute {name!r}.")
        self._key, self._read_key = _primary_key(mapper)
        self._password, self._active, self._options = getattr(model, password), active, tuple(options)
        length = getattr(self._password.type, "length", None)
        if upgrade and length is not None and length < HASH_LENGTH:
            raise Misconfigured(
                f"SQLAlchemyUsers: {password} holds {length} characters, and a hash of ours has {HASH_LENGTH}. Make "
                "the column longer, or give upgrade=False."
            )
        self._upgrade, self.hasher = upgrade, hasher or PasswordHasher()
        self._is_async = is_async
        super().__init__(
            authenticate=self._authenticate,
            load=self._load_async if is_async else self._load,
            roles=(lambda user: getattr(user, roles)) if isinstance(roles, str) else roles,
            name=(lambda user: str(getattr(user, login))) if isinstance(login, str) else None,
        )

    # Who signs in

    async def _authenticate(self, login: str, password: str) -> str | None:
        self.hasher.open()
        condition = getattr(self._model, self._login) == login if isinstance(self._login, str) else self._login(login)
        rows = await self._rows(select(self._key, self._password).where(condition).limit(2))
        if len(rows) != 1:
            if rows:
                _log.error("users: a login belongs to two rows of %s, and signs in to neither", self._model.__name__)
            await self.hasher.verify_nothing(password)
            return None
        ((key, encoded),) = rows
        if not encoded:  # such as one who signs in elsewhere
            await self.hasher.verify_nothing(password)
            return None
        if not await self.hasher.verify(password, self._as_ours(encoded)):
            return None
        if self._upgrade and self.hasher.needs_rehash(encoded):
            await self._replace(key, encoded, password)
        return str(key)

    def _as_ours(self, encoded: str) -> str:
        try:
            return self.hasher.imported(encoded)
        except InvalidInput:  # `verify` refuses it, after the same work
            return encoded

    async def _replace(self, key: object, encoded: str, password: str) -> None:
        """Store a stronger hash, unless the password was changed meanwhile. A failure waits for the next sign-in."""
        try:
            better = await self.hasher.hash(password)
            statement = update(self._model).where(self._key == key, self._password == encoded)
            await self._write(statement.values({self._password: better}).execution_options(synchronize_session=False))
        except (SQLAlchemyError, Unavailable) as exc:
            _log.warning("users: a hash was not replaced by a stronger one: %s", type(exc).__name__)

    # Who is signed in

    def _load(self, subject: str) -> UserT | None:
        key = self._read_key(subject)
        if key is None:
            return None
        if isinstance(self._sessions, scoped_session):  # its owner closes it, at the end of the request
            return self._admitted(self._sessions().get(self._model, key, options=self._options))
        with self._sync_session() as session:
            return self._admitted(session.get(self._model, key, options=self._options))

    async def _load_async(self, subject: str) -> UserT | None:
        key = self._read_key(subject)
        if key is None:
            return None
        async with self._async_session() as session:
            return self._admitted(await session.get(self._model, key, options=self._options))

    def _admitted(self, user: UserT | None) -> UserT | None:
        return user if user is None or self._active is None or getattr(user, self._active) else None

    # The database

    def _sync_session(self) -> Session:
        session: Session = self._sessions()
        return session

    def _async_session(self) -> AsyncSession:
        session: AsyncSession = self._sessions()
        return session

    async def _rows(self, statement: Any) -> Sequence[Any]:
        if self._is_async:
            async with self._async_session() as session:
                rows: Sequence[Any] = (await session.execute(statement)).all()
                return rows

        def read() -> Sequence[Any]:
            with self._sync_session() as session:
                found: Sequence[Any] = session.execute(statement).all()
                return found

        return await asyncio.to_thread(read)

    async def _write(self, statement: Update) -> None:
        if self._is_async:
            async with self._async_session() as session, session.begin():
                await session.execute(statement)
            return

        def write() -> None:
            with self._sync_session() as session, session.begin():
                session.execute(statement)

        await asyncio.to_thread(write)


def _is_async(sessions: object) -> bool:
    module = sys.modules.get("sqlalchemy.ext.asyncio")  # who has made an async_sessionmaker has imported it
    return module is not None and isinstance(sessions, module.async_sessionmaker)


def _mapper_of(model: type) -> Mapper[Any]:
    try:
        mapper: object = inspect(model)
    except NoInspectionAvailable:
        mapper = None
    if not isinstance(mapper, Mapper):
        raise Misconfigured(f"SQLAlchemyUsers: {model!r} is no model of SQLAlchemy. Give the class.")
    return mapper


def _primary_key(mapper: Mapper[Any]) -> tuple[Any, Callable[[str], Any]]:
    """Return the attribute that is the primary key, and what reads it from text; that returns None for other text."""
    columns = mapper.primary_key
    kind = columns[0].type.python_type
    if len(columns) != 1 or kind not in {int, str, UUID}:
        raise Misconfigured(
            f"SQLAlchemyUsers: the primary key of {mapper.class_.__name__} is not one column with an int, text or a "
            "UUID. Write ExternalUsers(authenticate=..., load=...)."
        )

    def read(subject: str) -> Any:
        try:
            return kind(subject)
        except ValueError:
            return None

    return getattr(mapper.class_, mapper.get_property_by_column(columns[0]).key), read
