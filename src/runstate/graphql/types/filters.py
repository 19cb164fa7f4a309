"""Filters: `Where[Row]` has a member for each stored field and each reference."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import sqlalchemy as sa
from strawberry import UNSET

from runstate.database import text_search
from runstate.errors import BadUserInput, InvalidInput
from runstate.graphql.types.comparisons import comparison
from runstate.graphql.types.conditions import Clause, Conditions, is_set, member, negated
from runstate.graphql.types.deferred import lazy_type
from runstate.graphql.types.derive import (
    Member,
    Reference,
    class_of,
    definition_of,
    is_row,
    list_of,
    members,
    optional,
)
from runstate.graphql.types.fields import input_type, named
from runstate.graphql.types.registry import REGISTRY, RegistrationError
from runstate.rows import Row

R = TypeVar("R", bound=Row)

DEEPEST: Final = 12
MOST_CONDITIONS: Final = 200
LONGEST_SEARCH: Final = 200
SEARCH: Final = (
    "Full-text search in {}, ignoring case, at most 200 characters: at least one of the words is contained, all words "
    "after `+`, and none after `-` or `!`. A phrase in double quotes counts as one word."
)


class Extra(NamedTuple):
    """An argument of a list besides those of all lists: a condition on the rows."""

    kind: Any
    description: str
    clause: Callable[[sa.FromClause, Any], Clause]
    """Returns the condition on a table for a value that was sent, or for the default."""
    default: Any = UNSET
    one_per: str | None = None
    """Column: only the first row with each value is listed, if the argument is true."""


class Extras(dict[str, Extra]):
    """The additional arguments of one list, by name."""

    __hash__ = object.__hash__  # type: ignore[assignment]

    def conditions(self, given: Mapping[str, Any]) -> list[Callable[[sa.FromClause], Clause]]:
        """Return the conditions on a table for arguments that were sent."""
        values = {name: given.get(name, extra.default) for name, extra in self.items() if not extra.one_per}
        return [partial(_extra, self[name].clause, value) for name, value in values.items() if is_set(value)]

    def one_per(self, given: Mapping[str, Any]) -> str | None:
        """Return the column of which each value is listed once; None if that was not asked for."""
        return next((extra.one_per for name, extra in self.items() if extra.one_per and given.get(name)), None)


def _extra(clause: Callable[[sa.FromClause, Any], Clause], value: Any, table: sa.FromClause) -> Clause:
    return clause(table, value)


NO_EXTRAS: Final = Extras()


OWN_CONDITIONS: Final[dict[type[Row], Extras]] = {}
"""Members of the filter of a row that are no columns, by row."""


def has_conditions(row: type[Row], **own: Extra) -> None:
    """Add members to the filter of a row, each with a condition on the table."""
    REGISTRY.require_open(row, f"A condition on {row.__name__}")
    OWN_CONDITIONS[row] = Extras(own)


class HasMany(NamedTuple):
    """The rows that refer to a row by a key; without a key, all rows of the table."""

    row: type[Row]
    key: str | None
    extras: Extras = NO_EXTRAS


class Depth:
    """The depth of a filter and the number of its conditions. Raises BadUserInput if one is too large."""

    def __init__(self) -> None:
        self.level = 0
        self.conditions = 0

    def enter(self) -> None:
        """Go one level down."""
        self.level += 1
        if self.level > DEEPEST:
            raise BadUserInput(f"A filter is at most {DEEPEST} levels deep.")

    def leave(self) -> None:
        """Go one level up."""
        self.level -= 1

    def count(self) -> None:
        """Count a condition."""
        self.conditions += 1
        if self.conditions > MOST_CONDITIONS:
            raise BadUserInput(f"A filter holds at most {MOST_CONDITIONS} conditions.")


class Where(Conditions, Generic[R]):
    """A condition on rows of R; `Where[FlowRun]` is the input `FlowRunWhere`."""

    may_be_empty = True
    row: ClassVar[type[Row]]
    reference_fields: ClassVar[dict[str, Reference]]
    list_fields: ClassVar[dict[str, HasMany]]

    def clause(self, table: sa.FromClause, depth: Depth | None = None) -> Clause:
        """Return the condition on rows of a table, or of an alias of it. NULL counts as false."""
        # One count for the whole filter, however deep it is nested.
        depth = depth or Depth()
        depth.enter()
        present = {name: value for name, value in vars(self).items() if is_set(value)}
        parts = [part for name, value in present.items() for part in self._parts(name, value, table, depth)]
        depth.leave()
        # SQLAlchemy deprecates and_() without arguments.
        return sa.and_(sa.true(), *parts)

    def _parts(self, name: str, value: Any, table: sa.FromClause, depth: Depth) -> Iterator[Clause]:
        depth.count()
        if name == "and_":
            yield from (where.clause(table, depth) for where in value)
        elif name == "or_":
            # SQLAlchemy deprecates or_() without arguments.
            yield sa.or_(sa.false(), *(where.clause(table, depth) for where in value))
        elif name == "not_":
            # Not NOT alone: NULL counts as false here, so its negation is true.
            yield negated(value.clause(table, depth))
        elif name == "search" and self.row.__searched__:
            yield _matches(table, self.row, value)
        elif own := OWN_CONDITIONS.get(self.row, NO_EXTRAS).get(name):
            yield own.clause(table, value)
        elif name in self.reference_fields:
            yield refers(table, self.reference_fields[name], value, depth)
        elif name in self.list_fields:
            yield from value.clauses(table, self.list_fields[name], depth)
        else:
            yield from value.clauses(table.c[name])

    @classmethod
    def __class_getitem__(cls, row: type[R]) -> Any:
        # Generic classes are also subscripted with type variables.
        if not is_row(row):
            return cls
        # Lazy, because filters of rows that refer to each other contain each other.
        return lazy_type(f"{row.__name__}Where", lambda: REGISTRY.make(Where, row, lambda: _where(row)))


class ListFilter(Conditions, Generic[R]):
    """A condition on the rows that refer to a row; `ListFilter[TaskRun]` is the input `TaskRunListWhere`."""

    some: Any
    none: Any
    every: Any

    def clauses(self, table: sa.FromClause, many: HasMany, depth: Depth) -> Iterator[Clause]:
        """Yield the conditions on a row."""
        if is_set(self.some):
            yield _exists_child(table, many, self.some, depth)
        if is_set(self.none):
            yield sa.not_(_exists_child(table, many, self.none, depth))
        if is_set(self.every):
            # All of them meet it if none does not.
            yield sa.not_(_exists_child(table, many, self.every, depth, meets=False))

    @classmethod
    def __class_getitem__(cls, row: type[R]) -> Any:
        if not is_row(row):
            return cls
        return lazy_type(f"{row.__name__}ListWhere", lambda: REGISTRY.make(ListFilter, row, lambda: _list_where(row)))


def refers(table: sa.FromClause, reference: Reference, where: Where[Any], depth: Depth) -> Clause:
    """Return the condition that a row refers to a row that meets a condition."""
    # A condition can lead back to the same table.
    target = reference.target.__table__.alias()
    found = sa.select(sa.literal(1)).where(target.c.id == table.c[reference.key], where.clause(target, depth))
    return found.correlate(table).exists()


def _matches(table: sa.FromClause, row: type[Row], text: str) -> Clause:
    if len(text) > LONGEST_SEARCH:
        raise InvalidInput(f"A search has at most {LONGEST_SEARCH} characters.", ("where", "search"))
    return text_search.matches([table.c[name] for name in row.__searched__], text_search.parse(text))


def _exists_child(
    table: sa.FromClause, many: HasMany, where: Where[Any], depth: Depth, *, meets: bool = True
) -> Clause:
    source = many.row.__table__.alias()
    clause = where.clause(source, depth)
    found = sa.select(sa.literal(1)).where(source.c[str(many.key)] == table.c.id, clause if meets else negated(clause))
    return found.correlate(table).exists()


def _where(row: type[Row]) -> type:
    name = f"{row.__name__}Where"
    own = Where.__class_getitem__(row)
    fields: dict[str, tuple[Any, Any]] = {
        "and_": (optional(list_of(own)), member("All of these conditions hold.", name="and")),
        "or_": (
            optional(list_of(own)),
            member("At least one of these conditions holds; an empty list matches nothing.", name="or"),
        ),
        "not_": (optional(own), member("This condition does not hold.", name="not")),
    }
    fields |= {stored.name: _comparison(row, stored) for stored in members(row) if stored.filterable}
    if row.__searched__:
        fields["search"] = optional(str), member(SEARCH.format(" and ".join(row.__searched__)))
    metadata = [(field.python_name, field.description, field.metadata) for field in definition_of(row).fields]
    own_conditions = OWN_CONDITIONS.get(row, NO_EXTRAS)
    fields |= {known: (optional(each.kind), member(each.description)) for known, each in own_conditions.items()}
    references = {known: data["reference"] for known, _, data in metadata if "reference" in data}
    many = {known: found for known, _, data in metadata if (found := data.get("many") or data.get("condition"))}
    docs = {known: doc for known, doc, _ in metadata}
    fields |= {
        known: _condition(Where.__class_getitem__(reference.target), docs[known])
        for known, reference in references.items()
    }
    fields |= {known: _condition(ListFilter.__class_getitem__(each.row), docs[known]) for known, each in many.items()}
    doc = f"Conditions on {row.__name__} objects. All must hold; null is rejected."
    return input_type()(
        class_of(name, (Where,), fields, __doc__=doc, row=row, reference_fields=references, list_fields=many)
    )


def _list_where(row: type[Row]) -> type:
    where = optional(Where.__class_getitem__(row))
    fields = {
        "some": (where, member("At least one of them meets this condition.")),
        "none": (where, member("None of them meets this condition.")),
        "every": (where, member("All of them meet this condition, or none exist.")),
    }
    doc = f"Conditions on the {row.__name__} objects that belong to the object. All must hold; null is rejected."
    return input_type()(class_of(f"{row.__name__}ListWhere", (ListFilter,), fields, __doc__=doc))


def _comparison(row: type[Row], stored: Member) -> tuple[Any, Any]:
    try:
        return optional(comparison(stored.type)), member(stored.doc or "", named(stored.name))
    except RegistrationError as error:
        raise RegistrationError(f"{row.__name__}.{stored.name}: {error}") from error


def _condition(kind: Any, doc: str | None) -> tuple[Any, Any]:
    return optional(kind), member(doc or "")
