"""Filters on columns of every type, including types that no public table has yet."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
import strawberry
from graphql import GraphQLSchema, coerce_input_value, print_type
from sqlalchemy.ext.asyncio import AsyncConnection
from strawberry.schema.config import StrawberryConfig

from runstate.database import Database
from runstate.documents.policies import FlowRunPolicy
from runstate.errors import BadUserInput
from runstate.graphql.schema import build_schema
from runstate.graphql.types.comparisons import comparison
from runstate.graphql.types.filters import Where
from runstate.graphql.types.input_values import read
from runstate.graphql.types.registry import RegistrationError
from runstate.graphql.types.scalars import SCALARS
from runstate.rows.base import EPOCH
from tests.graphql.samples import Colour, Sample

KEY = UUID(int=7)
FIRST: dict[str, Any] = {
    "rate": 0.5,
    "active": True,
    "number": 1,
    "small": 1,
    "large": 1,
    "day": date(2026, 1, 2),
    "length": timedelta(seconds=90),
    "colour": Colour.RED,
    "text": "a",
    "key": KEY,
    "instant": datetime(2026, 1, 2, tzinfo=UTC),
    "colours": [Colour.RED],
    "numbers": [1, 10],
    "keys": [KEY],
    "tags": ["a"],
    "anything": {},
    "created": EPOCH,
    "updated": EPOCH,
}
SECOND: dict[str, Any] = {
    **FIRST,
    "day": date(2025, 1, 2),
    "length": timedelta(days=2),
    "colours": [Colour.RED, Colour.BLUE],
    "numbers": [],
    "keys": [],
    "maybe_day": date(2025, 1, 2),
    "maybe_length": timedelta(seconds=-1),
}
ROWS = {"first": {**FIRST, "id": UUID(int=1)}, "second": {**SECOND, "id": UUID(int=2)}}


@strawberry.type
class Query:
    """The root of queries."""

    @strawberry.field
    def sample(self, where: Where[Sample]) -> Sample | None:
        """A sample."""
        raise NotImplementedError


HERE: GraphQLSchema = strawberry.Schema(query=Query, config=StrawberryConfig(scalar_map=SCALARS))._schema  # noqa: SLF001
KIND: Any = HERE.type_map["SampleWhere"]


@pytest.fixture
async def connection(blank_url: str) -> AsyncIterator[AsyncConnection]:
    """Yield a connection to a database with two samples."""
    nullable = {column.key: None for column in Sample.__table__.columns if column.nullable}
    database = Database(blank_url)
    async with database.writer.begin() as connection:
        await connection.run_sync(Sample.metadata.create_all)
        await connection.execute(sa.insert(Sample), [{**nullable, **row} for row in ROWS.values()])
        yield connection
    await database.close()


def condition(where: dict[str, Any]) -> Any:
    """Return a condition on samples as SQL."""
    definition = KIND.extensions["strawberry-definition"]
    return read(definition.origin, coerce_input_value(where, KIND), None).clause(Sample.__table__)


async def found(connection: AsyncConnection, where: dict[str, Any]) -> list[str]:
    """Return the names of the samples that meet a condition."""
    table: Any = Sample.__table__
    ids = (await connection.execute(sa.select(table.c.id).where(condition(where)).order_by(table.c.id))).scalars()
    names = {row["id"]: name for name, row in ROWS.items()}
    return [names[each] for each in ids]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"colours": {"all": ["RED", "BLUE"]}}, ["second"]),
        ({"colours": {"all": []}}, ["first", "second"]),
        ({"colours": {"any": ["BLUE"]}}, ["second"]),
        ({"colours": {"any": []}}, []),
        ({"colours": {"none": ["BLUE"]}}, ["first"]),
        ({"colours": {"isEmpty": True}}, []),
        ({"numbers": {"all": [1, 10]}}, ["first"]),
        ({"numbers": {"all": [1, 2]}}, []),
        ({"numbers": {"all": []}}, ["first", "second"]),
        ({"numbers": {"any": [2, 10]}}, ["first"]),
        ({"numbers": {"any": [0]}}, []),
        ({"numbers": {"any": []}}, []),
        ({"numbers": {"none": [1]}}, ["second"]),
        ({"numbers": {"none": []}}, ["first", "second"]),
        ({"numbers": {"isEmpty": True}}, ["second"]),
        ({"keys": {"all": [str(KEY).upper()]}}, ["first"]),
        ({"keys": {"all": [str(KEY), "malformed"]}}, []),
        ({"keys": {"any": ["malformed"]}}, []),
        ({"keys": {"none": [str(KEY)]}}, ["second"]),
        ({"tags": {"all": ["a"]}}, ["first", "second"]),
        ({"day": {"eq": "2026-01-02"}}, ["first"]),
        ({"day": {"lt": "2026-01-02"}}, ["second"]),
        ({"day": {"in": ["2026-01-02", "2025-01-02"]}}, ["first", "second"]),
        ({"day": {"notIn": ["2026-01-02"]}}, ["second"]),
        ({"maybeDay": {"isNull": True}}, ["first"]),
        ({"maybeDay": {"ne": "2025-01-02"}}, ["first"]),
        ({"length": {"eq": 90.0}}, ["first"]),
        ({"length": {"gte": 90.0}}, ["first", "second"]),
        ({"length": {"gt": 90.0}}, ["second"]),
        ({"length": {"in": [172800.0, 0.0]}}, ["second"]),
        ({"maybeLength": {"lt": 0.0}}, ["second"]),
        ({"active": {"eq": True}, "rate": {"gt": 0.25}, "large": {"lte": 1}}, ["first", "second"]),
    ],
)
async def test_a_filter_finds_the_expected_samples(
    connection: AsyncConnection, where: dict[str, Any], expected: list[str]
) -> None:
    assert await found(connection, where) == expected


@pytest.mark.parametrize("comparison", ["eq", "gt", "lte"])
@pytest.mark.parametrize("seconds", [1e300, -1e12])
def test_a_duration_out_of_range_is_refused(comparison: str, seconds: float) -> None:
    with pytest.raises(BadUserInput, match="at most 31536000000 seconds"):
        condition({"length": {comparison: seconds}})


def test_a_filter_has_every_filterable_column() -> None:
    names = {field.extensions["strawberry-definition"].python_name for field in KIND.fields.values()}

    assert set(Sample.__table__.columns.keys()) - names == {"anything"}
    assert {name: str(KIND.fields[name].type) for name in ("colours", "numbers", "keys", "day", "length")} == {
        "colours": "ColourListComparison",
        "numbers": "IntListComparison",
        "keys": "IDListComparison",
        "day": "DateComparison",
        "length": "DurationComparison",
    }


@pytest.mark.parametrize(
    "annotation", [FlowRunPolicy, Decimal, bytes, list[FlowRunPolicy], list[float], dict[str, int]]
)
def test_an_unknown_column_type_is_an_error(annotation: Any) -> None:
    with pytest.raises(RegistrationError, match=r"No comparison is known for .*NOT_FILTERABLE"):
        comparison(annotation)


def test_columns_that_hold_documents_have_no_filter() -> None:
    types = build_schema()._schema.type_map  # noqa: SLF001 it has no public name
    lacking = {
        name: sorted(set(types[name].fields) - set(types[f"{name}Where"].fields))  # type: ignore[attr-defined]
        for name in ("FlowRun", "FlowRunState", "Deployment")
    }

    assert "policy" in lacking["FlowRun"]
    assert "details" in lacking["FlowRunState"]
    assert "concurrencyOptions" in lacking["Deployment"]


def test_a_duration_is_shown_in_seconds() -> None:
    kind = HERE.type_map["Sample"]
    resolve = kind.fields["maybeLength"].resolve  # type: ignore[attr-defined]

    assert "length: Float!" in print_type(kind)
    assert "maybeLength: Float\n" in print_type(kind)
    assert resolve(Sample.of(SECOND), None) == -1.0
    assert resolve(Sample.of({"maybe_length": None}), None) is None
