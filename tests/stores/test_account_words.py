"""What a search finds an account by: the databases keep the same words as `account_words` says."""

from __future__ import annotations

import sqlite3

import asyncpg
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.backing import new_database

from dutchdoor.model.accounts import Account
from dutchdoor.stores.account_words import words_of
from dutchdoor.stores.kinds import KINDS
from dutchdoor.stores.sql import ACCOUNT_COLUMNS, account_values
from dutchdoor.testing.conformance import an_account

NAMES = st.text(
    st.sampled_from("abßÄ山 .-_@'\"\t(é\u0301%\\\u2028\U0001f600") | st.characters(exclude_categories=["Cs", "Cc"])
)
ODD = ["", " ", "a" * 3000, "a " * 900, "山田 太郎", "Anne-Marie d'Arc (Jeanne)", "x\ny z", "İstanbul", " two  spaces "]
COLUMNS = ("subject", *ACCOUNT_COLUMNS, "revision")


def person(number: int, name: str) -> Account:
    return replace(an_account(f"u{number}"), subject=f"s{number}", name=name)


def row(account: Account) -> tuple[object, ...]:
    return account.subject, *account_values(account), 0


def adding(table: str, marks: str) -> str:
    return f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES ({marks})"


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_sqlite_keeps_the_words_of_each_account(names: list[str]) -> None:
    """Accounts from before the migration have their words, as later ones do; a change and a removal leave no other."""
    first, second = KINDS.migrations("sqlite")[:2]
    people = [person(n, name) for n, name in enumerate([*names, *ODD])]
    connection = sqlite3.connect(":memory:")
    connection.executescript(first.text)
    insert = adding("accounts", ", ".join("?" * len(COLUMNS)))
    connection.executemany(insert, map(row, people[::2]))
    connection.executescript(second.text)
    connection.executemany(insert, map(row, people[1::2]))

    def kept(account: Account) -> list[str]:
        sql = "SELECT word FROM account_words JOIN accounts ON number = account WHERE subject = ?"
        return sorted(word for (word,) in connection.execute(sql, (account.subject,)))

    for each in people:
        assert kept(each) == sorted(words_of(each)), each.name
    changed = replace(people[0], name="Eve")
    connection.execute("UPDATE accounts SET folded = ? WHERE subject = 's0'", (account_values(changed)[-1],))
    assert kept(changed) == sorted(words_of(changed))
    connection.execute("DELETE FROM accounts")
    for table in ("account_words", "account_words_due"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    connection.close()


async def test_postgresql_keeps_the_words_of_each_account() -> None:
    """The same, with what TRUNCATE leaves."""
    first, second = KINDS.migrations("postgres")[:2]
    people = [person(n, name) for n, name in enumerate([*ODD, "Zoë", "back\\slash 100%"])]
    insert = adding("dutchdoor.accounts", ", ".join(f"${n + 1}" for n in range(len(COLUMNS))))
    insert = insert.replace(") VALUES", ", begun) VALUES").removesuffix(")") + ", 0)"
    with new_database() as url:
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE SCHEMA dutchdoor; {first.text}")
        await connection.executemany(insert, [row(each) for each in people[::2]])
        await connection.execute(second.text)
        await connection.executemany(insert, [row(each) for each in people[1::2]])

        async def kept(account: Account) -> list[str]:
            sql = "SELECT word FROM dutchdoor.account_words JOIN dutchdoor.accounts ON number = account "
            return sorted(f["word"] for f in await connection.fetch(f"{sql} WHERE subject = $1", account.subject))

        for each in people:
            assert await kept(each) == sorted(words_of(each)), each.name
        changed = replace(people[0], name="Eve")
        await connection.execute(
            "UPDATE dutchdoor.accounts SET folded = $1 WHERE subject = 's0'", account_values(changed)[-1]
        )
        assert await kept(changed) == sorted(words_of(changed))
        await connection.execute("DELETE FROM dutchdoor.accounts WHERE subject = 's1'")
        assert await kept(people[1]) == []
        await connection.execute("TRUNCATE dutchdoor.accounts")
        assert await connection.fetchval("SELECT count(*) FROM dutchdoor.account_words") == 0
        await connection.close()
