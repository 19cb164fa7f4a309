"""How what is stored is written as JSON: values by their Python types, and columns as the database gave them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from operator import attrgetter
from types import NoneType
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from graphql import GraphQLEnumType
from sqlalchemy.engine import Dialect

from runstate.database.dialects import plain, processor
from runstate.graphql.types.scalars import written
from runstate.rows.base import DocumentColumn, Timestamp

LARGEST_INT: Final = 2**31 - 1

Convert = Callable[[Any], Any] | None
"""Makes JSON of a value; None: it is JSON already, or what `scalars.dumped` makes JSON of."""

WriteColumn = Callable[[Sequence[Any]], Iterable[Any]]
"""Makes JSON of the values of a column, as the database gave them."""


class Fallback(Exception):
    """What is left to the library."""


class Serializers(dict[type, Convert]):
    """How the values of a field are written, by their Python type; any other type is unusual."""

    def __missing__(self, kind: type) -> Convert:
        if UUID in self and issubclass(kind, UUID):
            return self.setdefault(kind, str)
        raise Fallback

    def write(self, value: Any) -> Any:
        """A value of the field as JSON."""
        convert = self[type(value)]
        return value if convert is None else convert(value)


def _int(value: int) -> int:
    if -LARGEST_INT <= value <= LARGEST_INT:
        return value
    raise Fallback


def _float(value: float) -> float:
    if isfinite(value):
        return value
    raise Fallback


def _instant(value: datetime) -> datetime | str:
    """An instant; one with a fraction is left to `scalars.dumped`, which writes no digits where there is none."""
    return value if value.microsecond and value.tzinfo is UTC else written(value)


WRITTEN: Final[Mapping[str, Mapping[type, Convert]]] = {
    "String": {str: None},
    "ID": {str: None, UUID: None},
    "Int": {int: _int},
    "Float": {float: _float},
    "Boolean": {bool: None},
    "DateTime": {datetime: _instant},
    "JSON": dict.fromkeys((dict, list, str, int, float, bool)),
}
"""How scalars are written that need not be asked."""


def of_scalar(name: str) -> Serializers | None:
    """How a scalar is written; None: the library is needed."""
    return Serializers(WRITTEN[name]) if name in WRITTEN else None


def of_enum(kind: GraphQLEnumType) -> Serializers | None:
    """How an enum is written; None: the library is needed."""
    cls = getattr(kind, "wrapped_cls", None)
    if cls is None or any(name != value.value for name, value in kind.values.items()):
        return None
    return Serializers({cls: attrgetter("_value_")})


def of_list(item: Serializers | None) -> Serializers | None:
    """How a list of such items is written; None: the library is needed."""
    return None if item is None else Serializers(dict.fromkeys((list, tuple), partial(_each, item)))


def _each(item: Serializers, values: Iterable[Any]) -> list[Any]:
    return [value if (convert := item[type(value)]) is None else convert(value) for value in values]


def of_column(column: sa.ColumnElement[Any], table: Serializers, dialect: Dialect) -> WriteColumn:
    """How the values of a column are written for a field."""
    kind = type(column.type)
    easy = EASY.get(kind)
    if easy in table and (NoneType in table or not getattr(column, "nullable", True)):
        given = plain(column.type, dialect)
        finish = FINISH.get(kind)
        return given if finish is None else lambda values: finish(given(values))
    write = partial(_value, processor(column.type, dialect), table)
    return partial(_by_value, write) if kind in FEW else partial(map, write)


EASY: Final[Mapping[type, type]] = {sa.Text: str, sa.Uuid: UUID, sa.Double: float, Timestamp: datetime}
"""Types of columns that are written as a whole, and of what Python type their values are."""

FEW: Final = (sa.Enum, sa.Integer, sa.Boolean, sa.JSON, DocumentColumn)
"""Types of columns that have few different values."""


def _instants(values: Sequence[datetime | None]) -> list[Any]:
    return [value if value is None or value.microsecond else written(value) for value in values]


def _floats(values: Sequence[float | None]) -> Sequence[float | None]:
    if all(map(isfinite, filter(None, values))):
        return values
    raise Fallback


FINISH: Final[Mapping[type, WriteColumn]] = {Timestamp: _instants, sa.Double: _floats}
"""What is left to do with values of such columns that are plain already."""


def _value(process: Convert, table: Serializers, value: Any) -> Any:
    return table.write(value if process is None or value is None else process(value))


def _by_value(write: Callable[[Any], Any], values: Sequence[Any]) -> Iterable[Any]:
    """Few different values: each is written once."""
    return map({value: write(value) for value in set(values)}.__getitem__, values)
