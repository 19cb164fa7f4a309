"""Which rows: `Where[Row]` has one member for each stored field and one for each reference."""

import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from runstate.errors import BadUserInput
from runstate.graphql.types.comparisons import Clause, comparison, is_set, member, negated
from runstate.graphql.types.derive import (
    Member,
    Reference,
    class_of,
    definition_of,
    is_row,
    lazy_type,
    list_of,
    members,
    optional,
)
from runstate.graphql.types.fields import input_type
from runstate.rows import Row

R = TypeVar("R", bound=Row)

DEEPEST: Final = 12
MOST_CONDITIONS: Final = 200


class HasMany(NamedTuple):
    """The rows that point at a row with a key; all of them: without a key."""

    row: type[Row]
    key: str | None


class Depth:
    """How deep a filter may still go, and how many conditions it may still hold."""

    def __init__(self) -> None:
        self.level = 0
        self.conditions = 0

    def enter(self) -> None:
        """One level deeper."""
        self.level += 1
        if self.level > DEEPEST:
            raise BadUserInput(f"A filter is at most {DEEPEST} levels deep.")

    def leave(self) -> None:
        """One level up."""
        self.level -= 1

    def count(self) -> None:
        """One condition more."""
        self.conditions += 1
        if self.conditions > MOST_CONDITIONS:
            raise BadUserInput(f"A filter holds at most {MOST_CONDITIONS} conditions.")


class Where(Generic[R]):
    """A condition on the rows of R; `Where[FlowRun]` is the input `FlowRunWhere`."""

    row: ClassVar[type[Row]]
    references: ClassVar[dict[str, Reference]]
    many: ClassVar[dict[str, HasMany]]

    def clause(self, table: sa.FromClause, depth: Depth | None = None) -> Clause:
        """What rows of a table, or of an alias of it, must meet. NULL counts as false."""
        depth = depth or Depth()
        depth.enter()
        asked_for = {name: value for name, value in vars(self).items() if is_set(value)}
        parts = [part for name, value in asked_for.items() for part in self._parts(name, value, table, depth)]
        depth.leave()
        return sa.and_(sa.true(), *parts)

    def _parts(self, name: str, value: Any, table: sa.FromClause, depth: Depth) -> Iterator[Clause]:
        depth.count()
        if name == "and_":
            yield from (where.clause(table, depth) for where in value)
        elif name == "or_":
            yield sa.or_(sa.false(), *(where.clause(table, depth) for where in value))
        elif name == "not_":
            yield negated(value.clause(table, depth))
        elif name in self.references:
            yield refers(table, self.references[name], value, depth)
        elif name in self.many:
            yield from value.clauses(table, self.many[name], depth)
        else:
            yield from value.clauses(table.c[name])

    @classmethod
    @functools.cache
    def __class_getitem__(cls, row: type[R]) -> type:
        return _where(row) if is_row(row) else cls


class ListFilter(Generic[R]):
    """A condition on the rows that point at a row; `Some[TaskRun]` is the input `TaskRunListWhere`."""

    some: Any
    none: Any

    def clauses(self, table: sa.FromClause, many: HasMany, depth: Depth) -> Iterator[Clause]:
        """What a row must meet."""
        if is_set(self.some):
            yield _exists_child(table, many, self.some, depth)
        if is_set(self.none):
            yield sa.not_(_exists_child(table, many, self.none, depth))

    @classmethod
    @functools.cache
    def __class_getitem__(cls, row: type[R]) -> type:
        if not is_row(row):
            return cls
        where = optional(_of(row))
        fields = {
            "some": (where, member("One of them at least meets this.")),
            "none": (where, member("None of them meets this.")),
        }
        doc = f"Which {row.__name__} objects belong to it: all that is given must hold."
        return input_type()(class_of(f"{row.__name__}ListWhere", (cls,), fields, __doc__=doc))


def refers(table: sa.FromClause, reference: Reference, where: Where[Any], depth: Depth) -> Clause:
    """Whether a row points at one that meets a condition."""
    target = reference.target.__table__.alias()
    found = sa.select(sa.literal(1)).where(target.c.id == table.c[reference.key], where.clause(target, depth))
    return found.correlate(table).exists()


def _exists_child(table: sa.FromClause, many: HasMany, where: Where[Any], depth: Depth) -> Clause:
    source = many.row.__table__.alias()
    found = sa.select(sa.literal(1)).where(source.c[str(many.key)] == table.c.id, where.clause(source, depth))
    return found.correlate(table).exists()


def _where(row: type[Row]) -> type:
    name = f"{row.__name__}Where"
    own = _of(row)
    fields: dict[str, tuple[Any, Any]] = {
        "and_": (optional(list_of(own)), member("All of these hold.", name="and")),
        "or_": (optional(list_of(own)), member("One of these holds; an empty list matches nothing.", name="or")),
        "not_": (optional(own), member("This does not hold.", name="not")),
    }
    fields |= {stored.name: field for stored in members(row) if (field := _compared(stored))}
    metadata = [(field.python_name, field.description, field.metadata) for field in definition_of(row).fields]
    references = {known: data["reference"] for known, _, data in metadata if "reference" in data}
    many = {known: data["many"] for known, _, data in metadata if "many" in data}
    docs = {known: doc for known, doc, _ in metadata}
    fields |= {known: _asked(_of(reference.target), docs[known]) for known, reference in references.items()}
    fields |= {known: _asked(_list_of(held.row), docs[known]) for known, held in many.items()}
    doc = f"Which {row.__name__} objects: all that is given must hold."
    return input_type()(class_of(name, (Where,), fields, __doc__=doc, row=row, references=references, many=many))


def _compared(stored: Member) -> tuple[Any, Any] | None:
    kind = comparison(stored.type)
    return _asked(kind, stored.doc) if kind else None


def _asked(kind: Any, doc: str | None) -> tuple[Any, Any]:
    return optional(kind), member(doc or "")


def _of(row: type[Row]) -> Any:
    return lazy_type(f"{row.__name__}Where", lambda: Where.__class_getitem__(row))


def _list_of(row: type[Row]) -> Any:
    return lazy_type(f"{row.__name__}ListWhere", lambda: ListFilter.__class_getitem__(row))
