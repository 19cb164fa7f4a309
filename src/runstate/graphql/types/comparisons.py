"""Comparisons: one input for each kind of column, with its conditions in SQL."""

import functools
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import Enum
from types import new_class
from typing import Any, Final, Generic, TypeVar, get_args, get_origin
from uuid import UUID

import sqlalchemy as sa
import strawberry

from runstate.database.dialects import among, has_all_tags, has_any_tag
from runstate.database.instants import seconds_ago
from runstate.database.json_conditions import has_all_items, has_any_item
from runstate.database.texts import TEXT_CLAUSES
from runstate.errors import BadUserInput
from runstate.graphql.types.conditions import Clause, Column, Conditions, as_uuid, is_set, member, negated
from runstate.graphql.types.fields import input_type
from runstate.graphql.types.json_comparison import JsonComparison
from runstate.graphql.types.registry import RegistrationError
from runstate.graphql.types.unions import is_enum, is_union, variants

T = TypeVar("T")


@strawberry.input
class Comparison(Conditions, Generic[T]):
    """Conditions on a value. All must hold."""

    eq: T | None = member("The value equals this one.")
    ne: T | None = member("The value differs from this one, or is null.")
    in_: list[T] | None = member("The value is one of these; an empty list matches nothing.", name="in")
    not_in: list[T] | None = member("The value differs from all of these, or is null.")
    is_null: bool | None = member("True if the value is null; false if it is not.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column."""
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
        # A value that no column can hold is no mistake of the client: nothing is equal to it.
        return sa.false() if known is None else column == known

    def known(self, value: Any) -> Any:
        """Return the value as the column holds it; None if the column cannot hold it."""
        return value


@strawberry.input
class Ordered(Comparison[T]):
    """Conditions on a value that has an order. All must hold."""

    gt: T | None = member("The value is greater than this one.")
    gte: T | None = member("The value is greater than this one or equal to it.")
    lt: T | None = member("The value is less than this one.")
    lte: T | None = member("The value is less than this one or equal to it.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column."""
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
        # The type of the column converts the value like stored ones.
        return sa.literal(self.known(value), column.type)


@input_type(name="IDComparison")
class IdComparison(Comparison[strawberry.ID]):
    """Conditions on an id. All must hold; null is rejected. A malformed id equals no id."""

    def known(self, value: Any) -> UUID | None:
        """Return the id as a UUID; None if it is malformed."""
        return as_uuid(value)


@input_type()
class TextComparison(Comparison[str]):
    """Conditions on a text. All must hold; null is rejected."""

    contains: str | None = member("The text contains this one, ignoring case.")
    starts_with: str | None = member("The text starts with this one, with the same case.")
    ends_with: str | None = member("The text ends with this one, with the same case.")
    eq_ignore_case: str | None = member("The text equals this one, ignoring case.")

    def known(self, value: Any) -> str | None:
        """Return the text; None if it contains NUL, which PostgreSQL cannot store."""
        return None if "\0" in value else value

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column."""
        yield from super().clauses(column)
        for name, clause in TEXT_CLAUSES.items():
            if is_set(text := getattr(self, name)):
                yield sa.false() if "\0" in text else clause(column, text)


@input_type()
class IntComparison(Ordered[int]):
    """Conditions on an integer. All must hold; null is rejected."""


@input_type()
class FloatComparison(Ordered[float]):
    """Conditions on a number. All must hold; null is rejected."""


@input_type()
class SecondsAgoComparison(Conditions):
    """Conditions on the seconds that have passed since a time; negative before it. All must hold; null is rejected."""

    gt: float | None = member("The number is greater than this one: the time is earlier.")
    gte: float | None = member("The number is greater than this one or equal to it.")
    lt: float | None = member("The number is less than this one: the time is later.")
    lte: float | None = member("The number is less than this one or equal to it.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column with a time."""
        if is_set(self.gt):
            yield column < self._ago(self.gt)
        if is_set(self.gte):
            yield column <= self._ago(self.gte)
        if is_set(self.lt):
            yield column > self._ago(self.lt)
        if is_set(self.lte):
            yield column >= self._ago(self.lte)

    def _ago(self, seconds: Any) -> Column:
        if abs(seconds) > LONGEST.total_seconds():
            raise BadUserInput(f"A duration is at most {LONGEST.total_seconds():.0f} seconds.")
        return seconds_ago(seconds)


@input_type()
class DateTimeComparison(Ordered[datetime]):
    """Conditions on a time. All must hold; null is rejected."""

    seconds_ago: SecondsAgoComparison | None = member(
        "Conditions relative to the present, by the clock of the database: `{lte: 3600}` is the last hour."
    )

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column."""
        yield from super().clauses(column)
        if self.seconds_ago:
            yield from self.seconds_ago.clauses(column)


@input_type()
class BooleanComparison(Comparison[bool]):
    """Conditions on a Boolean. All must hold; null is rejected."""


@input_type()
class DateComparison(Ordered[date]):
    """Conditions on a date. All must hold; null is rejected."""


@input_type()
class DurationComparison(Ordered[float]):
    """Conditions on a duration in seconds. All must hold; null is rejected."""

    def known(self, value: Any) -> timedelta:
        """Return the duration. Raise BadUserInput if it is longer than a column can hold."""
        if abs(value) > LONGEST.total_seconds():
            raise BadUserInput(f"A duration is at most {LONGEST.total_seconds():.0f} seconds.")
        return timedelta(seconds=value)


LONGEST: Final = timedelta(days=365_000)
"""The longest duration in a filter or a cursor. SQLAlchemy stores an interval on SQLite as a time after 1970."""


@strawberry.input
class ListComparison(Conditions, Generic[T]):
    """Conditions on a list. All must hold; null is rejected."""

    all: list[T] | None = member("The list contains all of these; an empty list matches everything.")
    any: list[T] | None = member("The list contains at least one of these; an empty list matches nothing.")
    none: list[T] | None = member("The list contains none of these.")
    is_empty: bool | None = member("True if the list is empty; false if it is not.")

    def clauses(self, column: Column) -> Iterator[Clause]:
        """Yield the conditions on a column that holds a list."""
        if is_set(self.all):
            # No list contains a value that cannot be stored.
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
        """Return the value as JSON; None if no list can hold it."""
        return value

    def has_all(self, column: Column, values: list[Any]) -> Clause:
        """Return the condition that a column contains all values."""
        return has_all_tags(column, values)

    def has_any(self, column: Column, values: list[Any]) -> Clause:
        """Return the condition that a column contains one of the values."""
        return has_any_tag(column, values)


@input_type()
class TagsComparison(ListComparison[str]):
    """Conditions on tags. All must hold; null is rejected."""

    def stored(self, value: str) -> str | None:
        """Return the text; None if it contains NUL, which PostgreSQL cannot store."""
        return None if "\0" in value else value


@input_type(name="IDListComparison")
class IdListComparison(ListComparison[strawberry.ID]):
    """Conditions on a list of ids. All must hold; null is rejected. A malformed id equals no id."""

    def stored(self, value: str) -> str | None:
        """Return the id as JSON; None if it is malformed."""
        known = as_uuid(value)
        return None if known is None else str(known)


@input_type()
class IntListComparison(ListComparison[int]):
    """Conditions on a list of integers. All must hold; null is rejected."""

    def has_all(self, column: Column, values: list[Any]) -> Clause:
        """Return the condition that a column contains all numbers."""
        return has_all_items(column, values)

    def has_any(self, column: Column, values: list[Any]) -> Clause:
        """Return the condition that a column contains one of the numbers."""
        return has_any_item(column, values)


# Cached: a schema has one type of each name.
@functools.cache
def _of_enum(enum: type[Enum]) -> type:
    base: Any = Comparison[enum]  # type: ignore[valid-type]
    return _made(
        base, f"{enum.__name__}Comparison", f"Conditions on a {enum.__name__}. All must hold; null is rejected."
    )


@functools.cache
def _of_enums(enum: type[Enum]) -> type:
    base: Any = ListComparison[enum]  # type: ignore[valid-type]
    doc = f"Conditions on a list of {enum.__name__}. All must hold; null is rejected."
    return _made(base, f"{enum.__name__}ListComparison", doc, stored=lambda _, value: value.value)


def _made(base: Any, name: str, doc: str, **body: Any) -> type:
    # Unlike type(), new_class() accepts generic bases.
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
    dict[str, str]: JsonComparison,
    Any: JsonComparison,
}


def comparison(annotation: Any) -> type:
    """Return the comparison for a type of column. Raise RegistrationError if no comparison is known."""
    if is_union(annotation) and len(variants(annotation)) == 1:
        return comparison(variants(annotation)[0])
    if is_enum(annotation):
        return _of_enum(annotation)
    if get_origin(annotation) is list and is_enum(get_args(annotation)[0]):
        return _of_enums(get_args(annotation)[0])
    if annotation not in KINDS:
        raise RegistrationError(
            f"No comparison is known for {annotation}. Add one to `comparisons.KINDS`, or set `info=NOT_FILTERABLE`."
        )
    return KINDS[annotation]
