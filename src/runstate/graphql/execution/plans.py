"""Plans: what is selected of objects of one type, made ready to be written again and again."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple, Protocol, cast

from graphql import (
    DirectiveNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLObjectType,
    ListValueNode,
    ObjectValueNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_argument_values,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, FragmentDetails, GroupedFieldSet
from graphql.execution.values import VariableValues
from sqlalchemy.engine import Dialect

from runstate.graphql.execution.serialization import Convert, Fallback, Serializers, WriteColumn, of_column
from runstate.graphql.pagination.connection import PATHS, Pages
from runstate.graphql.pagination.keyset import PageArguments, PageQuery
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns, Fragments, columns
from runstate.graphql.types.derive import Computed, ReferenceLookup
from runstate.graphql.types.filters import HasMany
from runstate.rows import Base

CONDITIONS: Final = ("skip", "include")
LATER: Final = ("defer", "stream")
DEFINED_BY: Final = "strawberry-definition"

MOST_SHAPES: Final = 64
"""How many are kept of one operation, which has one for each set of conditions."""
MOST_SEARCHES: Final = 64
"""How many are kept of one field of an operation, which has one for each set of arguments."""


class Objects(Serializers):
    """How objects of one GraphQL type are written."""

    def __init__(self, kind: GraphQLObjectType, plan: "Plan") -> None:
        super().__init__()
        self.kind = kind
        self.plan = plan

    def __missing__(self, kind: type) -> Convert:
        if not is_a(kind, self.kind):
            raise Fallback
        return self.setdefault(kind, self.plan.fill)


class AnyObjects(Serializers):
    """How objects of some GraphQL types are written."""

    def __init__(self, tables: list[Objects]) -> None:
        super().__init__()
        self.tables = tables

    def __missing__(self, kind: type) -> Convert:
        for table in self.tables:
            if table.kind.is_type_of and is_a(kind, table.kind):
                return self.setdefault(kind, table.plan.fill)
        raise Fallback


def is_a(cls: type, kind: GraphQLObjectType) -> bool:
    """Whether objects of a class are of a GraphQL type, as far as the class says it."""
    return kind.is_type_of is None or issubclass(cls, kind.extensions[DEFINED_BY].origin)


class Reference(NamedTuple):
    """A row that all objects of a list point at."""

    name: str
    lookup: ReferenceLookup
    columns: Columns
    plan: "Plan"
    optional: bool


class Nested(NamedTuple):
    """A page of rows: of those that point at an object, or of all."""

    name: str
    many: HasMany
    field: GraphQLField
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    details: FieldDetailsList
    plan: "ConnectionPlan"
    variables: tuple[str, ...]
    """Those in its arguments."""
    searches: dict[Any, PageQuery[Any]]
    """By what these hold and the dialect, as far as they are kept."""

    def search(self, variables: VariableValues, dialect: Dialect, fragments: Fragments) -> PageQuery[Any]:
        """What the field searches for, made once for the same arguments."""
        said = variables.coerced
        key = dialect.name, *(frozen(said[name]) if name in said else None for name in self.variables)
        if key not in self.searches:
            if len(self.searches) >= MOST_SEARCHES:
                self.searches.clear()
            first = self.details[0]
            given = get_argument_values(self.field, first.node, variables, first.fragment_variable_values)
            row, parent = self.many
            wanted = columns(row, [each.node for each in self.details], fragments, PATHS)
            self.searches[key] = PageQuery(row, PageArguments(**self.read(given)), wanted, dialect, parent)
        return self.searches[key]


def variables_in(values: Iterable[ValueNode]) -> Iterator[str]:
    """The variables in values as a document has them."""
    waiting = list(values)
    while waiting:
        match waiting.pop():
            case VariableNode(name=name):
                yield name.value
            case ListValueNode(values=inner):
                waiting += inner
            case ObjectValueNode(fields=fields):
                waiting += [each.value for each in fields]


def frozen(value: Any) -> Any:
    """A value of an argument as a key, which is another one for every other value."""
    if isinstance(value, dict):
        return tuple((name, frozen(each)) for name, each in value.items())
    if isinstance(value, list):
        return (list, *map(frozen, value))
    return type(value), value


class Step(NamedTuple):
    """One field of a plan; with neither an attribute nor what computes it, something else answers it."""

    name: str
    details: FieldDetailsList
    attribute: str | None
    table: Serializers
    computed: Computed | None = None
    nested: Nested | None = None


class Column(NamedTuple):
    """A field that shows a column."""

    name: str
    attribute: str
    write: WriteColumn


class Batch(Protocol):
    """Objects of one class."""

    def __len__(self) -> int:
        """How many there are."""

    @property
    def objects(self) -> Sequence[Any]:
        """Each of them."""

    def values_of(self, name: str) -> Sequence[Any]:
        """What each holds under a name."""


class ObjectBatch:
    """Objects of one class that were made already."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self.objects = objects

    def __len__(self) -> int:
        return len(self.objects)

    def values_of(self, name: str) -> Sequence[Any]:
        """What each holds under a name."""
        return [getattr(each, name) for each in self.objects]


class Plan:
    """What is selected of objects of one type."""

    def __init__(self, kind: GraphQLObjectType) -> None:
        self.kind = kind
        self.steps: list[Step] = []
        self.template: dict[str, Any] = {}
        self.references: list[Reference] = []
        self.nested: list[Nested] = []
        self.unplanned = 0
        self.computes = False
        self.read: Callable[[Any], Iterable[Any]] = _no_values
        self.written: list[tuple[str, Serializers]] = []
        self.columns: dict[str, list[Column] | None] = {}

    @property
    def is_sync(self) -> bool:
        """Whether nothing has to be waited for."""
        return not (self.unplanned or self.references or self.nested)

    @property
    def is_attribute_only(self) -> bool:
        """Whether everything is held by the objects themselves."""
        return self.is_sync and not self.computes

    def finish(self) -> None:
        """Make ready what is done for every object."""
        held = [step for step in self.steps if step.attribute is not None]
        self.written = [(step.name, step.table) for step in held]
        self.read = _reader(self.kind, [str(step.attribute) for step in held])

    def fill(self, source: Any) -> dict[str, Any]:
        """An object as JSON; what it does not hold is null."""
        answer = self.template.copy()
        for (name, table), value in zip(self.written, self.read(source), strict=True):
            convert = table[type(value)]
            answer[name] = value if convert is None else convert(value)
        return answer

    def write(self, batch: Batch, context: Any) -> list[dict[str, Any]]:
        """Objects as JSON; what they refer to is null."""
        columns = self._columns(batch) if isinstance(batch, RawRows) else None
        if columns is None:
            answers = [self.fill(each) for each in batch.objects]
        else:
            answers = [self.template.copy() for _ in range(len(batch))]
            for column in columns:
                fill(answers, column.name, column.write(cast("RawRows", batch).columns[column.attribute]))
        for step in self.steps if self.computes else ():
            if step.computed:
                values = (step.computed(each, context) for each in batch.objects)
                fill(answers, step.name, map(step.table.write, values))
        return answers

    def _columns(self, rows: RawRows) -> list[Column] | None:
        """How columns are written, by dialect; None: something is held that is no column."""
        known = rows.dialect.name
        if known not in self.columns:
            self.columns[known] = self._by_column(rows, rows.dialect)
        return self.columns[known]

    def _by_column(self, rows: RawRows, dialect: Dialect) -> list[Column] | None:
        table = rows.row.__table__.c
        if any(step.attribute is not None and step.attribute not in table for step in self.steps):
            return None
        return [
            Column(step.name, step.attribute, of_column(table[step.attribute], step.table, dialect))
            for step in self.steps
            if step.attribute is not None
        ]


def fill(answers: Iterable[dict[str, Any]], name: str, values: Iterable[Any]) -> None:
    """Put one value into each answer. Those that have the name already are not rearranged."""
    for answer, value in zip(answers, values, strict=True):
        answer[name] = value


class Work(Protocol):
    """Who carries out plans."""

    async def write(self, plan: Plan, batch: Batch) -> list[dict[str, Any]]:
        """Objects as JSON, with what they refer to."""


class ConnectionPlan:
    """What is selected of the pages of one field: of each part, how it is found for several parents."""

    def __init__(self) -> None:
        self.template: dict[str, Any] = {}
        self.parts: dict[str, Callable[[Work, Pages, Sequence[Any]], Awaitable[Sequence[Any]]]] = {}

    async def write(self, work: Work, pages: Pages, parents: Sequence[Any]) -> list[dict[str, Any]]:
        """What is selected of the page of each parent."""
        answers = [self.template.copy() for _ in parents]
        for name, part in self.parts.items():
            fill(answers, name, await part(work, pages, parents))
        return answers


class EdgesPlan:
    """What is selected of edges."""

    def __init__(self) -> None:
        self.template: dict[str, Any] = {}
        self.cursors: list[str] = []
        self.nodes: dict[str, Plan] = {}

    async def write(self, work: Work, pages: Pages, parents: Sequence[Any]) -> list[list[Any]]:
        """The edges on the page of each parent."""
        return await apart(pages, parents, partial(self._edges, work, pages))

    async def _edges(self, work: Work, pages: Pages, rows: RawRows) -> list[Any]:
        answers = [self.template.copy() for _ in range(len(rows))]
        positions = pages.cursors(rows) if self.cursors else []
        for name in self.cursors:
            fill(answers, name, positions)
        for name, plan in self.nodes.items():
            fill(answers, name, await work.write(plan, rows))
        return answers


async def nodes(plan: Plan, work: Work, pages: Pages, parents: Sequence[Any]) -> list[list[Any]]:
    """The rows on the page of each parent."""
    return await apart(pages, parents, partial(work.write, plan))


async def apart(
    pages: Pages, parents: Sequence[Any], write: Callable[[RawRows], Awaitable[list[Any]]]
) -> list[list[Any]]:
    """What is written of the rows of all parents together, for each parent."""
    found = await pages.rows(parents)
    if len(found) == 1:
        return [await write(found[0])]
    written = iter(await write(pages.search.none.with_values([values for rows in found for values in rows.values])))
    return [[next(written) for _ in range(len(rows))] for rows in found]


async def all_of(waiting: Iterable[Awaitable[Any]]) -> list[Any]:
    """What all come to, at the same time; the first exception, once all are over."""
    several = list(waiting)
    if len(several) == 1:
        return [await several[0]]
    found = await asyncio.gather(*several, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


def _no_values(_: Any) -> tuple[()]:
    return ()


def _reader(kind: GraphQLObjectType, names: list[str]) -> Callable[[Any], Iterable[Any]]:
    """Reads attributes. Those of a row are read as they are held, past SQLAlchemy's descriptors."""
    if not names:
        return _no_values
    of_row = issubclass(kind.extensions[DEFINED_BY].origin, Base)
    read: Callable[[Any], Any] = itemgetter(*names) if of_row else attrgetter(*names)
    several = len(names) > 1
    if of_row:
        return (lambda row: read(row.__dict__)) if several else (lambda row: (read(row.__dict__),))
    return read if several else (lambda held: (read(held),))


class OperationPlans:
    """What the executor knows of an operation: what is selected of what, and plans for it."""

    def __init__(self, *, whole: bool = True) -> None:
        self.whole = whole
        """Whether the answer comes in one piece; otherwise nothing of it is planned."""
        self.root: CollectedFields | None = None
        self.sub_fields: dict[Any, Any] = {}
        self.plans: dict[int, tuple[GroupedFieldSet, Plan]] = {}
        self.connections: dict[int, tuple[GroupedFieldSet, ConnectionPlan | None]] = {}


class Plans:
    """The shapes of operations, as long as their documents are kept."""

    def __init__(self) -> None:
        self.conditions: dict[int, tuple[weakref.ref[Any], tuple[str, ...] | None, dict[Any, OperationPlans]]] = {}
        self.left = 0
        """How often something that was planned turned out to be unusual, and was left to the library."""

    def shape(self, executor: Any) -> OperationPlans:
        """The shape of the operation that is executed."""
        if any(fragment.variable_signatures for fragment in executor.fragments.values()):
            return OperationPlans()
        operation = executor.operation
        known = self.conditions.get(id(operation))
        if known is None:
            known = self._meet(executor)
        _, names, shapes = known
        if names is None:
            return OperationPlans(whole=False)
        given = executor.variable_values.coerced
        key = tuple(given.get(name) for name in names)
        if key not in shapes:
            if len(shapes) >= MOST_SHAPES:
                shapes.clear()
            shapes[key] = OperationPlans()
        return shapes[key]

    def _meet(self, executor: Any) -> tuple[weakref.ref[Any], tuple[str, ...] | None, dict[Any, OperationPlans]]:
        """The variables that decide what is included; None: some of the answer comes later."""
        key = id(executor.operation)
        gone = weakref.ref(executor.operation, lambda _: self.conditions.pop(key, None))
        found = list(directives(executor.operation.selection_set, executor.fragments))
        later = any(each.name.value in LATER for each in found)
        names = None if later else tuple(sorted(set(conditions(found))))
        self.conditions[key] = gone, names, {}
        return self.conditions[key]


def directives(selected: SelectionSetNode, fragments: Mapping[str, FragmentDetails]) -> Iterator[DirectiveNode]:
    """The directives of a selection, and of all that is selected in it."""
    waiting, seen = [selected], set[str]()
    while waiting:
        for selection in waiting.pop().selections:
            yield from selection.directives or ()
            inner = getattr(selection, "selection_set", None)
            if isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                known = fragments.get(selection.name.value)
                inner = known.definition.selection_set if known else None
            if inner:
                waiting.append(inner)


def conditions(found: Iterable[DirectiveNode]) -> Iterator[str]:
    """The variables that decide what is included, by directives of a selection."""
    for directive in found:
        if directive.name.value in CONDITIONS:
            for argument in directive.arguments or ():
                if isinstance(argument.value, VariableNode):
                    yield argument.value.name.value
