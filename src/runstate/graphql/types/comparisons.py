"""What a column can be compared with: one input a kind of value, each of which says what it means in SQL.

A comparison may come out as NULL in SQL where a column is null: that counts as false, and who negates says so.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from types import new_class
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
import strawberry
from strawberry import UNSET

from runstate.database.dialects import (
    among,
    has_all_items,
    has_all_tags,
    has_any_item,
    has_any_tag,
    json_contains,
    json_equals,
    json_is_null,
    text_contains,
)
from runstate.errors import BadUserInput, LimitExceeded
from runstate.graphql.types.fields import input_type
from runstate.graphql.types.input_values import DEFINITION
from runstate.graphql.types.registry import RegistrationError
from runstate.graphql.types.unions import is_enum, is_union, variants

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


class Conditions:
    """An input that holds conditions. Null is none: who forgets a value would find everything."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Members that are no conditions themselves."""
    may_be_empty: ClassVar[bool] = False

    @classmethod
    def check_members(cls, given: Mapping[str, Any]) -> None:
        """Raise BadUserInput if a member is null, or none is a condition."""
        name = getattr(cls, DEFINITION).name
        null = next((member for member, value in given.items() if value is None), None)
        if null is not None:
            hint = ", or use `isNull: true` to find what is null" if hasattr(cls, "is_null") else ""
            raise BadUserInput(f"`{null}` of {name} is null, which is no condition. Omit it{hint}.")
        if not cls.may_be_empty and given.keys() <= cls.options:
            raise BadUserInput(
                f"{name} holds no condition. Give one, or omit the whole input. A variable without a value gives none."
            )


@strawberry.input
class Comparison(Conditions, Generic[T]):
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
            yield column > self._bound(column, self.gt)
        if is_set(self.gte):
            yield column >= self._bound(column, self.gte)
        if is_set(self.lt):
            yield column < self._bound(column, self.lt)
        if is_set(self.lte):
            yield column <= self._bound(column, self.lte)

    def _bound(self, column: Column, value: Any) -> Column:
        return sa.literal(self.known(value), column.type)


@input_type(name="IDComparison")
class IdComparison(Comparison[strawberry.ID]):
    """Conditions on an id: all must hold, and null is refused. A malformed id is the id of nothing."""

    def known(self, value: Any) -> UUID | None:
        """The UUID, if it is one."""
        return as_uuid(value)


@input_type()
class TextComparison(Comparison[str]):
    """Conditions on a text: all must hold, and null is refused."""

    contains: str | None = member("It contains this, in upper or lower case.")
    starts_with: str | None = member("It starts with this; case counts.")

    def known(self, value: Any) -> str | None:
        """The text, if it can be held."""
        return None if "\0" in value else value

    def clauses(self, column: Column) -> Iterator[Clause]:
        """What a column must meet."""
        yield from super().clauses(column)
        for text, clause in ((self.contains, text_contains), (self.starts_with, _starts_with)):
            if is_set(text):
                yield sa.false() if "\0" in str(text) else clause(column, str(text))


def _starts_with(column: Column, text: str) -> Clause:
    return sa.func.substr(column, 1, len(text)) == text


@input_type()
class IntComparison(Ordered[int]):
    """Conditions on a whole number: all must hold, and null is refused."""


@input_type()
class FloatComparison(Ordered[float]):
    """Conditions on a number: all must hold, and null is refused."""


@input_type()
class DateTimeComparison(Ordered[datetime]):
    """Conditions on a time: all must hold, and null is refused."""


@input_type()
class BooleanComparison(Comparison[bool]):
    """Conditions on a Boolean: all must hold, and null is refused."""


@input_type()
class DateComparison(Ordered[date]):
    """Conditions on a date: all must hold, and null is refused."""


@input_type()
class DurationComparison(Ordered[float]):
    """Conditions on a duration in seconds: all must hold, and null is refused."""

    def known(self, value: Any) -> timedelta:
        """Return the length of time. Raise BadUserInput if it is longer than columns hold."""
        if abs(value) > LONGEST.total_seconds():
            raise BadUserInput(f"A length of time is at most {LONGEST.total_seconds():.0f} seconds.")
        return timedelta(seconds=value)


LONGEST: Final = timedelta(days=365_000)
"""The longest length of time that a filter or a cursor holds: SQLite keeps one as that long after 1970."""


@strawberry.input
class ListComparison(Conditions, Generic[T]):
    """Conditions on a list: all must hold, and null is refused."""

    all: list[T] | None = member("They contain every one of these; an empty list asks for nothing.")
    any: list[T] | None = member("They contain one of these at least; an empty list matches nothing.")
    none: list[T] | None = member("They contain none of these.")
    is_empty: bool | None = member("Whether there are none at all.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column that holds a list."""
        if is_set(self.all):
            wanted = self._stored(self.all)
            yield sa.false() if None in wanted else self.has_all(column, wanted)
        if is_set(self.any):
            yield self.has_any(column, self._known(self.any))
        if is_set(self.none):
            yield sa.not_(self.has_any(column, self._known(self.none)))
        if is_set(self.is_empty):
            yield (column == []) if self.is_empty else (column != [])

    def _stored(self, values: Any) -> list[Any]:
        return [self.stored(value) for value in values]

    def _known(self, values: Any) -> list[Any]:
        return [value for value in self._stored(values) if value is not None]

    def stored(self, value: Any) -> Any:
        """Return the value as JSON has it; null if no list can hold it."""
        return value

    def has_all(self, column: Column, values: list[Any]) -> Clause:
        """Whether a column has every value."""
        return has_all_tags(column, values)

    def has_any(self, column: Column, values: list[Any]) -> Clause:
        """Whether a column has one of the values."""
        return has_any_tag(column, values)


@input_type()
class TagsComparison(ListComparison[str]):
    """Conditions on tags: all must hold, and null is refused."""

    def stored(self, value: str) -> str | None:
        """Return the text; null if it cannot be stored."""
        return None if "\0" in value else value


@input_type(name="IDListComparison")
class IdListComparison(ListComparison[strawberry.ID]):
    """Conditions on a list of ids: all must hold, and null is refused. A malformed id is the id of nothing."""

    def stored(self, value: str) -> str | None:
        """Return the id as JSON has it; null if it is malformed."""
        known = as_uuid(value)
        return None if known is None else str(known)


@input_type()
class IntListComparison(ListComparison[int]):
    """Conditions on a list of whole numbers: all must hold, and null is refused."""

    def has_all(self, column: Column, values: list[Any]) -> Clause:
        """Whether a column has every number."""
        return has_all_items(column, values)

    def has_any(self, column: Column, values: list[Any]) -> Clause:
        """Whether a column has one of the numbers."""
        return has_any_item(column, values)


@input_type(name="JSONComparison")
class JsonComparison(Conditions):
    """Conditions on a JSON value: all must hold, and null is refused. `and` joins conditions on several paths."""

    options = frozenset({"path"})

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


MOST_ITEMS: Final = 1_000
"""Items of all lists in one JSON value."""
MOST_NESTED: Final = 200
"""Levels of one JSON value; the database takes 254."""
NOWHERE: Final = "\ufffd\ufffd no key \ufffd\ufffd"
"""Stands for keys that nothing that is stored can have."""


def _json(compare: Callable[[Column, list[str], Any], Clause], column: Column, keys: list[str], value: Any) -> Clause:
    """Return a condition. PostgreSQL compares two lists item by item and cannot be interrupted, so they are short."""
    if (items := _items(value, 0)) > MOST_ITEMS:
        raise LimitExceeded("listItems", MOST_ITEMS, items)
    return sa.false() if _has_nul(value) else compare(column, keys, value)


def _items(value: Any, depth: int) -> int:
    """Return how many items the lists in a JSON value have; raise BadUserInput if it is nested too deeply."""
    if depth > MOST_NESTED:
        raise BadUserInput("A JSON value is nested too deeply.")
    if isinstance(value, dict):
        return sum(_items(each, depth + 1) for each in value.values())
    return sum(1 + _items(each, depth + 1) for each in value) if isinstance(value, list) else 0


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(held) for key, held in value.items())
    return any(map(_has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


@functools.cache
def _of_enum(enum: type[Enum]) -> type:
    base: Any = Comparison[enum]  # type: ignore[valid-type]
    return _made(
        base, f"{enum.__name__}Comparison", f"Conditions on a {enum.__name__}: all must hold, and null is refused."
    )


@functools.cache
def _of_enums(enum: type[Enum]) -> type:
    base: Any = ListComparison[enum]  # type: ignore[valid-type]
    doc = f"Conditions on a list of {enum.__name__}: all must hold, and null is refused."
    return _made(base, f"{enum.__name__}ListComparison", doc, stored=lambda _, value: value.value)


def _made(base: Any, name: str, doc: str, **body: Any) -> type:
    return input_type()(new_class(name, (base,), exec_body=lambda empty: empty.update(body, __doc__=doc)))


KINDS: Final[dict[Any, type]] = {
    UUID: IdComparison,
    str: TextComparison,
    int: IntComparison,
    float: FloatComparison,
    bool: BooleanComparison,
    datetime: DateTimeComparison,
    date: DateComparison,
    timedelta: DurationComparison,
    list[str]: TagsComparison,
    list[UUID]: IdListComparison,
    list[int]: IntListComparison,
    dict[str, Any]: JsonComparison,
    Any: JsonComparison,
}


def comparison(annotation: Any) -> type:
    """Return the comparison for a type of column. Raise RegistrationError if there is none."""
    if is_union(annotation) and len(variants(annotation)) == 1:
        return comparison(variants(annotation)[0])
    if is_enum(annotation):
        return _of_enum(annotation)
    if get_origin(annotation) is list and is_enum(get_args(annotation)[0]):
        return _of_enums(get_args(annotation)[0])
    if annotation not in KINDS:
        raise RegistrationError(
            f"No comparison is known for {annotation}. Add one to `comparisons.KINDS`, or say `info=NOT_FILTERABLE`."
        )
    return KINDS[annotation]
