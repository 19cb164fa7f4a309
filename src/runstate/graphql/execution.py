"""The executor: what was stored is answered by plans, everything else as GraphQL's own executor does it.

A selection is planned once for a document and the variables that its `@skip` and `@include` read. A plan reads stored
values and writes them as JSON without the library's path for every single field; in lists it follows references for all
objects together. **Nothing that a plan does has an effect.** So whatever is unusual, a null that may not be, a number
out of range, a row that is gone, is left to the library, which does it again and says what it always says.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from operator import attrgetter, itemgetter
from types import NoneType
from typing import Any, ClassVar, Final, NamedTuple, cast
from uuid import UUID

from graphql import (
    DirectiveNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    OperationType,
    SelectionSetNode,
    Undefined,
    VariableNode,
    get_named_type,
    is_abstract_type,
)
from graphql.execution.collect_fields import (
    CollectedFields,
    FieldDetailsList,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
)
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField
from typing_extensions import override

from runstate.graphql.derive import DEFINITION, Follows
from runstate.graphql.scalars import written
from runstate.graphql.selection import Columns, columns
from runstate.rows import Base

LARGEST_INT: Final = 2**31 - 1
CONDITIONS: Final = ("skip", "include")
DEFINED_BY: Final = "strawberry-definition"

MOST_SHAPES: Final = 64
"""How many are kept of one operation, which has one for each set of conditions."""

Convert = Callable[[Any], Any] | None
"""Makes JSON of a value; None: it is JSON already, or what `scalars.dumped` makes JSON of."""


class UnusualError(Exception):
    """What a plan leaves to the library."""


class Table(dict[type, Convert]):
    """How the values of a field are written, by their Python type; any other type is unusual."""

    def __missing__(self, kind: type) -> Convert:
        if UUID in self and issubclass(kind, UUID):
            return self.setdefault(kind, str)
        raise UnusualError

    def write(self, value: Any) -> Any:
        """A value of the field as JSON."""
        convert = self[type(value)]
        return value if convert is None else convert(value)


class Objects(Table):
    """How objects of one GraphQL type are written."""

    def __init__(self, kind: GraphQLObjectType, plan: "Plan") -> None:
        super().__init__()
        self.kind = kind
        self.plan = plan

    def __missing__(self, kind: type) -> Convert:
        if not is_a(kind, self.kind):
            raise UnusualError
        return self.setdefault(kind, self.plan.fill)


class AnyObjects(Table):
    """How objects of some GraphQL types are written."""

    def __init__(self, tables: list[Objects]) -> None:
        super().__init__()
        self.tables = tables

    def __missing__(self, kind: type) -> Convert:
        for table in self.tables:
            if table.kind.is_type_of and is_a(kind, table.kind):
                return self.setdefault(kind, table.plan.fill)
        raise UnusualError


def _int(value: int) -> int:
    if -LARGEST_INT <= value <= LARGEST_INT:
        return value
    raise UnusualError


def _float(value: float) -> float:
    if isfinite(value):
        return value
    raise UnusualError


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


def is_a(cls: type, kind: GraphQLObjectType) -> bool:
    """Whether objects of a class are of a GraphQL type, as far as the class says it."""
    return kind.is_type_of is None or issubclass(cls, kind.extensions[DEFINED_BY].origin)


class Reference(NamedTuple):
    """A row that all objects of a list point at."""

    name: str
    follows: Follows
    columns: Columns
    plan: "Plan"
    optional: bool


class Step(NamedTuple):
    """One field of a plan; without an attribute, the library answers it."""

    name: str
    details: FieldDetailsList
    attribute: str | None
    table: Table


class Plan:
    """What is selected of objects of one type."""

    def __init__(self, kind: GraphQLObjectType) -> None:
        self.kind = kind
        self.steps: list[Step] = []
        self.blank: dict[str, Any] = {}
        self.references: list[Reference] = []
        self.others = 0
        self.read: Callable[[Any], Iterable[Any]] = _no_values
        self.names: list[str] = []
        self.tables: list[Table] = []

    @property
    def quick(self) -> bool:
        """Whether nothing has to be waited for."""
        return not self.others and not self.references

    def finish(self) -> None:
        """Make ready what is done for every object."""
        held = [step for step in self.steps if step.attribute is not None]
        self.names = [step.name for step in held]
        self.tables = [step.table for step in held]
        self.read = _reader(self.kind, [str(step.attribute) for step in held])

    def fill(self, source: Any) -> dict[str, Any]:
        """An object as JSON; references are null."""
        written = [
            value if (convert := table[type(value)]) is None else convert(value)
            for table, value in zip(self.tables, self.read(source), strict=False)
        ]
        if len(self.names) == len(self.blank):
            return dict(zip(self.names, written, strict=False))
        return {**self.blank, **dict(zip(self.names, written, strict=False))}


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


class Shape:
    """What the executor knows of an operation: what is selected of what, and plans for it."""

    def __init__(self) -> None:
        self.root: CollectedFields | None = None
        self.sub_fields: dict[Any, Any] = {}
        self.plans: dict[int, tuple[GroupedFieldSet, Plan]] = {}


class Plans:
    """The shapes of operations, as long as their documents are kept."""

    def __init__(self) -> None:
        self.conditions: dict[int, tuple[weakref.ref[Any], tuple[str, ...], dict[Any, Shape]]] = {}

    def shape(self, executor: "Executor") -> Shape:
        """The shape of the operation that is executed."""
        if any(fragment.variable_signatures for fragment in executor.fragments.values()):
            return Shape()
        operation = executor.operation
        known = self.conditions.get(id(operation))
        if known is None:
            known = self._meet(executor)
        _, names, shapes = known
        given = executor.variable_values.coerced
        key = tuple(given.get(name) for name in names)
        if key not in shapes:
            if len(shapes) >= MOST_SHAPES:
                shapes.clear()
            shapes[key] = Shape()
        return shapes[key]

    def _meet(self, executor: "Executor") -> tuple[weakref.ref[Any], tuple[str, ...], dict[Any, Shape]]:
        key = id(executor.operation)
        gone = weakref.ref(executor.operation, lambda _: self.conditions.pop(key, None))
        names = tuple(sorted(set(conditions(executor.operation.selection_set, executor.fragments))))
        self.conditions[key] = gone, names, {}
        return self.conditions[key]


def conditions(selected: SelectionSetNode, fragments: Mapping[str, FragmentDetails]) -> Iterator[str]:
    """The variables that decide what of a selection is included."""
    waiting, seen = [selected], set[str]()
    while waiting:
        for selection in waiting.pop().selections:
            yield from _conditions(selection.directives or ())
            inner = getattr(selection, "selection_set", None)
            if isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                known = fragments.get(selection.name.value)
                inner = known.definition.selection_set if known else None
            if inner:
                waiting.append(inner)


def _conditions(directives: Iterable[DirectiveNode]) -> Iterator[str]:
    for directive in directives:
        if directive.name.value in CONDITIONS:
            for argument in directive.arguments or ():
                if isinstance(argument.value, VariableNode):
                    yield argument.value.name.value


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor, with plans. Use a subclass of your own with `plans`: see `executing`."""

    plans: ClassVar[Plans]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.shape = self.plans.shape(self)
        self._relevant_sub_fields = self.shape.sub_fields
        self.planning = not (self.middleware_manager and self.middleware_manager.middlewares)

    @override
    def execute_operation(self, serially: bool | None = None) -> AwaitableOrValue[Any]:
        """The result of the operation, whose root fields are collected once."""
        collected = self._root_fields()
        if collected is None or self.abort_signal or self.hooks:
            return super().execute_operation(serially)
        kind = self.operation.operation
        root_type = cast("GraphQLObjectType", self.schema.get_root_type(kind))
        in_order = kind is OperationType.MUTATION if serially is None else serially
        try:
            data = self.execute_collected_root_fields(
                root_type, self.root_value, collected.grouped_field_set, in_order, collected.new_defer_usages
            )
        except GraphQLError as error:
            return self._failed(error)
        return self._finished(data) if self.is_awaitable(data) else self.build_response(cast("Any", data))

    async def _finished(self, data: Any) -> Any:
        try:
            return self.build_response(await data)
        except GraphQLError as error:
            return self._failed(error)

    def _failed(self, error: GraphQLError) -> Any:
        self.collected_errors.add(error, None)
        return self.build_response(None)

    def _root_fields(self) -> CollectedFields | None:
        """The fields of the root; None: the library shall say what is wrong with them."""
        root_type = self.schema.get_root_type(self.operation.operation)
        if self.shape.root is None and root_type is not None:
            try:
                self.shape.root = collect_fields(
                    self.schema, self.fragments, self.variable_values, root_type, self.operation, self.hide_suggestions
                )
            except (GraphQLError, RecursionError):
                return None
        return self.shape.root

    @override
    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        """An object: by its plan, or field by field."""
        plan = self._plan(parent_type, grouped_field_set)
        if plan is None:
            return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)
        if plan.quick:
            try:
                return plan.fill(source_value)
            except Exception:  # noqa: BLE001, S110 the library says what it is
                pass
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for step in plan.steps:
                result = self._field(plan, step, source_value, path, position_context)
                if result is not Undefined:
                    results[step.name] = result
                    if self.is_awaitable(result):
                        waiting.append(step.name)
        except Exception:
            if waiting:
                self.settle_in_background([results[name] for name in waiting])
            raise
        return _settled(results, waiting) if waiting else results

    def _field(self, plan: Plan, step: Step, source: Any, path: Path | None, position_context: Any) -> Any:
        if step.attribute is not None:
            try:
                value = getattr(source, step.attribute)
                return step.table.write(value)
            except Exception:  # noqa: BLE001, S110 the library says what it is
                pass
        elif step.name in plan.blank and plan.blank[step.name] is not None:
            return plan.blank[step.name]
        place = Path(path, step.name, plan.kind.name)
        return self.execute_field(plan.kind, source, step.details, place, position_context)

    @override
    def complete_list_value(
        self,
        return_type: GraphQLList[GraphQLOutputType],
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Any],
        path: Path,
        result: Any,
        position_context: Any,
    ) -> AwaitableOrValue[list[Any]]:
        """A list: of objects by their plans, together."""
        by_library = partial(
            super().complete_list_value, return_type, field_details_list, info, path, result, position_context
        )
        if type(result) is not list or not result:
            return by_library()
        try:
            plans = self._plans_of(return_type, field_details_list, result)
            if plans is None:
                return by_library()
            if all(plan.quick for plan in plans.values()):
                return [plans[type(each)].fill(each) for each in result]
        except Exception:  # noqa: BLE001 the library says what it is
            return by_library()
        return self._together_or(by_library, plans, result)

    async def _together_or(
        self, by_library: Callable[[], AwaitableOrValue[list[Any]]], plans: Mapping[type, Plan], sources: list[Any]
    ) -> list[Any]:
        try:
            return await self._together(plans, sources)
        except Exception:  # noqa: BLE001 the library says what it is; what was read is not read again
            answer = by_library()
            return cast("list[Any]", await answer if self.is_awaitable(answer) else answer)

    async def _together(self, plans: Mapping[type, Plan], sources: Sequence[Any]) -> list[dict[str, Any]]:
        """Objects as JSON; what they refer to is read for all of them at once."""
        answers = [plans[type(each)].fill(each) for each in sources]
        following = [
            self._follow(reference, kind, sources, answers)
            for kind, plan in plans.items()
            for reference in plan.references
        ]
        for outcome in await asyncio.gather(*following, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        return answers

    async def _follow(
        self, reference: Reference, kind: type, sources: Sequence[Any], answers: list[dict[str, Any]]
    ) -> None:
        target, key = reference.follows
        pointing = [place for place, each in enumerate(sources) if type(each) is kind]
        keys = [getattr(sources[place], key) for place in pointing]
        wanted = list(dict.fromkeys(each for each in keys if each is not None))
        rows = [row for row in await self.context_value.rows(target, wanted, reference.columns) if row is not None]
        written = await self._together({target: reference.plan}, rows)
        found = {row.id: answer for row, answer in zip(rows, written, strict=True)}
        for place, each in zip(pointing, keys, strict=True):
            answer = found.get(each)
            if answer is None and not reference.optional:
                raise UnusualError
            answers[place][reference.name] = answer

    def _plans_of(
        self, return_type: GraphQLList[GraphQLOutputType], details: FieldDetailsList, values: list[Any]
    ) -> Mapping[type, Plan] | None:
        """The plans for the objects of a list, by their classes; None: the library is needed."""
        item = return_type.of_type
        kind = item.of_type if isinstance(item, GraphQLNonNull) else item
        if not self.planning or not (isinstance(kind, GraphQLObjectType) or is_abstract_type(kind)):
            return None
        found = {cls: self._plan_of_class(kind, details, cls) for cls in set(map(type, values))}
        if any(plan is None or plan.others for plan in found.values()):
            return None
        return cast("Mapping[type, Plan]", found)

    def _plan_of_class(self, kind: Any, details: FieldDetailsList, cls: type) -> Plan | None:
        runtime = self._runtime(kind, cls)
        if runtime is None:
            return None
        collected = self.collect_subfields(runtime, details)
        return None if collected.new_defer_usages else self._plan(runtime, collected.grouped_field_set)

    def _runtime(self, kind: Any, cls: type) -> GraphQLObjectType | None:
        """The GraphQL type of objects of a class, as far as the class says it."""
        if isinstance(kind, GraphQLObjectType):
            return kind if is_a(cls, kind) else None
        definition = vars(cls).get(DEFINITION)
        runtime = self.schema.get_type(definition.name) if definition and not definition.is_graphql_generic else None
        known = isinstance(runtime, GraphQLObjectType) and self.schema.is_sub_type(kind, runtime)
        return cast("GraphQLObjectType", runtime) if known and is_a(cls, cast("Any", runtime)) else None

    def _plan(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> Plan | None:
        if not self.planning or DEFINED_BY not in kind.extensions:
            return None
        known = self.shape.plans.get(id(selected))
        if known is None:
            # The selection is kept with its plan, so that nothing else gets its id.
            known = self.shape.plans[id(selected)] = selected, self._planned(kind, selected)
        return known[1]

    def _planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> Plan:
        plan = Plan(kind)
        for name, details in selected.items():
            plan.blank[name] = None
            self._add(plan, name, details)
        plan.finish()
        return plan

    def _add(self, plan: Plan, name: str, details: FieldDetailsList) -> None:
        """Add a field to a plan, in the best way there is."""
        asked = details[0].node.name.value
        field = self.schema.get_field(plan.kind, asked)
        held = held_by(field) if field else None
        table = self._table(field, details) if field and held else None
        reference = self._reference(name, field, details) if field else None
        if asked == "__typename":
            plan.blank[name] = plan.kind.name
        elif reference:
            plan.references.append(reference)
        elif table is None:
            plan.others += 1
        plan.steps.append(Step(name, details, held if table is not None else None, table or Table()))

    def _table(self, field: GraphQLField, details: FieldDetailsList) -> Table | None:
        """How the values of a field that shows an attribute are written; None: the library is needed."""
        if is_basic(field):
            return self._written(field.type, details)
        kind = get_named_type(field.type)
        tables = [self._of_object(each, details) for each in self.schema.get_possible_types(cast("Any", kind))]
        return None if None in tables else AnyObjects(cast("list[Objects]", tables))

    def _reference(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Reference | None:
        follows = metadata(field).get("follows")
        optional = not isinstance(field.type, GraphQLNonNull)
        kind = field.type if optional else cast("Any", field.type).of_type
        if not isinstance(follows, Follows) or not isinstance(kind, GraphQLObjectType):
            return None
        plan = self._plan_of_class(kind, details, follows.target)
        if plan is None or plan.others:
            return None
        nodes = [each.node for each in details]
        read = columns(follows.target, nodes, self.fragment_definitions, ((),))
        return Reference(name, follows, read, plan, optional)

    def _written(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Table | None:
        """How values of a type are written; None: the library is needed."""
        if isinstance(kind, GraphQLNonNull):
            return self._written_whole(kind.of_type, details)
        table = self._written_whole(kind, details)
        if table is not None:
            table[NoneType] = None
        return table

    def _written_whole(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Table | None:
        if isinstance(kind, GraphQLScalarType):
            return Table(WRITTEN[kind.name]) if kind.name in WRITTEN else None
        if isinstance(kind, GraphQLEnumType):
            return _of_enum(kind)
        if isinstance(kind, GraphQLList):
            item = self._written(kind.of_type, details)
            return None if item is None else Table(dict.fromkeys((list, tuple), partial(_each, item)))
        return self._of_object(kind, details) if isinstance(kind, GraphQLObjectType) else None

    def _of_object(self, kind: GraphQLObjectType, details: FieldDetailsList) -> "Objects | None":
        collected = self.collect_subfields(kind, details)
        plan = None if collected.new_defer_usages else self._plan(kind, collected.grouped_field_set)
        return Objects(kind, plan) if plan and plan.quick else None


def executing(plans: Plans) -> type[Executor]:
    """An executor with plans of its own."""
    return type("PlanningExecutor", (Executor,), {"plans": plans})


def metadata(field: GraphQLField) -> Mapping[Any, Any]:
    """What is noted on a field."""
    known = field.extensions.get(DEFINED_BY)
    return known.metadata if isinstance(known, StrawberryField) else {}


def is_basic(field: GraphQLField) -> bool:
    """Whether a field shows an attribute as it is."""
    known = field.extensions.get(DEFINED_BY)
    return isinstance(known, StrawberryField) and known.is_basic_field


def held_by(field: GraphQLField) -> str | None:
    """The attribute that a field shows, as it is or unless it is null; None: something else answers it."""
    if is_basic(field):
        return str(field.extensions[DEFINED_BY].python_name)
    return metadata(field).get("held")


def _of_enum(kind: GraphQLEnumType) -> Table | None:
    cls = getattr(kind, "wrapped_cls", None)
    if cls is None or any(name != value.value for name, value in kind.values.items()):
        return None
    return Table({cls: attrgetter("_value_")})


def _each(item: Table, values: Iterable[Any]) -> list[Any]:
    return [item.write(value) for value in values]


async def _settled(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        found = await gather_with_cancel(*(results[name] for name in waiting))
        results.update(zip(waiting, found, strict=True))
    return results
