"""What a column can be compared with: one input a kind of value, each of which says what it means in SQL.

A comparison may come out as NULL in SQL where a column is null: that counts as false, and who negates says so.
"""

import functools
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType, new_class
from typing import Any, Final, Generic, TypeVar, Union, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.dialects import among, has_all_tags, has_any_tag, json_contains, json_equals, json_is_null
from runstate.graphql.types.fields import input_type

T = TypeVar("T")
Clause = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]


def is_set(value: object) -> bool:
    """Whether a client gave a member of an input: null counts as not given."""
    return value is not UNSET and value is not None


def negated(clause: Clause) -> Clause:
    """The negation of a clause, where NULL is false."""
    return sa.not_(sa.func.coalesce(clause, sa.false()))


def as_uuid(value: str) -> UUID | None:
    """The UUID that a text stands for."""
    try:
        return UUID(value)
    except ValueError:
        return None


def member(description: str, name: str | None = None) -> Any:
    """An optional member of an input."""
    return strawberry.field(name=name, default=UNSET, description=description)


@strawberry.input
class Comparison(Generic[T]):
    """All that is given must hold."""

    eq: T | None = member("It is this value.")
    ne: T | None = member("It is not this value; null is not.")
    in_: list[T] | None = member("It is one of these values; an empty list matches nothing.", name="in")
    not_in: list[T] | None = member("It is none of these values; null is none.")
    is_null: bool | None = member("Whether it is null.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a column must meet."""
        if is_set(self.eq):
            yield self._equals(column, self.eq)
        if is_set(self.ne):
            yield negated(self._equals(column, self.ne))
        if is_set(self.in_):
            yield among(column, self._known(self.in_))
        if is_set(self.not_in):
            yield negated(among(column, self._known(self.not_in)))
        if is_set(self.is_null):
            yield column.is_(None) if self.is_null else column.is_not(None)

    def _known(self, values: Any) -> list[Any]:
        return [known for value in values if (known := self.known(value)) is not None]

    def _equals(self, column: Column, value: Any) -> Clause:
        known = self.known(value)
        return sa.false() if known is None else column == known

    def known(self, value: Any) -> Any:
        """The value as the column holds it; None: the column cannot hold it."""
        return value


@strawberry.input
class Ordered(Comparison[T]):
    """A comparison of values that have an order."""

    gt: T | None = member("It is greater.")
    gte: T | None = member("It is greater or equal.")
    lt: T | None = member("It is less.")
    lte: T | None = member("It is less or equal.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a column must meet."""
        yield from super().clauses(column)
        if is_set(self.gt):
            yield column > self.gt
        if is_set(self.gte):
            yield column >= self.gte
        if is_set(self.lt):
            yield column < self.lt
        if is_set(self.lte):
            yield column <= self.lte


@input_type(name="IDComparison")
class IdComparison(Comparison[strawberry.ID]):
    """What an id is compared with. A malformed id is the id of nothing."""

    def known(self, value: Any) -> UUID | None:
        """The UUID, if it is one."""
        return as_uuid(value)


@input_type()
class TextComparison(Comparison[str]):
    """What a text is compared with."""

    contains: str | None = member("It contains this, in upper or lower case.")
    starts_with: str | None = member("It starts with this; case counts.")

    def known(self, value: Any) -> str | None:
        """The text, if it can be held."""
        return None if "\0" in value else value

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a column must meet."""
        yield from super().clauses(column)
        for text, clause in ((self.contains, _contains), (self.starts_with, _starts_with)):
            if is_set(text):
                yield sa.false() if "\0" in str(text) else clause(column, str(text))


def _contains(column: Column, text: str) -> Clause:
    return column.icontains(text, autoescape=True)


def _starts_with(column: Column, text: str) -> Clause:
    return sa.func.substr(column, 1, len(text)) == text


@input_type()
class IntComparison(Ordered[int]):
    """What a whole number is compared with."""


@input_type()
class FloatComparison(Ordered[float]):
    """What a number is compared with."""


@input_type()
class DateTimeComparison(Ordered[datetime]):
    """What an instant is compared with."""


@input_type()
class BooleanComparison(Comparison[bool]):
    """What a truth value is compared with."""


@input_type()
class TagsComparison:
    """What tags are compared with: all that is given must hold."""

    all: list[str] | None = member("They contain every one of these; an empty list asks for nothing.")
    any: list[str] | None = member("They contain one of these at least; an empty list matches nothing.")
    none: list[str] | None = member("They contain none of these.")
    is_empty: bool | None = member("Whether there are none at all.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a column of tags must meet."""
        if is_set(self.all):
            wanted = self.all or []
            yield sa.false() if any("\0" in tag for tag in wanted) else has_all_tags(column, wanted)
        if is_set(self.any):
            yield has_any_tag(column, _tags(self.any))
        if is_set(self.none):
            yield sa.not_(has_any_tag(column, _tags(self.none)))
        if is_set(self.is_empty):
            yield (column == []) if self.is_empty else (column != [])


def _tags(tags: list[str] | None) -> list[str]:
    return [tag for tag in tags or [] if "\0" not in tag]


@input_type(name="JSONComparison")
class JsonComparison:
    """What a JSON value is compared with: all that is given must hold. Several keys are asked for with `and`."""

    path: list[str] | None = member("The keys that lead to the value, places of a list among them; none: all of it.")
    eq: strawberry.scalars.JSON | None = member("It is this value; 1 and 1.0 are the same.")
    ne: strawberry.scalars.JSON | None = member("It is not this value; what is not there is not.")
    in_: list[strawberry.scalars.JSON] | None = member(
        "It is one of these values; an empty list matches nothing.", name="in"
    )
    not_in: list[strawberry.scalars.JSON] | None = member("It is none of these values; what is not there is none.")
    contains: strawberry.scalars.JSON | None = member(
        "It has these keys with values that contain these, or these items in any order; a list contains what is one "
        "of its items."
    )
    is_null: bool | None = member("Whether it is null or not there.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a JSON column must meet."""
        keys: list[str] = [] if self.path is UNSET else self.path or []
        if any("\0" in key for key in keys):
            keys = [NOWHERE]
        if is_set(self.eq):
            yield _json(json_equals, column, keys, self.eq)
        if is_set(self.ne):
            yield negated(_json(json_equals, column, keys, self.ne))
        if is_set(self.in_):
            yield sa.or_(sa.false(), *(_json(json_equals, column, keys, each) for each in self.in_ or []))
        if is_set(self.not_in):
            yield negated(sa.or_(sa.false(), *(_json(json_equals, column, keys, each) for each in self.not_in or [])))
        if is_set(self.contains):
            yield _json(json_contains, column, keys, self.contains)
        if is_set(self.is_null):
            null = json_is_null(column, keys)
            yield null if self.is_null else sa.not_(null)


NOWHERE: Final = "\ufffd\ufffd no key \ufffd\ufffd"
"""Stands for keys that nothing that is stored can have."""


def _json(compare: Callable[[Column, list[str], Any], Clause], column: Column, keys: list[str], value: Any) -> Clause:
    return sa.false() if _has_nul(value) else compare(column, keys, value)


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(held) for key, held in value.items())
    return any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


@functools.cache
def _of_enum(enum: type[Enum]) -> type:
    base: Any = Comparison[enum]  # type: ignore[valid-type]
    doc = f"What a {enum.__name__} is compared with."
    return input_type()(
        new_class(f"{enum.__name__}Comparison", (base,), exec_body=lambda body: body.update(__doc__=doc))
    )


KINDS: Final[dict[Any, type]] = {
    UUID: IdComparison,
    str: TextComparison,
    int: IntComparison,
    float: FloatComparison,
    bool: BooleanComparison,
    datetime: DateTimeComparison,
    list[str]: TagsComparison,
    dict[str, Any]: JsonComparison,
    Any: JsonComparison,
}


def comparison(annotation: Any) -> type | None:
    """The comparison for a type of column; None: it cannot be asked for."""
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (argument for argument in get_args(annotation) if argument is not NoneType)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _of_enum(annotation)
    return KINDS.get(annotation)
