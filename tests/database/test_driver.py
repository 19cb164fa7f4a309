"""Compiled statements: compiled once for all values, and freed when they are no longer used."""

import gc
import weakref
from typing import Any

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.driver import BY_DIALECT, MOST, fetch, fetch_as_given


async def test_statements_that_differ_only_in_values_are_compiled_once(database: Database) -> None:
    async with database.read() as connection:
        found = [await fetch(connection, sa.select(sa.literal(number), sa.literal("x"))) for number in range(3)]

    assert found == [[[0, "x"]], [[1, "x"]], [[2, "x"]]]
    assert len(BY_DIALECT[database.reader.dialect].ready) == 1


async def test_a_compiled_statement_is_executed_with_other_values(database: Database) -> None:
    asked = sa.select(sa.bindparam("given", type_=sa.Integer()) + sa.literal(1))
    async with database.read() as connection:
        assert [await fetch(connection, asked, {"given": number}) for number in (1, 5)] == [[[2]], [[6]]]


@pytest.mark.parametrize("values", [[1], [1, 2], []])
async def test_a_list_in_a_statement_may_have_any_length(database: Database, values: list[int]) -> None:
    asked = sa.select(sa.literal(1).in_(values).label("there"))
    async with database.read() as connection:
        assert [bool(there) for (there,) in await fetch(connection, asked)] == [1 in values]
        assert [bool(there) for (there,) in await fetch_as_given(connection, asked)] == [1 in values]


async def test_compiled_statements_are_freed(database: Database) -> None:
    held: list[weakref.ref[Any]] = []
    async with database.read() as connection:
        for number in range(MOST + 1):
            asked = sa.select(sa.literal(1).label(f"column_{number}"))
            held.append(weakref.ref(asked))
            await fetch(connection, asked)
    del asked
    gc.collect()

    assert sum(each() is not None for each in held) <= 1
