"""Rows as the driver returned them. Plans write them as JSON without making objects."""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from strawberry.scalars import JSON

from runstate.database.dialects import processor
from runstate.documents import exact_json
from runstate.graphql.types.derive import definition_of
from runstate.rows import Row
from runstate.rows.base import value_of


@functools.cache
def shown_as_json(row: type[Row]) -> frozenset[str]:
    """Return the columns of a row that stay JSON as it is stored: no resolver reads them, or it parses them itself."""
    fields = definition_of(row).fields
    resolved = [each.metadata for each in fields if "stored" not in each.metadata]
    read: list[Any] = [each.get("needs") for each in resolved if not each.get("parses")]
    if None in read:
        # A resolver that does not declare its columns can read all of them.
        return frozenset()
    shown = (field.python_name for field in fields if getattr(field.type, "of_type", field.type) is JSON)
    parsed = {name for each in resolved if each.get("parses") for name in each["needs"]}
    stored = {name for name in parsed if isinstance(row.__table__.c[name].type, sa.JSON)}
    return frozenset({*shown, *stored}).difference(*read)


def as_json(values: Sequence[str | None]) -> list[orjson.Fragment | None]:
    """Return texts of JSON as parts of an answer. Parsed, a value can take thirty times the memory of its text."""
    return [None if value is None else orjson.Fragment(_compact(value)) for value in values]


def as_parsed(value: Any) -> Any:
    """Return a JSON value that may be a part of an answer, as it is stored."""
    return exact_json.loads(orjson.dumps(value)) if isinstance(value, orjson.Fragment) else value


STRING: Final = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")')


def _compact(text: str) -> str:
    """Return a text of JSON without the white space that PostgreSQL puts into it."""
    if " " not in text:
        return text
    # Every other part is a string, which keeps its white space.
    parts = STRING.split(text)
    parts[::2] = [each.replace(" ", "") for each in parts[::2]]
    return "".join(parts)


class RawRows:
    """Rows of one table with some of their columns. Objects are made when they are used."""

    def __init__(self, row: type[Row], names: Sequence[str], values: Sequence[Sequence[Any]], dialect: Dialect) -> None:
        self.row = row
        self.names = names
        self.values = values
        self.dialect = dialect

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.objects)

    def __getitem__(self, place: int) -> Row:
        return self.with_values([self.values[place]]).objects[0]

    @cached_property
    def objects(self) -> list[Row]:
        """The rows as objects; JSON that clients see as it is stored is not parsed."""
        written = shown_as_json(self.row)
        columns = [as_json(self.columns[name]) if name in written else self.values_of(name) for name in self.names]
        return [self.row.of(dict(zip(self.names, each, strict=True))) for each in zip(*columns, strict=True)]

    @cached_property
    def columns(self) -> dict[str, Sequence[Any]]:
        """The values as the driver returned them, by column."""
        # Without rows, zip would return no columns.
        columns: Iterable[Sequence[Any]] = zip(*self.values, strict=True) if self.values else [()] * len(self.names)
        # Numbered pages have one more column, which is not needed here.
        return dict(zip(self.names, columns, strict=False))

    def values_of(self, name: str) -> Sequence[Any]:
        """Return the values of a column."""
        process = processor(value_of(self.row, name).type, self.dialect)
        values = self.columns[name]
        return values if process is None else [process(value) for value in values]

    def with_values(self, values: Sequence[Sequence[Any]]) -> "RawRows":
        """Return other rows with the same columns."""
        return RawRows(self.row, self.names, values, self.dialect)
