"""Plans of fields with other rows: references, and pages of a connection."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from graphql import GraphQLField, ListValueNode, ObjectValueNode, ValueNode, VariableNode, get_argument_values
from graphql.execution.collect_fields import FieldDetailsList

from runstate.graphql.execution.fallbacks import Fallback
from runstate.graphql.execution.plans import Batch, Execution, Plan, all_of, fill, overhead
from runstate.graphql.pagination.connection import PATHS, Pages
from runstate.graphql.pagination.keyset import PageArguments, PageQuery
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import Columns, columns
from runstate.graphql.types.filters import HasMany
from runstate.rows import Row

MAX_QUERIES: Final = 64
"""Largest number of queries that are cached for one field of an operation: one for each set of arguments."""


class Reference(NamedTuple):
    """A row that each object of a batch refers to."""

    name: str
    key: str
    targets: Sequence["ReferenceTarget"]
    """Types that the row can have."""
    optional: bool

    async def fill(self, answers: list[dict[str, Any]], batch: Batch, execution: Execution) -> None:
        """Read the rows and put them into the answers."""
        keys = batch.values_of(self.key)
        # Many objects of a list refer to the same row.
        ids = list(dict.fromkeys(each for each in keys if each is not None))
        before = execution.size.characters
        by_id: dict[Any, Any] = {}
        for found in await all_of(each.write(ids, execution) for each in self.targets):
            by_id |= found
        execution.size.repeat(before, len(keys) - len(ids) + 1)
        values = list(map(by_id.get, keys))
        # A row was deleted after its key was read.
        if None in values and not self.optional:
            raise Fallback
        fill(answers, self.name, values)


class ReferenceTarget(NamedTuple):
    """A type of the rows that are referred to, with its selected columns."""

    row: type[Row]
    columns: Columns
    plan: Plan

    async def write(self, ids: Sequence[Any], execution: Execution) -> dict[Any, dict[str, Any]]:
        """Return the rows of the type as JSON, by id."""
        rows = await execution.context.rows(self.row, ids, self.columns)
        return dict(zip(rows.values_of("id"), await self.plan.write(rows, execution), strict=True))


class Number(NamedTuple):
    """The number of rows that refer to each object of a batch."""

    name: str
    many: HasMany
    details: FieldDetailsList

    async def fill(self, answers: list[dict[str, Any]], batch: Batch, execution: Execution) -> None:
        """Count the rows and put their numbers into the answers."""
        row, parent, _ = self.many

        def query() -> PageQuery[Any]:
            return PageQuery(row, PageArguments(), frozenset({"id"}), execution.context.dialect, parent)

        pages: Pages = execution.context.pages([each.node for each in self.details], self.many, query)
        fill(answers, self.name, await pages.numbers(batch.values_of("id")))


class Nested(NamedTuple):
    """A page of rows: of those that refer to an object, or of all."""

    name: str
    many: HasMany
    field: GraphQLField
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    details: FieldDetailsList
    plan: "ConnectionPlan"
    variables: tuple[str, ...]
    """Variables in its arguments."""
    queries: dict[Any, PageQuery[Any]]
    """Cached queries, by dialect and the values of the variables."""

    async def fill(self, answers: list[dict[str, Any]], batch: Batch, execution: Execution) -> None:
        """Read the pages and put them into the answers."""
        fill(answers, self.name, await self.pages(batch.values_of("id"), execution))

    async def page(self, source: Any, execution: Execution) -> dict[str, Any]:
        """Return the page of one object, or of the root."""
        (answer,) = await self.pages([source.id if self.many.key else None], execution)
        return answer

    async def pages(self, parents: Sequence[Any], execution: Execution) -> list[dict[str, Any]]:
        """Return one page for each parent."""
        query = self.query(execution)
        nodes = [each.node for each in self.details]
        pages: Pages = execution.context.pages(nodes, self.many, lambda: query)
        return await self.plan.write(pages, parents, execution)

    def query(self, execution: Execution) -> PageQuery[Any]:
        """Return the query of the field, which is made once for the same arguments."""
        dialect, values = execution.context.dialect, execution.variables.coerced
        key = dialect.name, *(frozen(values[name]) if name in values else None for name in self.variables)
        if key not in self.queries:
            if len(self.queries) >= MAX_QUERIES:
                self.queries.clear()
            # Fields with one name in an answer have equal arguments: validation has checked it.
            first = self.details[0]
            arguments = get_argument_values(self.field, first.node, execution.variables, first.fragment_variable_values)
            row, parent, extras = self.many
            selected = columns(row, [each.node for each in self.details], execution.fragments, PATHS)
            self.queries[key] = PageQuery(
                row, PageArguments.of(extras, self.read(arguments)), selected, dialect, parent
            )
        return self.queries[key]


def variables_in(values: Iterable[ValueNode]) -> Iterator[str]:
    """Yield the names of the variables in literals."""
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
    """Return a key for the value of an argument: different values have different keys."""
    if isinstance(value, dict):
        return tuple((name, frozen(each)) for name, each in value.items())
    if isinstance(value, list):
        return (list, *map(frozen, value))
    # 1, 1.0 and True are equal in Python.
    return type(value), value


class ConnectionPlan:
    """The selected fields of the pages of one field. Each is found for several parents together."""

    def __init__(self) -> None:
        self.template: dict[str, Any] = {}
        self.parts: dict[str, Callable[[Pages, Sequence[Any], Execution], Awaitable[Sequence[Any]]]] = {}

    async def page(self, pages: Pages, parent: Any, execution: Execution) -> dict[str, Any]:
        """Return the page of one parent as JSON."""
        (answer,) = await self.write(pages, [parent], execution)
        return answer

    async def write(self, pages: Pages, parents: Sequence[Any], execution: Execution) -> list[dict[str, Any]]:
        """Return the page of each parent as JSON."""
        answers = [self.template.copy() for _ in parents]
        for name, part in self.parts.items():
            values = await part(pages, parents, execution)
            fill(answers, name, values)
            execution.size.characters += sum(len(each) for each in values if isinstance(each, str))
        execution.size.characters += overhead(self.template) * len(answers)
        return answers


class EdgesPlan:
    """The selected fields of edges."""

    def __init__(self) -> None:
        self.template: dict[str, Any] = {}
        self.cursors: list[str] = []
        self.nodes: dict[str, Plan] = {}

    async def write(self, pages: Pages, parents: Sequence[Any], execution: Execution) -> list[list[Any]]:
        """Return the edges on the page of each parent as JSON."""
        return await by_parent(pages, parents, partial(self._edges, pages, execution))

    async def _edges(self, pages: Pages, execution: Execution, rows: RawRows) -> list[Any]:
        answers = [self.template.copy() for _ in range(len(rows))]
        positions = pages.cursors(rows) if self.cursors else []
        written = overhead(self.template) * len(answers) + sum(map(len, positions)) * len(self.cursors)
        execution.size.characters += written
        for name in self.cursors:
            fill(answers, name, positions)
        for name, plan in self.nodes.items():
            fill(answers, name, await plan.write(rows, execution))
        return answers


async def write_nodes(plan: Plan, pages: Pages, parents: Sequence[Any], execution: Execution) -> list[list[Any]]:
    """Return the rows on the page of each parent as JSON."""
    return await by_parent(pages, parents, lambda rows: plan.write(rows, execution))


async def by_parent(
    pages: Pages, parents: Sequence[Any], write: Callable[[RawRows], Awaitable[list[Any]]]
) -> list[list[Any]]:
    """Write the rows of all parents together, and return the answers of each parent."""
    found = await pages.rows(parents)
    if len(found) == 1:
        return [await write(found[0])]
    written = iter(await write(pages.query.none.with_values([values for rows in found for values in rows.values])))
    return [[next(written) for _ in range(len(rows))] for rows in found]


PAGE_PARTS: Final[Mapping[str, Callable[[Pages, Sequence[Any], Execution], Awaitable[Sequence[Any]]]]] = {
    "totalCount": lambda pages, parents, _: pages.numbers(parents),
    "hasNextPage": lambda pages, parents, _: pages.more_after(parents),
    "hasPreviousPage": lambda pages, parents, _: pages.more_before(parents),
    "startCursor": lambda pages, parents, _: pages.first_cursors(parents),
    "endCursor": lambda pages, parents, _: pages.last_cursors(parents),
}
"""Fields of connections and of `PageInfo` that are found for several parents together."""
