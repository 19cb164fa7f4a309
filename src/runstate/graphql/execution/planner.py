"""The planner: makes plans of selections. It returns None wherever graphql-core has to execute a selection."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import NoneType
from typing import Any, cast

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    get_named_type,
    is_abstract_type,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

from runstate.graphql.execution.plan_cache import OperationPlans
from runstate.graphql.execution.plans import AnyObjects, Objects, Plan, Related, Step, is_a
from runstate.graphql.execution.related_plans import (
    PAGE_PARTS,
    ConnectionPlan,
    EdgesPlan,
    Nested,
    Number,
    Reference,
    ReferenceTarget,
    variables_in,
    write_nodes,
)
from runstate.graphql.execution.serialization import Serializers, of_enum, of_list, of_scalar
from runstate.graphql.pagination.raw_rows import RawRows
from runstate.graphql.pagination.selection import columns
from runstate.graphql.types.derive import ReferenceLookup
from runstate.graphql.types.fields import DEFINED_BY, metadata
from runstate.graphql.types.filters import HasMany
from runstate.graphql.types.input_values import DEFINITION, arguments
from runstate.rows import Row


class Planner:
    """Makes the plans of one operation. It lives for one call: the executor must not refer to itself through it."""

    def __init__(self, executor: StrawberryGraphQLCoreExecutionContext, plans: OperationPlans) -> None:
        self.executor = executor
        self.plans = plans
        self.schema = executor.schema

    def plan(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> Plan | None:
        """Return the plan for the selected fields of objects of a type."""
        if DEFINED_BY not in kind.extensions:
            return None
        # A selection cannot be hashed. It is kept with its plan, so that its id stays unique.
        cached = self.plans.plans.get(id(selected))
        if cached is None:
            try:
                plan = self._planned(kind, selected)
            # A selection that is too deep for a plan is left to graphql-core.
            except RecursionError:
                return None
            cached = self.plans.plans[id(selected)] = selected, plan
        return cached[1]

    def plan_of_class(self, kind: Any, details: FieldDetailsList, cls: type) -> Plan | None:
        """Return the plan for objects of a class, in a field of a type."""
        runtime = self._runtime_type(kind, cls)
        if runtime is None:
            return None
        collected = self.executor.collect_subfields(runtime, details)
        # Deferred fields come later, but a plan answers in one piece.
        return None if collected.new_defer_usages else self.plan(runtime, collected.grouped_field_set)

    def plans_of_list(
        self, return_type: GraphQLList[GraphQLOutputType], details: FieldDetailsList, values: Any
    ) -> Mapping[type, Plan] | None:
        """Return the plans for the objects of a list, by their classes."""
        item = return_type.of_type
        kind = item.of_type if isinstance(item, GraphQLNonNull) else item
        if not isinstance(kind, GraphQLObjectType) and not is_abstract_type(kind):
            return None
        classes = {values.row} if isinstance(values, RawRows) else set(map(type, values))
        plans = {cls: self.plan_of_class(kind, details, cls) for cls in classes}
        if any(plan is None or plan.unplanned for plan in plans.values()):
            return None
        return cast("Mapping[type, Plan]", plans)

    def connection_plan(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> ConnectionPlan | None:
        """Return the plan for the selected fields of a connection."""
        cached = self.plans.connections.get(id(selected))
        if cached is None:
            cached = self.plans.connections[id(selected)] = selected, self._connection_planned(kind, selected)
        return cached[1]

    def possible_types(self, kind: Any) -> Sequence[GraphQLObjectType]:
        """Return the types of the objects in a field of a type."""
        return self.schema.get_possible_types(kind) if is_abstract_type(kind) else (kind,)

    def _runtime_type(self, kind: Any, cls: type) -> GraphQLObjectType | None:
        """Return the GraphQL type of objects of a class, as far as the class decides it."""
        if isinstance(kind, GraphQLObjectType):
            return kind if is_a(cls, kind) else None
        definition = vars(cls).get(DEFINITION)
        runtime = self.schema.get_type(definition.name) if definition and not definition.is_graphql_generic else None
        if not isinstance(runtime, GraphQLObjectType) or not self.schema.is_sub_type(kind, runtime):
            return None
        return runtime if is_a(cls, runtime) else None

    def _planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> Plan:
        plan = Plan(kind)
        for name, details in selected.items():
            plan.template[name] = None
            self._add(plan, name, details)
        plan.finish()
        return plan

    def _add(self, plan: Plan, name: str, details: FieldDetailsList) -> None:
        field_name = details[0].node.name.value
        field = self.schema.get_field(plan.kind, field_name)
        if field_name == "__typename" or field is None:
            plan.template[name] = plan.kind.name if field else None
            plan.unplanned += field is None
            plan.steps.append(Step(name, details, None, Serializers()))
        else:
            self._add_field(plan, name, field, details)

    def _add_field(self, plan: Plan, name: str, field: GraphQLField, details: FieldDetailsList) -> None:
        attribute, computed = attribute_of(field), metadata(field).get("computed")
        serializers = self._serializers_of_field(field, details) if attribute or computed else None
        if serializers is not None:
            plan.computes = plan.computes or computed is not None
            plan.steps.append(Step(name, details, attribute, serializers, computed))
            return
        related = self._related(name, field, details)
        plan.related += [related] if related else []
        plan.unplanned += related is None
        plan.steps.append(Step(name, details, None, Serializers(), related=related))

    def _serializers_of_field(self, field: GraphQLField, details: FieldDetailsList) -> Serializers | None:
        if is_basic(field) or "computed" in metadata(field):
            return self._serializers(field.type, details)
        # The class of a value is known only when it is written.
        types = [self._objects(each, details) for each in self.possible_types(get_named_type(field.type))]
        return None if None in types else AnyObjects(cast("list[Objects]", types))

    def _related(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Related | None:
        count = metadata(field).get("count")
        if isinstance(count, HasMany):
            return Number(name, count, details)
        return self._reference(name, field, details) or self._nested(name, field, details)

    def _reference(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Reference | None:
        lookup = metadata(field).get("lookup")
        optional = not isinstance(field.type, GraphQLNonNull)
        kind = field.type if optional else cast("Any", field.type).of_type
        if not isinstance(lookup, ReferenceLookup) or not (isinstance(kind, GraphQLObjectType) or lookup.others):
            return None
        targets = [self._reference_target(kind, details, row) for row in (lookup.target, *lookup.others)]
        return None if None in targets else Reference(name, lookup.key, cast("Any", targets), optional)

    def _reference_target(self, kind: Any, details: FieldDetailsList, row: type[Row]) -> ReferenceTarget | None:
        plan = self.plan_of_class(kind, details, row)
        if plan is None or plan.unplanned:
            return None
        # Rows of a reference are written as a whole, so graphql-core can execute no field of them.
        nodes = [each.node for each in details]
        return ReferenceTarget(row, columns(row, nodes, self.executor.fragment_definitions, ((),)), plan)

    def _nested(self, name: str, field: GraphQLField, details: FieldDetailsList) -> Nested | None:
        many, kind = metadata(field).get("many"), get_named_type(field.type)
        if not isinstance(many, HasMany) or not isinstance(kind, GraphQLObjectType):
            return None
        collected = self.executor.collect_subfields(kind, details)
        plan = None if collected.new_defer_usages else self.connection_plan(kind, collected.grouped_field_set)
        read = arguments(field.extensions[DEFINED_BY])
        # The query of the field is cached by the values of these variables.
        variables = tuple(set(variables_in(each.value for each in details[0].node.arguments or ())))
        return Nested(name, many, field, read, details, plan, variables, {}) if plan else None

    def _connection_planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> ConnectionPlan | None:
        """Plan the fields of a connection, or of its `PageInfo`."""
        plan = ConnectionPlan()
        for name, details in selected.items():
            plan.template[name] = None
            part = self._page_part(kind, details)
            if details[0].node.name.value == "__typename":
                plan.template[name] = kind.name
            elif part is None:
                return None
            else:
                plan.parts[name] = part
        return plan

    def _page_part(self, kind: GraphQLObjectType, details: FieldDetailsList) -> Any:
        field_name = details[0].node.name.value
        field = self.schema.get_field(kind, field_name)
        if field is None or field_name == "__typename":
            return None
        if field_name in PAGE_PARTS:
            return PAGE_PARTS[field_name]
        inner = get_named_type(field.type)
        if not isinstance(inner, GraphQLObjectType):
            return None
        if field_name == "nodes":
            plan = self._plan_of_rows(inner, details)
            return partial(write_nodes, plan) if plan else None
        collected = self.executor.collect_subfields(inner, details)
        if collected.new_defer_usages:
            return None
        make = self._edges_planned if field_name == "edges" else self._connection_planned
        planned = make(inner, collected.grouped_field_set)
        return planned.write if planned else None

    def _edges_planned(self, kind: GraphQLObjectType, selected: GroupedFieldSet) -> EdgesPlan | None:
        plan = EdgesPlan()
        for name, details in selected.items():
            field_name = details[0].node.name.value
            plan.template[name] = kind.name if field_name == "__typename" else None
            if field_name == "cursor":
                plan.cursors.append(name)
            elif field_name == "node":
                node = self._plan_of_rows(cast("Any", get_named_type(kind.fields["node"].type)), details)
                if node is None:
                    return None
                plan.nodes[name] = node
        return plan

    def _plan_of_rows(self, kind: GraphQLObjectType, details: FieldDetailsList) -> Plan | None:
        plan = self.plan_of_class(kind, details, kind.extensions[DEFINED_BY].origin)
        return None if plan is None or plan.unplanned else plan

    def _serializers(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Serializers | None:
        if isinstance(kind, GraphQLNonNull):
            return self._non_null_serializers(kind.of_type, details)
        serializers = self._non_null_serializers(kind, details)
        if serializers is not None:
            serializers[NoneType] = None
        return serializers

    def _non_null_serializers(self, kind: GraphQLOutputType, details: FieldDetailsList) -> Serializers | None:
        if isinstance(kind, GraphQLScalarType):
            return of_scalar(kind.name)
        if isinstance(kind, GraphQLEnumType):
            return of_enum(kind)
        if isinstance(kind, GraphQLList):
            return of_list(self._serializers(kind.of_type, details))
        return self._objects(kind, details) if isinstance(kind, GraphQLObjectType) else None

    def _objects(self, kind: GraphQLObjectType, details: FieldDetailsList) -> Objects | None:
        collected = self.executor.collect_subfields(kind, details)
        plan = None if collected.new_defer_usages else self.plan(kind, collected.grouped_field_set)
        return Objects(kind, plan) if plan and plan.is_attribute_only else None


def is_basic(field: GraphQLField) -> bool:
    """Return whether a field has no resolver: its value is an attribute."""
    definition = field.extensions.get(DEFINED_BY)
    return isinstance(definition, StrawberryField) and definition.is_basic_field


def attribute_of(field: GraphQLField) -> str | None:
    """Return the attribute with the value of a field, at least if it is not null; None if a resolver returns it."""
    if is_basic(field):
        return str(field.extensions[DEFINED_BY].python_name)
    return metadata(field).get("held")
