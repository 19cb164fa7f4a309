"""Plans: the selected fields of objects of one type, compiled for repeated execution."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, Protocol, cast

from graphql import FragmentDefinitionNode, GraphQLObjectType
from graphql.execution.collect_fields import FieldDetailsList
from graphql.execution.values import VariableValues
from typing_extensions import override

from runstate.graphql.execution.answer_size import VALUE_BYTES, AnswerSize
from runstate.graphql.execution.fallbacks import Fallback
from runstate.graphql.execution.serialization import Convert, LengthOf, Serializers, WriteColumn, length_of, of_column
from runstate.graphql.pagination.raw_rows import RawRows, as_json
from runstate.graphql.types.derive import Computed
from runstate.graphql.types.fields import DEFINED_BY
from runstate.rows import Base

FIXED_CHARACTERS: Final = 40 + VALUE_BYTES
"""The most characters of a value of fixed length: ids, instants and numbers."""


class Execution(NamedTuple):
    """The inputs of one execution of an operation."""

    context: Any
    variables: VariableValues
    fragments: dict[str, FragmentDefinitionNode]
    size: AnswerSize


class Objects(Serializers):
    """Serializers of the objects of one GraphQL type."""

    is_flat = False

    def __init__(self, kind: GraphQLObjectType, plan: "Plan") -> None:
        super().__init__()
        self.kind = kind
        self.plan = plan

    def __missing__(self, kind: type) -> Convert:
        if not is_a(kind, self.kind):
            raise Fallback
        # Stored, so that this method is called once for each class.
        return self.setdefault(kind, self.plan.fill)

    @override
    def write_all(self, values: Sequence[Any]) -> Sequence[Any]:
        kinds = set(map(type, values))
        # Column by column takes fewer calls than object by object.
        if len(kinds) == 1 and self[kinds.pop()] == self.plan.fill:
            return self.plan.fill_all(values)
        return super().write_all(values)


class AnyObjects(Serializers):
    """Serializers of the objects of several GraphQL types."""

    is_flat = False

    def __init__(self, types: list[Objects]) -> None:
        super().__init__()
        self.types = types

    def __missing__(self, kind: type) -> Convert:
        for each in self.types:
            if each.kind.is_type_of and is_a(kind, each.kind):
                return self.setdefault(kind, each.plan.fill)
        raise Fallback


def is_a(cls: type, kind: GraphQLObjectType) -> bool:
    """Return whether objects of a class are of a GraphQL type, as far as the class decides it."""
    return kind.is_type_of is None or issubclass(cls, kind.extensions[DEFINED_BY].origin)


class Batch(Protocol):
    """Objects of one class."""

    def __len__(self) -> int:
        """Return their number."""

    @property
    def objects(self) -> Sequence[Any]:
        """The objects."""

    def values_of(self, name: str) -> Sequence[Any]:
        """Return the values of an attribute."""


class ObjectBatch:
    """Objects of one class that are not read from raw rows."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self.objects = objects

    def __len__(self) -> int:
        return len(self.objects)

    def values_of(self, name: str) -> Sequence[Any]:
        """Return the values of an attribute."""
        return [getattr(each, name) for each in self.objects]


class Related(Protocol):
    """A field with other rows, which are read for all objects of a batch together."""

    async def fill(self, answers: list[dict[str, Any]], batch: Batch, execution: Execution) -> None:
        """Read the rows and put them into the answers."""


class Step(NamedTuple):
    """A field of a plan: an attribute, computed, from related rows, in the template, or left to graphql-core."""

    name: str
    details: FieldDetailsList
    attribute: str | None
    serializers: Serializers
    computed: Computed | None = None
    related: Related | None = None


class Column(NamedTuple):
    """A field with the values of a column."""

    name: str
    attribute: str
    write: WriteColumn
    length: LengthOf | None
    """Returns the number of characters of the values, if they have no fixed length."""


class Plan:
    """The selected fields of objects of one type."""

    def __init__(self, kind: GraphQLObjectType) -> None:
        self.kind = kind
        self.steps: list[Step] = []
        self.template: dict[str, Any] = {}
        self.related: list[Related] = []
        self.unplanned = 0
        """Number of fields that graphql-core has to execute."""
        self.computes = False
        self.overhead = 0
        """Characters of one object besides its text."""
        self.is_flat = True
        """Whether no value has fields of its own, so that the stored text tells its size."""
        self.read: Callable[[Any], Iterable[Any]] = _no_values
        self.attributes: list[tuple[str, Serializers]] = []
        self.columns: dict[str, list[Column] | None] = {}

    @property
    def is_attribute_only(self) -> bool:
        """Whether the objects hold all values themselves."""
        return not (self.unplanned or self.related or self.computes)

    def finish(self) -> None:
        """Compile the reading of attributes, once all steps are there."""
        steps = [step for step in self.steps if step.attribute is not None]
        self.attributes = [(step.name, step.serializers) for step in steps]
        self.is_flat = all(step.serializers.is_flat for step in self.steps)
        self.overhead = overhead(self.template)
        self.read = _reader(self.kind, [str(step.attribute) for step in steps])

    def fill(self, source: Any) -> dict[str, Any]:
        """Return the attributes of an object as JSON; everything else is null."""
        # The template has the fields in the order of the selection, which an answer keeps.
        answer = self.template.copy()
        for (name, serializers), value in zip(self.attributes, self.read(source), strict=True):
            convert = serializers[type(value)]
            answer[name] = value if convert is None else convert(value)
        return answer

    def fill_all(self, sources: Sequence[Any]) -> list[dict[str, Any]]:
        """Return what `fill` returns for each of several objects of one class, made column by column."""
        answers = [self.template.copy() for _ in sources]
        columns = zip(*map(self.read, sources), strict=True)
        for (name, serializers), values in zip(self.attributes, columns, strict=bool(sources)):
            fill(answers, name, serializers.write_all(values))
        return answers

    async def write(self, batch: Batch, execution: Execution) -> list[dict[str, Any]]:
        """Return objects as JSON. Related rows are read for all objects together."""
        answers = self._without_related(batch, execution)
        if self.related:
            await all_of(each.fill(answers, batch, execution) for each in self.related)
        return answers

    def _without_related(self, batch: Batch, execution: Execution) -> list[dict[str, Any]]:
        columns = self._columns(batch) if isinstance(batch, RawRows) else None
        if columns is None:
            answers = [self.fill(each) for each in batch.objects]
            # Values of attributes are not measured, so the answer is measured when it is written.
            execution.size.is_known = False
        else:
            answers = self._from_columns(cast("RawRows", batch), columns, execution.size)
        for step in self.steps if self.computes else ():
            if step.computed:
                values = (step.computed(each, execution.context) for each in batch.objects)
                fill(answers, step.name, map(step.serializers.write, values))
        return answers

    def _from_columns(self, rows: RawRows, columns: list[Column], size: AnswerSize) -> list[dict[str, Any]]:
        answers = [self.template.copy() for _ in range(len(rows))]
        size.characters += self.overhead * len(rows)
        size.is_known = size.is_known and self.is_flat
        # Aliases of a JSON column share its texts, which may be large.
        shared: dict[str, list[Any]] = {}
        for column in columns:
            values = rows.columns[column.attribute]
            if column.write is as_json:
                if column.attribute not in shared:
                    shared[column.attribute] = as_json(values)
                fill(answers, column.name, shared[column.attribute])
            else:
                fill(answers, column.name, column.write(values))
            if column.length:
                size.characters += column.length(values)
        return answers

    def _columns(self, rows: RawRows) -> list[Column] | None:
        """Return the columns of a dialect; None if an attribute is no column."""
        name = rows.dialect.name
        if name not in self.columns:
            self.columns[name] = self._by_column(rows)
        return self.columns[name]

    def _by_column(self, rows: RawRows) -> list[Column] | None:
        table = rows.row.__table__.c
        if any(step.attribute is not None and step.attribute not in table for step in self.steps):
            return None
        return [
            Column(
                step.name,
                step.attribute,
                of_column(table[step.attribute], step.serializers, rows.dialect),
                length_of(table[step.attribute]),
            )
            for step in self.steps
            if step.attribute is not None
        ]


def overhead(names: Iterable[str]) -> int:
    """Return the number of characters of an object with these fields besides their text."""
    return sum(len(name) + FIXED_CHARACTERS for name in names)


def fill(answers: Iterable[dict[str, Any]], name: str, values: Iterable[Any]) -> None:
    """Put one value into each answer. The name keeps its place if it has one."""
    for answer, value in zip(answers, values, strict=True):
        answer[name] = value


async def all_of(waiting: Iterable[Awaitable[Any]]) -> list[Any]:
    """Return the results of all, awaited at the same time; raise the first exception once all have ended."""
    several = list(waiting)
    # A single one needs no task.
    if len(several) == 1:
        return [await several[0]]
    # Without exceptions: the others would go on reading for an answer that nobody waits for any more.
    results = await asyncio.gather(*several, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return results


def _no_values(_: Any) -> tuple[()]:
    return ()


def _reader(kind: GraphQLObjectType, names: list[str]) -> Callable[[Any], Iterable[Any]]:
    """Return a reader of attributes. Those of a row are read from its dictionary, past SQLAlchemy's descriptors."""
    if not names:
        return _no_values
    of_row = issubclass(kind.extensions[DEFINED_BY].origin, Base)
    read: Callable[[Any], Any] = itemgetter(*names) if of_row else attrgetter(*names)
    several = len(names) > 1
    if of_row:
        return (lambda row: read(row.__dict__)) if several else (lambda row: (read(row.__dict__),))
    return read if several else (lambda source: (read(source),))
