"""The executor: what was stored is answered by plans, everything else as GraphQL's own executor does it.

A selection is planned once for a document and the variables that its `@skip` and `@include` read. A plan takes rows as
the database gave them and writes them as JSON, column by column, without the library's path for every single field; it
lookup references and opens nested pages for all rows together. **Nothing that a plan does has an effect.** So whatever
is unusual, a null that may not be, a number out of range, a row that is gone, is left to the library, which does it
again and says what it always says.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Any, ClassVar, Final, cast

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLResolveInfoHelpers,
    GraphQLScalarType,
    OperationType,
    Undefined,
    get_named_type,
    is_abstract_type,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet, collect_fields
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField
from typing_extensions import override

from runstate.graphql.execution.plans import (
    DEFINED_BY,
    AnyObjects,
    Batch,
    ConnectionPlan,
    EdgesPlan,
    Nested,
    ObjectBatch,
    Objects,
    Plan,
    Plans,
    Reference,
    Step,
    all_of,
    fill,
    is_a,
    nodes,
    variables_in,
)
from runstate.graphql.execution.serialization import Fallback, Serializers, of_enum, of_list, of_scalar
from runstate.graphql.pagination.connection import Connection, Pages
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import columns
from runstate.graphql.types.derive import ReferenceLookup
from runstate.graphql.types.filters import HasMany
from runstate.graphql.types.input_values import DEFINITION, arguments


class Executor(StrawberryGraphQLCoreExecutionContext):
    """Strawberry's executor, with plans. Use a subclass of your own with `plans`: see `executing`."""

    plans: ClassVar[Plans]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.shape = self.plans.shape(self)
        self._relevant_sub_fields = self.shape.sub_fields
        self.planning = self.shape.whole and not (self.middleware_manager and self.middleware_manager.middlewares)
        self.known: Callable[[], Awaitable[Any]] | None = None
        """Gives what came of the one root field, if that is known already."""

    @property
    def async_helpers(self) -> GraphQLResolveInfoHelpers:
        """What resolvers may ask of the executor. If they were kept, it would hold itself, and all that was read."""
        return GraphQLResolveInfoHelpers(self.gather_async_work, self.track_async_work)

    @async_helpers.setter
    def async_helpers(self, helpers: GraphQLResolveInfoHelpers) -> None:
        pass

    @override
    def execute_operation(self, serially: bool | None = None) -> AwaitableOrValue[Any]:
        """The result of the operation, whose root fields are collected once."""
        collected = self._root_fields() if self.shape.whole else None
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

    @override
    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Any,
    ) -> AwaitableOrValue[Any]:
        """A field: resolved, unless what came of it is known."""
        if self.known is None or path.prev is not None:
            return super().execute_field(parent_type, source, field_details_list, path, position_context)
        nodes = [each.node for each in field_details_list]
        field = cast("GraphQLField", self.schema.get_field(parent_type, nodes[0].name.value))
        info = self.build_resolve_info(field, nodes, parent_type, path)
        return self.complete_awaitable_value(field.type, field_details_list, info, path, self.known(), position_context)

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
        by_library = partial(
            super().execute_fields, parent_type, source_value, path, grouped_field_set, position_context
        )
        if isinstance(source_value, Connection):
            opened = self._connection_plan(parent_type, grouped_field_set)
            return self._connection(opened, source_value, by_library) if opened else by_library()
        plan = self._plan(parent_type, grouped_field_set)
        if plan is None:
            return by_library()
        if plan.is_attribute_only:
            try:
                return plan.fill(source_value)
            except Exception:  # noqa: BLE001 the library says what it is
                self.plans.left += 1
        return self._field_by_field(plan, source_value, path, position_context)

    def _field_by_field(
        self, plan: Plan, source: Any, path: Path | None, position_context: Any
    ) -> AwaitableOrValue[dict[str, Any]]:
        results: dict[str, Any] = {}
        waiting: list[str] = []
        try:
            for step in plan.steps:
                result = self._field(plan, step, source, path, position_context)
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
            except Exception:  # noqa: BLE001 the library says what it is
                self.plans.left += 1
        elif step.name in plan.template and plan.template[step.name] is not None:
            return plan.template[step.name]
        place = Path(path, step.name, plan.kind.name)
        by_library = partial(self.execute_field, plan.kind, source, step.details, place, position_context)
        return self._page(step.nested, source, by_library) if step.nested else by_library()

    async def _page(self, nested: Nested, source: Any, by_library: Callable[[], AwaitableOrValue[Any]]) -> Any:
        try:
            (answer,) = await self._pages(nested, [source.id if nested.many.key else None])
        except Exception:  # noqa: BLE001 the library says what it is; what was read is not read again
            self.plans.left += 1
            found = by_library()
            return await found if self.is_awaitable(found) else found
        return answer

    async def _connection(
        self, plan: ConnectionPlan, connection: Connection[Any], by_library: Callable[[], AwaitableOrValue[Any]]
    ) -> dict[str, Any]:
        try:
            (answer,) = await plan.write(self, connection.pages, [connection.parent])
        except Exception:  # noqa: BLE001 the library says what it is; what was read is not read again
            self.plans.left += 1
            found = by_library()
            return cast("dict[str, Any]", await found if self.is_awaitable(found) else found)
        return answer

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
        if not isinstance(result, list | RawRows) or not len(result):
            return by_library()
        try:
            plans = self._plans_of(return_type, field_details_list, result)
            if plans is None:
                return by_library()
            if isinstance(result, list) and all(plan.is_attribute_only for plan in plans.values()):
                return [plans[type(each)].fill(each) for each in result]
        except Exception:  # noqa: BLE001 the library says what it is
            self.plans.left += 1
            return by_library()
        return self._together_or(by_library, plans, result)

    async def _together_or(
        self, by_library: Callable[[], AwaitableOrValue[list[Any]]], plans: Mapping[type, Plan], sources: Any
    ) -> list[Any]:
        try:
            if isinstance(sources, RawRows):
                return await self.write(plans[sources.row], sources)
            return await self._by_class(plans, sources)
        except Exception:  # noqa: BLE001 the library says what it is; what was read is not read again
            self.plans.left += 1
            answer = by_library()
            return cast("list[Any]", await answer if self.is_awaitable(answer) else answer)

    async def _by_class(self, plans: Mapping[type, Plan], sources: Sequence[Any]) -> list[dict[str, Any]]:
        """Objects of several classes as JSON, in their places."""
        alike = {kind: ObjectBatch([each for each in sources if type(each) is kind]) for kind in plans}
        written = await all_of(self.write(plan, alike[kind]) for kind, plan in plans.items())
        answers = dict(zip(plans, map(iter, written), strict=True))
        return [next(answers[type(each)]) for each in sources]

    async def write(self, plan: Plan, batch: Batch) -> list[dict[str, Any]]:
        """Objects as JSON; what they refer to is read for all of them at once."""
        answers = plan.write(batch, self.context_value)
        following = [self._follow(each, batch, answers) for each in plan.references]
        opening = [self._open(each, batch, answers) for each in plan.nested]
        if following or opening:
            await all_of([*following, *opening])
        return answers

    async def _follow(self, reference: Reference, batch: Batch, answers: list[dict[str, Any]]) -> None:
        target, key = reference.lookup
        keys = batch.values_of(key)
        wanted = list(dict.fromkeys(each for each in keys if each is not None))
        rows = await self.context_value.rows(target, wanted, reference.columns)
        found = dict(zip(rows.values_of("id"), await self.write(reference.plan, rows), strict=True))
        followed = list(map(found.get, keys))
        if None in followed and not reference.optional:
            raise Fallback
        fill(answers, reference.name, followed)

    async def _open(self, nested: Nested, batch: Batch, answers: list[dict[str, Any]]) -> None:
        fill(answers, nested.name, await self._pages(nested, batch.values_of("id")))

    async def _pages(self, nested: Nested, parents: Sequence[Any]) -> list[dict[str, Any]]:
        """The pages of a field, one for each parent."""
        context = self.context_value
        search = nested.search(self.variable_values, context.dialect, self.fragment_definitions)
        pages: Pages = context.pages([each.node for each in nested.details], nested.many, lambda: search)
        return await nested.plan.write(self, pages, parents)

    def _plans_of(
        self, return_type: GraphQLList[GraphQLOutputType], details: FieldDetailsList, values: Any
    ) -> Mapping[type, Plan] | None:
        """The plans for the objects of a list, by their classes; None: the library is needed."""
        item = return_type.of_type
        kind = item.of_type if isinstance(item, GraphQLNonNull) else item
        if not self.planning or not (isinstance(kind, GraphQLObjectType) or is_abstract_type(kind)):
            return None
        classes = {values.row} if isinstance(values, RawRows) else set(map(type, values))
        found = {cls: self.plan_of_class(kind, details, cls) for cls in classes}
        if any(plan is None or plan.unplanned for plan in found.values()):
            return None
        return cast("Mapping[type, Plan]", found)

    def plan_of_class(self, kind: Any, details: FieldDetailsList, cls: type) -> Plan | None:
        """The plan for objects of a class, where the schema says that a type is; None: the library is needed."""
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
            try:
                plan = self._planned(kind, selected)
            except RecursionError:
                return None
            # The selection is kept with its plan, so that nothing else gets its id.
            known = self.shape.plans[id(selected)] = selected, plan
        return known[1]

    def _planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> Plan:
        plan = Plan(kind)
        for name, details in selected.items():
            plan.template[name] = None
            self._add(plan, name, details)
        plan.finish()
        return plan

    def _add(self, plan: Plan, name: str, details: FieldDetailsList) -> None:
        """Add a field to a plan, in the best way there is."""
        asked = details[0].node.name.value
        field = self.schema.get_field(plan.kind, asked)
        if asked == "__typename" or field is None:
            plan.template[name] = plan.kind.name if field else None
            plan.unplanned += field is None
            plan.steps.append(Step(name, details, None, Serializers()))
            return
        held, computed = held_by(field), metadata(field).get("computed")
        table = self._table(field, details) if held or computed else None
        reference = self._reference(name, field, details) if table is None else None
        nested = self._nested(name, field, details) if table is None else None
        plan.references += [reference] if reference else []
        plan.nested += [nested] if nested else []
        plan.unplanned += table is None and reference is None and nested is None
        plan.computes = plan.computes or (table is not None and computed is not None)
        attribute, table = (None, Serializers()) if table is None else (held, table)
        plan.steps.append(Step(name, details, attribute, table, computed, nested))

    def _table(self, field: GraphQLField, details: FieldDetailsList) -> Serializers | None:
        """How the values of a field that shows an attribute are written; None: the library is needed."""
        if is_basic(field) or "computed" in metadata(field):
            return self._written(field.type, details)
        kind = get_named_type(field.type)
        tables = [self._of_object(each, details) for each in self.possible(kind)]
        return None if None in tables else AnyObjects(cast("list[Objects]", tables))

    def possible(self, kind: Any) -> Sequence[GraphQLObjectType]:
        """The types that objects of a type can be of."""
        return self.schema.get_possible_types(kind) if is_abstract_type(kind) else (kind,)

    def _reference(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Reference | None:
        lookup = metadata(field).get("lookup")
        optional = not isinstance(field.type, GraphQLNonNull)
        kind = field.type if optional else cast("Any", field.type).of_type
        if not isinstance(lookup, ReferenceLookup) or not isinstance(kind, GraphQLObjectType):
            return None
        plan = self.plan_of_class(kind, details, lookup.target)
        if plan is None or plan.unplanned:
            return None
        nodes = [each.node for each in details]
        read = columns(lookup.target, nodes, self.fragment_definitions, ((),))
        return Reference(name, lookup, read, plan, optional)

    def _nested(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Nested | None:
        many, kind = metadata(field).get("many"), get_named_type(field.type)
        if not isinstance(many, HasMany) or not isinstance(kind, GraphQLObjectType):
            return None
        collected = self.collect_subfields(kind, details)
        plan = None if collected.new_defer_usages else self._connection_plan(kind, collected.grouped_field_set)
        read = arguments(field.extensions[DEFINED_BY])
        named = tuple(set(variables_in(each.value for each in details[0].node.arguments or ())))
        return Nested(name, many, field, read, details, plan, named, {}) if plan else None

    def _connection_plan(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> ConnectionPlan | None:
        if not self.planning:
            return None
        known = self.shape.connections.get(id(selected))
        if known is None:
            known = self.shape.connections[id(selected)] = selected, self._connection_planned(kind, selected)
        return known[1]

    def _connection_planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> ConnectionPlan | None:
        """What is selected of pages, or of where they lie; None: the library is needed."""
        plan = ConnectionPlan()
        for name, details in selected.items():
            plan.template[name] = None
            part = self._part(kind, details)
            if details[0].node.name.value == "__typename":
                plan.template[name] = kind.name
            elif part is None:
                return None
            else:
                plan.parts[name] = part
        return plan

    def _part(self, kind: GraphQLObjectType, details: FieldDetailsList) -> Any:
        """How a part of pages is found for several parents; None: the library is needed."""
        asked = details[0].node.name.value
        field = self.schema.get_field(kind, asked)
        if field is None or asked == "__typename":
            return None
        if asked in PARTS:
            return PARTS[asked]
        inner = get_named_type(field.type)
        if not isinstance(inner, GraphQLObjectType):
            return None
        if asked == "nodes":
            plan = self._plan_of_rows(inner, details)
            return partial(nodes, plan) if plan else None
        collected = self.collect_subfields(inner, details)
        if collected.new_defer_usages:
            return None
        make = self._edges_planned if asked == "edges" else self._connection_planned
        written = make(inner, collected.grouped_field_set)
        return written.write if written else None

    def _edges_planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> EdgesPlan | None:
        plan = EdgesPlan()
        for name, details in selected.items():
            asked = details[0].node.name.value
            plan.template[name] = kind.name if asked == "__typename" else None
            if asked == "cursor":
                plan.cursors.append(name)
            elif asked == "node":
                node = self._plan_of_rows(cast("Any", get_named_type(kind.fields["node"].type)), details)
                if node is None:
                    return None
                plan.nodes[name] = node
        return plan

    def _plan_of_rows(self, kind: GraphQLObjectType, details: FieldDetailsList) -> Plan | None:
        plan = self.plan_of_class(kind, details, kind.extensions[DEFINED_BY].origin)
        return None if plan is None or plan.unplanned else plan

    def _written(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Serializers | None:
        """How values of a type are written; None: the library is needed."""
        if isinstance(kind, GraphQLNonNull):
            return self._written_whole(kind.of_type, details)
        table = self._written_whole(kind, details)
        if table is not None:
            table[NoneType] = None
        return table

    def _written_whole(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Serializers | None:
        if isinstance(kind, GraphQLScalarType):
            return of_scalar(kind.name)
        if isinstance(kind, GraphQLEnumType):
            return of_enum(kind)
        if isinstance(kind, GraphQLList):
            return of_list(self._written(kind.of_type, details))
        return self._of_object(kind, details) if isinstance(kind, GraphQLObjectType) else None

    def _of_object(self, kind: GraphQLObjectType, details: FieldDetailsList) -> "Objects | None":
        collected = self.collect_subfields(kind, details)
        plan = None if collected.new_defer_usages else self._plan(kind, collected.grouped_field_set)
        return Objects(kind, plan) if plan and plan.is_attribute_only else None


PARTS: Final[Mapping[str, Any]] = {
    "totalCount": lambda _, pages, parents: pages.numbers(parents),
    "hasNextPage": lambda _, pages, parents: pages.more_after(parents),
    "hasPreviousPage": lambda _, pages, parents: pages.more_before(parents),
    "startCursor": lambda _, pages, parents: pages.first_cursors(parents),
    "endCursor": lambda _, pages, parents: pages.last_cursors(parents),
}
"""Parts of pages, and of where they lie, that are found for several parents at once."""


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


async def _settled(results: dict[str, Any], waiting: list[str]) -> dict[str, Any]:
    if len(waiting) == 1:
        results[waiting[0]] = await results[waiting[0]]
    else:
        found = await gather_with_cancel(*(results[name] for name in waiting))
        results.update(zip(waiting, found, strict=True))
    return results
