"""Expressions that differ between SQLite and PostgreSQL give the same results on both."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from runstate.database import Database
from runstate.database.dialects import among, has_all_tags, has_any_tag, seconds_between
from runstate.rows import Flow
from runstate.rows.base import JSON

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TAGS: tuple[list[str], ...] = ([], ["a"], ["a", "b"], ["b", 'quo"te, {brace}'], ["A"], ["ä", "a b"])


async def flows(database: Database) -> None:
    """Insert one flow for each list of tags, named by its index; each was updated after its creation."""
    async with database.write() as transaction:
        rows = [
            {
                "id": UUID(int=number),
                "created": START,
                "updated": START + number * timedelta(hours=36, microseconds=1),
                "name": str(number),
                "tags": tags,
                "labels": {},
            }
            for number, tags in enumerate(TAGS)
        ]
        await transaction.connection.execute(sa.insert(Flow), rows)


async def those(database: Database, condition: sa.ColumnElement[bool]) -> list[int]:
    """Return the indexes of the flows that meet a condition."""
    async with database.read() as connection:
        names = (await connection.execute(sa.select(Flow.name).where(condition).order_by(Flow.name))).scalars()
        return [int(name) for name in names]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (Flow.id, [UUID(int=1), UUID(int=4), UUID(int=99)], [1, 4]),
        (Flow.name, ["0", "5", "x'); --"], [0, 5]),
        (Flow.updated, [START, START + timedelta(hours=72, microseconds=2)], [0, 2]),
        (Flow.name, [], []),
    ],
    ids=["ids", "texts", "instants", "none"],
)
async def test_among_finds_rows_by_many_values(
    database: Database, column: Any, values: list[Any], expected: list[int]
) -> None:
    await flows(database)

    assert await those(database, among(column, values)) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["a"], [1, 2]),
        (["a", "b"], [1, 2, 3]),
        (["a", "a"], [1, 2]),
        (['quo"te, {brace}'], [3]),
        (["a b", "none"], [5]),
        (["none"], []),
        ([], []),
    ],
)
async def test_has_any_tag_finds_rows_with_one_of_the_tags(
    database: Database, tags: list[str], expected: list[int]
) -> None:
    await flows(database)

    assert await those(database, has_any_tag(Flow.tags, tags)) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["a"], [1, 2]),
        (["a", "b"], [2]),
        (["a", "a"], [1, 2]),
        (["b", 'quo"te, {brace}'], [3]),
        (["ä", "a b"], [5]),
        (["a", "none"], []),
        ([], [0, 1, 2, 3, 4, 5]),
    ],
)
async def test_has_all_tags_finds_rows_with_every_tag(database: Database, tags: list[str], expected: list[int]) -> None:
    await flows(database)

    assert await those(database, has_all_tags(Flow.tags, tags)) == expected


async def test_seconds_between_timestamps_are_a_number_with_microseconds(database: Database) -> None:
    await flows(database)
    seconds = seconds_between(Flow.created, Flow.updated)
    async with database.read() as connection:
        answer = list((await connection.execute(sa.select(seconds).order_by(Flow.name))).scalars())

    assert answer == pytest.approx([number * 129600.000001 for number in range(len(TAGS))], abs=1e-9)
    assert await those(database, seconds > 400_000) == [4, 5]


async def test_seconds_until_a_given_time_are_computed_alike(database: Database) -> None:
    await flows(database)
    later = sa.literal(START + timedelta(seconds=1.5), Flow.created.type)

    assert await those(database, seconds_between(Flow.created, later) > 1) == [0, 1, 2, 3, 4, 5]


async def test_a_number_in_a_json_column_is_extracted_exactly(database: Database) -> None:
    row = {"id": UUID(int=1), "created": START, "updated": START, "name": "one", "tags": []}
    async with database.write() as transaction:
        await transaction.connection.execute(sa.insert(Flow), [{**row, "labels": {"n": 5, "f": 0.5, "t": "5"}}])
    async with database.read() as connection:
        found = (await connection.execute(sa.select(*(Flow.labels[key] for key in ("n", "f", "t", "x"))))).one()

    assert tuple(found) == (5, 0.5, "5", None)


@pytest.mark.parametrize("kind", ["sqlite"])
async def test_an_expression_over_json_on_sqlite_may_be_a_number(database: Database) -> None:
    computed = sa.func.json_extract('{"n": 5, "f": 0.5}', sa.literal_column("'$.n'"), type_=JSON)
    async with database.read() as connection:
        assert await connection.scalar(sa.select(computed)) == 5
