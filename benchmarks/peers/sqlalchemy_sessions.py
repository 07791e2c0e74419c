"""The tables that dutchdoor made, through SQLAlchemy's ORM on asyncpg: a session a call, as its documentation shows.

Look-up: one SELECT with the account joined. Create: one INSERT, one commit. Rotate: read, change, commit, with the
revision as `version_id_col`. The tables are reflected, so the rows and their indexes are the same.
"""

from __future__ import annotations

import itertools
import secrets
import time

import uvloop
from sqlalchemy import MetaData, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.callers import asked, measured, tell


class Base(DeclarativeBase):
    pass


async def main() -> None:
    url, ids, callers, seconds = asked()
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=16, max_overflow=0)
    tables = MetaData(schema="dutchdoor")
    async with engine.connect() as connection:
        await connection.run_sync(tables.reflect, only=["sessions", "accounts"])
    sessions, accounts = tables.tables["dutchdoor.sessions"], tables.tables["dutchdoor.accounts"]

    class SessionRow(Base):
        __table__ = sessions
        __mapper_args__ = {"version_id_col": sessions.c.revision}  # noqa: RUF012 - as its documentation has it

    class AccountRow(Base):
        __table__ = accounts

    make = async_sessionmaker(engine, expire_on_commit=False)
    joined = select(SessionRow, AccountRow).join(AccountRow, SessionRow.account == AccountRow.number)
    turn = itertools.cycle(ids)
    own = [itertools.cycle(ids[number :: max(callers)]) for number in range(max(callers))]
    async with make() as first:
        template = (await first.execute(select(SessionRow).limit(1))).scalar_one()
        values = {column.key: getattr(template, column.key) for column in sessions.columns}
        del values["revision"]  # SQLAlchemy counts it

    async def look_up(_number: int) -> object:
        async with make() as session:
            found = await session.execute(joined.where(SessionRow.id == next(turn)))
            return found.one()

    async def create(_number: int) -> object:
        async with make() as session:
            raw = int(time.time() * 1000).to_bytes(6, "big") + secrets.token_bytes(10)
            session.add(SessionRow(**{**values, "id": raw}))
            await session.commit()

    async def rotate(number: int) -> object:
        async with make() as session:
            row = await session.get(SessionRow, next(own[number]))
            row.generation += 1
            row.rotated_at = time.time()
            await session.commit()

    tell(await measured({"look-up": look_up, "create": create, "rotate": rotate}, callers, seconds))
    await engine.dispose()


if __name__ == "__main__":
    uvloop.run(main())
