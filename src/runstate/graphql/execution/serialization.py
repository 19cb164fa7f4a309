"""Serializers of stored values: of single values by their Python types, and of columns as the driver returns them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

import orjson
import sqlalchemy as sa
from graphql import GraphQLEnumType
from sqlalchemy.engine import Dialect

from runstate.database.budget import characters
from runstate.database.dialects import plain, processor
from runstate.documents.exact_json import LongFloat
from runstate.graphql.execution.fallbacks import Fallback
from runstate.graphql.pagination.raw_rows import as_json
from runstate.graphql.types.scalars import written
from runstate.rows.base import DocumentColumn, Timestamp

LARGEST_INT: Final = 2**31 - 1

Convert = Callable[[Any], Any] | None
"""Returns a value as JSON; None for values that are JSON, or that `scalars.dumped` writes as JSON."""

WriteColumn = Callable[[Sequence[Any]], Iterable[Any]]
"""Returns the values of a column, as the driver returned them, as JSON."""


LengthOf = Callable[[Sequence[Any]], int]
"""Returns the number of characters of the values of a column, as the driver returned them."""


class Serializers(dict[type, Convert]):
    """Serializers of the values of a field, by Python type. Other types fall back."""

    @property
    def is_flat(self) -> bool:
        """Whether values have no fields of their own."""
        return all(_is_flat(convert) for convert in self.values())

    def __missing__(self, kind: type) -> Convert:
        # asyncpg returns a subclass of UUID.
        if UUID in self and issubclass(kind, UUID):
            return self.setdefault(kind, str)
        raise Fallback

    def write(self, value: Any) -> Any:
        """Return a value of the field as JSON."""
        convert = self[type(value)]
        return value if convert is None else convert(value)

    def write_all(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return several values of the field as JSON."""
        converts = {kind: self[kind] for kind in set(map(type, values))}
        if not any(converts.values()):
            return values
        return [value if (convert := converts[type(value)]) is None else convert(value) for value in values]


def _is_flat(convert: Convert) -> bool:
    return not isinstance(convert, partial) or all(each.is_flat for each in convert.args)


def _int(value: int) -> int:
    # GraphQL's Int has 32 bits.
    if -LARGEST_INT <= value <= LARGEST_INT:
        return value
    raise Fallback


def _float(value: float) -> float:
    # JSON has neither infinity nor NaN.
    if isfinite(value):
        return value
    raise Fallback


def _instant(value: datetime) -> datetime | str:
    """Return an instant as JSON. One with a fraction is left to `scalars.dumped`: faster, but it omits `.000000`."""
    return value if value.microsecond and value.tzinfo is UTC else written(value)


WRITTEN: Final[Mapping[str, Mapping[type, Convert]]] = {
    "String": {str: None},
    "ID": {str: None, UUID: None},
    "Int": {int: _int},
    "Float": {float: _float},
    "Boolean": {bool: None},
    "DateTime": {datetime: _instant},
    "JSON": dict.fromkeys((orjson.Fragment, dict, list, str, int, float, LongFloat, bool)),
}
"""Serializers of scalars, by name and Python type."""


def of_scalar(name: str) -> Serializers | None:
    """Return the serializers of a scalar; None if graphql-core has to write it."""
    return Serializers(WRITTEN[name]) if name in WRITTEN else None


def of_enum(kind: GraphQLEnumType) -> Serializers | None:
    """Return the serializers of an enum; None if graphql-core has to write it."""
    cls = getattr(kind, "wrapped_cls", None)
    # Plans write the value of a member, which therefore must be its name in GraphQL.
    if cls is None or any(name != value.value for name, value in kind.values.items()):
        return None
    # `_value_` is an attribute, and faster than the property `value`.
    return Serializers({cls: attrgetter("_value_")})


def of_list(item: Serializers | None) -> Serializers | None:
    """Return the serializers of a list of items; None if graphql-core has to write it."""
    return None if item is None else Serializers(dict.fromkeys((list, tuple), partial(_each, item)))


def _each(item: Serializers, values: Sequence[Any]) -> Sequence[Any]:
    written = item.write_all(values)
    return written if isinstance(written, list) else list(written)


def of_column(column: sa.ColumnElement[Any], serializers: Serializers, dialect: Dialect) -> WriteColumn:
    """Return the function that writes the values of a column for a field."""
    kind = type(column.type)
    nullable = getattr(column, "nullable", True)
    if WHOLE_COLUMN.get(kind) in serializers and (NoneType in serializers or not nullable):
        convert = plain(column.type, dialect)
        finish = FINISH.get(kind)
        return convert if finish is None else lambda values: finish(convert(values))
    if isinstance(column.type, sa.JSON) and orjson.Fragment in serializers:
        return as_json
    write = partial(_value, processor(column.type, dialect), serializers)
    return partial(_distinct, write) if kind in FEW_VALUES else partial(map, write)


def length_of(column: sa.ColumnElement[Any]) -> LengthOf | None:
    """Return the function that counts the characters of the values of a column; None if each has at most 40."""
    if isinstance(column.type, sa.Text):
        return characters
    return _length if isinstance(column.type, sa.JSON | DocumentColumn) else None


def _length(values: Sequence[str | None]) -> int:
    return sum(map(len, filter(None, values)))


WHOLE_COLUMN: Final[Mapping[type, type]] = {sa.Text: str, sa.Uuid: UUID, sa.Double: float, Timestamp: datetime}
"""Types of columns that are converted as a whole, and the Python types of their values."""

FEW_VALUES: Final = (sa.Enum, sa.Integer, sa.SmallInteger, sa.Boolean, sa.JSON, DocumentColumn)
"""Types of columns with few different values."""


def _instants(values: Sequence[datetime | None]) -> list[Any]:
    return [value if value is None or value.microsecond else written(value) for value in values]


def _floats(values: Sequence[float | None]) -> Sequence[float | None]:
    # isfinite does not accept None; 0 is finite anyway.
    if all(map(isfinite, filter(None, values))):
        return values
    raise Fallback


FINISH: Final[Mapping[type, WriteColumn]] = {Timestamp: _instants, sa.Double: _floats}
"""Last step for columns that are converted as a whole."""


def _value(process: Convert, serializers: Serializers, value: Any) -> Any:
    return serializers.write(value if process is None or value is None else process(value))


def _distinct(write: Callable[[Any], Any], values: Sequence[Any]) -> Iterable[Any]:
    """Write each different value once."""
    return map({value: write(value) for value in set(values)}.__getitem__, values)
