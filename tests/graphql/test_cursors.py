"""Cursors of every sortable column: many small pages, in both directions, contain the same rows as one page."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import cycle, islice
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from graphql import GraphQLInputObjectType
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.database import Database
from runstate.database.driver import fetch, fetch_as_given
from runstate.errors import InvalidInput
from runstate.graphql.pagination.connection import Pages
from runstate.graphql.pagination.cursors import cursor, fingerprint, position
from runstate.graphql.pagination.keyset import LARGEST_SIZE, PageArguments, PageQuery
from runstate.graphql.schema import build_schema
from runstate.graphql.types.input_values import made
from runstate.graphql.types.orders import Direction, Key, OrderBy
from runstate.rows import Row
from runstate.rows.base import Timestamp
from tests.graphql.samples import Sample

TYPES = build_schema()._schema.type_map  # noqa: SLF001 it has no public name
ORDERS = [
    each.extensions["strawberry-definition"].origin
    for name, each in TYPES.items()
    if isinstance(each, GraphQLInputObjectType) and name.endswith("OrderBy")
]
SAMPLE_ORDER = OrderBy.__class_getitem__(Sample).resolve_type()
DAY = datetime(2026, 1, 1, tzinfo=UTC)
VALUES: dict[type, list[Any]] = {
    float: [1.5, -2.25, 5e-324, 1.5, 0.0, -1e300, 0.1, 1e22],
    bool: [True, False, True],
    int: [3, -7, 3, 2**15 - 1, -(2**15)],
    date: [date(2026, 1, 2), date(1, 1, 1), date(2026, 1, 2), date(9999, 12, 31)],
    timedelta: [
        timedelta(seconds=1.5),
        timedelta(days=-3),
        timedelta(seconds=1.5),
        timedelta(days=400, microseconds=1),
    ],
    datetime: [DAY, DAY + timedelta(microseconds=1), DAY, datetime(1900, 1, 1, tzinfo=UTC)],
    str: ["b", "", "ä", "b", "B"],
    UUID: [UUID(int=2), UUID(int=1), UUID(int=2)],
}
"""Values with duplicates, by the Python type of a column."""
LARGE = [2**40, -(2**63), 2**63 - 1, 2**40]


def values_of(column: Any, number: int = 13) -> Iterator[Any]:
    """Yield values for the rows of a table; ids are unique."""
    if column.key == "id":
        return iter([UUID(int=7 * place % number) for place in range(number)])
    kind: Any = datetime if isinstance(column.type, Timestamp) else column.type.python_type
    values = LARGE if isinstance(column.type, sa.BigInteger) else VALUES[kind] if kind in VALUES else list(kind)
    return islice(cycle([*values, *([None] if column.nullable else [])]), number)


def sorted_by(order: type[OrderBy[Any]]) -> list[str]:
    """Return the columns of an order. Computed ones read other tables; `test_relative.py` pages over them."""
    return [name for name in vars(order)["__annotations__"] if name in order.row.__table__.c]


@pytest.fixture
async def connection(blank_url: str, order: type[OrderBy[Any]]) -> AsyncIterator[AsyncConnection]:
    """Yield a connection to a database with the table of an order, which has only the columns of the order."""
    names = list(dict.fromkeys(["id", *sorted_by(order)]))
    source = order.row.__table__.c
    columns = [sa.Column(name, source[name].type, nullable=source[name].nullable) for name in names]
    table = sa.Table(str(order.row.__tablename__), sa.MetaData(), *columns)
    rows = [
        dict(zip(names, each, strict=True)) for each in zip(*(values_of(source[name]) for name in names), strict=True)
    ]
    database = Database(blank_url)
    async with database.writer.begin() as writer:
        await writer.run_sync(table.metadata.create_all)
        await writer.execute(sa.insert(table), rows)
    async with database.read() as connection:
        yield connection
    await database.close()


class Reader:
    """Reads the pages of an order."""

    def __init__(self, connection: AsyncConnection, order: type[OrderBy[Any]], name: str, direction: Direction) -> None:
        self.connection = connection
        self.by = made(order, {name: direction})
        self.row: type[Row] = order.row

    def pages(self, **asked: Any) -> Pages:
        """Return the requested page."""
        arguments: PageArguments[Any] = PageArguments(order_by=[self.by], **asked)
        query = PageQuery(self.row, arguments, frozenset(), self.connection.dialect)
        return Pages(
            query, lambda each: fetch(self.connection, each), lambda each: fetch_as_given(self.connection, each)
        )

    async def ids(self, pages: Pages) -> list[UUID]:
        """Return the ids of the rows on a page."""
        (rows,) = await pages.rows([None])
        return list(rows.values_of("id"))

    async def forwards(self) -> list[UUID]:
        """Return the ids of all rows, in pages of two from the start."""
        found, after = [], None
        while True:
            pages = self.pages(first=2, **({"after": after} if after else {}))
            found += await self.ids(pages)
            (after,), (more,) = await pages.last_cursors([None]), await pages.more_after([None])
            if not more:
                return found

    async def backwards(self) -> list[UUID]:
        """Return the ids of all rows, in pages of two from the end."""
        found, before = list[UUID](), None
        while True:
            pages = self.pages(last=2, **({"before": before} if before else {}))
            found = await self.ids(pages) + found
            (before,), (more,) = await pages.first_cursors([None]), await pages.more_before([None])
            if not more:
                return found


@pytest.mark.parametrize("order", [*ORDERS, SAMPLE_ORDER], ids=lambda order: order.__name__)
async def test_pages_of_every_order_contain_every_row_once(
    connection: AsyncConnection, order: type[OrderBy[Any]]
) -> None:
    for name in sorted_by(order):
        for direction in Direction:
            reader = Reader(connection, order, name, direction)
            whole = await reader.ids(reader.pages(first=LARGEST_SIZE))
            assert len(whole) == len(set(whole)) == 13
            assert await reader.forwards() == whole, (name, direction)
            assert await reader.backwards() == whole, (name, direction)


def test_every_column_of_the_sample_is_in_an_order() -> None:
    lists = {"colours", "numbers", "keys", "tags", "anything", "created", "updated"}

    assert {"id", *sorted_by(SAMPLE_ORDER)} == set(Sample.__table__.columns.keys()) - lists


NUMBERS = (Key("rate"), Key("id"))
ID = str(UUID(int=1))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rate", None),
        *[("rate", value) for value in (1, True, "1.5", [1.5])],
        *[("active", value) for value in (1, 0, "true", None)],
        *[("number", value) for value in (True, 1.0, 2**31, -(2**31) - 1)],
        *[("small", value) for value in (2**15, 2**40)],
        *[("large", value) for value in (2**63, 1.5)],
        *[("day", value) for value in (20260101, "yesterday", "2026-01-01T00:00:00", "0000-01-01")],
        *[("length", value) for value in (1.5, 2**62, -(2**62), "1")],
        *[("colour", value) for value in ("GREEN", 1, ["RED"])],
        *[("key", value) for value in ("1", 1)],
        *[("text", value) for value in ("a\0", 1)],
    ],
)
def test_a_cursor_whose_value_has_another_type_is_malformed(column: str, value: Any) -> None:
    keys = (Key(column), Key("id"))
    text = cursor(fingerprint(Sample, keys), [value, ID])

    with pytest.raises(InvalidInput, match="The cursor is malformed"):
        position(Sample, keys, text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_has_no_position(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        cursor(1, [value])
