"""The fast path: a mutation of one field whose arguments are variables, executed without graphql-core.

It is compiled when such an operation has been executed once: readers of the variables, and plans of the answer. It
reads variables straight into the documents that validate them. Other cases fall back to graphql-core: variables that
are not valid as they are, before the resolver is called; an error, or an answer without a plan, with its outcome.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from typing import Any, Final, NamedTuple, cast

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    OperationType,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_required_input_field,
    type_from_ast,
)
from graphql.execution.collect_fields import FieldDetailsList
from pydantic import BaseModel, ValidationError

from runstate.graphql.execution.executor import Executor
from runstate.graphql.execution.fallbacks import Fallback, FallbackReason
from runstate.graphql.execution.plan_cache import conditions, directives
from runstate.graphql.execution.plans import Plan
from runstate.graphql.execution.serialization import WRITTEN, Serializers
from runstate.graphql.types.fields import DEFINED_BY
from runstate.graphql.types.input_values import arguments, member_names
from runstate.graphql.types.inputs import Input, UnionInput

Read = Callable[[Any], Any]
"""Returns a JSON value as a resolver takes it; raises Fallback if the value needs coercion or is invalid."""


class ResolveInfo(NamedTuple):
    """The part of GraphQL's resolve info that resolvers of mutations use."""

    context: Any


class CheckedInput(NamedTuple):
    """An input that was validated while it was read; takes the place of `Input` for resolvers."""

    document: BaseModel

    def checked(self) -> BaseModel:
        """Return the document."""
        return self.document


class Outcome(NamedTuple):
    """The value or the error of a resolver."""

    value: Any = None
    error: Exception | None = None

    async def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class FastPath(NamedTuple):
    """A compiled mutation."""

    name: str
    """Name of the field in the answer."""
    resolver: Callable[..., Awaitable[Any]]
    readers: Mapping[str, tuple[str, Read]]
    """Variable of each argument, and its reader."""
    plans: Mapping[type, Plan]
    """Plans of the answer, by its class."""
    is_list: bool

    def arguments(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the resolver. Raise Fallback if a variable needs coercion or is invalid."""
        try:
            # A variable that is omitted can have a default value, which graphql-core applies.
            return {name: read(variables[variable]) for name, (variable, read) in self.readers.items()}
        except (Fallback, GraphQLError, KeyError, ValidationError) as error:
            raise Fallback(FallbackReason.INPUT) from error

    async def outcome(self, context: Any, given: Mapping[str, Any]) -> Outcome:
        """Call the resolver, and return its outcome."""
        try:
            return Outcome(await self.resolver(None, ResolveInfo(context), **given))
        except Exception as error:  # noqa: BLE001 graphql-core reports it with its path
            return Outcome(error=error)

    def answer(self, outcome: Outcome) -> dict[str, Any]:
        """Return the data of the answer. Raise Fallback if graphql-core has to write it."""
        if outcome.error is not None:
            raise Fallback(FallbackReason.ERROR)
        if not self.is_list:
            return {self.name: self._plan(type(outcome.value)).fill(outcome.value)}
        kinds = set(map(type, outcome.value))
        if len(kinds) == 1:
            return {self.name: self._plan(*kinds).fill_all(outcome.value)}
        return {self.name: [self._plan(type(each)).fill(each) for each in outcome.value]}

    def _plan(self, kind: type) -> Plan:
        plan = self.plans.get(kind)
        if plan is None:
            raise Fallback
        return plan


def fast_path_of(executor: Executor) -> FastPath | None:
    """Return the fast path of an operation that was executed; None if it needs graphql-core."""
    operation, root = executor.operation, executor.plans.root
    if operation.operation is not OperationType.MUTATION or root is None or len(root.grouped_field_set) != 1:
        return None
    # Fields of a fragment with arguments can differ for each spread.
    if any(each.variable_signatures for each in executor.fragments.values()):
        return None
    # Conditions can select other fields for other variables, but the plans are compiled once.
    if any(conditions(directives(operation.selection_set, executor.fragments))) or operation.directives:
        return None
    ((name, details),) = root.grouped_field_set.items()
    field = cast("Any", executor.schema.mutation_type).fields.get(details[0].node.name.value)
    readers = _readers(executor, field, details[0].node) if field else None
    plans = _plans(executor, field, details) if field else None
    if readers is None or plans is None:
        return None
    # Without Strawberry's wrapper, which would convert the arguments again.
    resolver = field.extensions[DEFINED_BY].base_resolver.wrapped_func
    return FastPath(name, resolver, readers, plans, isinstance(get_nullable_type(field.type), GraphQLList))


def _readers(executor: Executor, field: GraphQLField, node: FieldNode) -> Mapping[str, tuple[str, Read]] | None:
    """Return the reader of each argument; None unless all are variables with scalars or documents."""
    values = {each.name.value: each.value for each in node.arguments or ()}
    # An omitted argument can have a default value, which graphql-core applies.
    if values.keys() != field.args.keys() or not all(isinstance(each, VariableNode) for each in values.values()):
        return None
    kinds = {
        each.variable.name.value: type_from_ast(executor.schema, each.type)
        for each in executor.operation.variable_definitions or ()
    }
    if not all(_is_readable(get_named_type(kind)) for kind in kinds.values()):
        return None
    names = arguments(field.extensions[DEFINED_BY])(dict.fromkeys(values))
    variables = [cast("VariableNode", each).name.value for each in values.values()]
    return {name: (variable, reader(kinds[variable])) for variable, name in zip(variables, names, strict=True)}


def _is_readable(kind: Any) -> bool:
    return not is_input_object_type(kind) or issubclass(kind.extensions[DEFINED_BY].origin, Input)


def _plans(executor: Executor, field: GraphQLField, details: FieldDetailsList) -> Mapping[type, Plan] | None:
    """Return the plans of the classes that the answer can have; None if some of it needs graphql-core."""
    kind, planner = get_named_type(field.type), executor.planner
    classes = [each.extensions[DEFINED_BY].origin for each in planner.possible_types(kind)]
    plans = {each: planner.plan_of_class(kind, details, each) for each in classes}
    if not all(plan and plan.is_attribute_only for plan in plans.values()):
        return None
    return cast("Mapping[type, Plan]", plans)


def reader(kind: Any, *, of_input: bool = True) -> Read:
    """Return the reader of non-null values of a type: of an input as a document, inside one as values of a document."""
    kind = get_nullable_type(kind)
    match kind:
        case GraphQLList():
            return partial(_each, reader(kind.of_type, of_input=of_input))
        case GraphQLInputObjectType():
            return InputReader(kind).document if of_input else InputReader(kind).values
        case GraphQLEnumType():
            return partial(_member_of, {name: kind.coerce_input_value(name) for name in kind.values})
    return SCALARS.get(kind.name) or cast("Read", kind.coerce_input_value)


def _member_of(members: Mapping[str, Any], name: Any) -> Any:
    if type(name) is not str:
        raise Fallback
    return members[name]


def _each(item: Read, values: Any) -> list[Any]:
    if type(values) is not list:
        raise Fallback
    return [item(each) for each in values]


SCALARS: Final[Mapping[str, Read]] = {
    name: Serializers(kinds).write
    for name, kinds in {**WRITTEN, "Float": {**WRITTEN["Float"], int: float}}.items()
    if name in {"String", "ID", "Boolean", "Int", "Float"}
}
"""Readers of GraphQL's own scalars: values that are valid as they are, and integers as Float."""


class Member(NamedTuple):
    """A member of an input."""

    name: str
    read: Read
    nullable: bool
    keeps_null: bool
    """Whether null is a value of its own. Otherwise it means the same as an omitted member."""


class InputReader:
    """Reads values of an input type as `Input.member_values` returns them, without making the input."""

    def __init__(self, kind: GraphQLInputObjectType) -> None:
        self.kind = kind
        self.cls: type[Input[Any]] = kind.extensions[DEFINED_BY].origin
        self.required = {name for name, field in kind.fields.items() if is_required_input_field(field)}
        self.is_one_of = kind.is_one_of
        self.as_document = self.cls.as_document if issubclass(self.cls, UnionInput) else None

    @cached_property
    def members(self) -> dict[str, Member]:
        """The members, by their names in GraphQL; made with the first value, since inputs can hold each other."""
        names = member_names(self.cls)
        return {name: self._member(names[name], field.type) for name, field in self.kind.fields.items()}

    def _member(self, name: str, kind: Any) -> Member:
        read, nullable = reader(kind, of_input=False), not isinstance(kind, GraphQLNonNull)
        return Member(name, read, nullable, not self.kind.is_one_of and self.cls.may_be_null(name))

    def document(self, value: Any) -> CheckedInput:
        """Return the validated document."""
        return CheckedInput(self.cls.make_document(self.values(value)))

    def values(self, value: Any) -> dict[str, Any]:
        """Return the members that are set as the document has them."""
        if type(value) is not dict or not self.required <= value.keys() or (self.is_one_of and len(value) != 1):
            raise Fallback
        values: dict[str, Any] = {}
        members = self.members
        for name, each in value.items():
            member, read, nullable, keeps_null = members[name]
            if each is not None:
                values[member] = read(each)
            elif self.is_one_of or not nullable:
                raise Fallback
            elif keeps_null:
                values[member] = None
        return values if self.as_document is None else self.as_document(values)
