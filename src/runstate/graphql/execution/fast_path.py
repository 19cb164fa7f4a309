"""Mutations of one field, carried out without the library: from the variables, as they were sent, to the answer.

What is done is made ready when an operation was executed once, by the executor, whose plans write the answers. As with
those, whatever is unusual is left to the library: a value that is not quite as it should be, before anything is done;
an error, or an answer that no plan writes, when it is done, with what came of it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_required_input_field,
    type_from_ast,
)

from runstate.graphql.execution.executor import Executor
from runstate.graphql.execution.plans import DEFINED_BY, Plan, conditions, directives
from runstate.graphql.execution.serialization import WRITTEN, Fallback, Serializers
from runstate.graphql.types.input_values import arguments, made, member_names
from runstate.graphql.types.inputs import Input

Read = Callable[[Any], Any]
"""Reads a value from JSON; UnusualError: the library is to look at it."""


class Caller(NamedTuple):
    """All that the resolver of a mutation asks `info` for."""

    context: Any


class Outcome(NamedTuple):
    """What came of a field: a value or an error."""

    value: Any = None
    error: Exception | None = None

    async def get(self) -> Any:
        """The value, or the error raised."""
        if self.error is not None:
            raise self.error
        return self.value


class FastPath(NamedTuple):
    """A mutation of one field, made ready."""

    name: str
    """What its answer is called."""
    resolver: Callable[..., Awaitable[Any]]
    given: Mapping[str, tuple[str, Read]]
    """Of each argument: the variable that it is, and how that is read."""
    plans: Mapping[type, Plan]
    """How its answer is written, by its class."""
    several: bool
    """Whether it is a list of answers."""

    def arguments(self, variables: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The arguments, as the resolver takes them; null: something is unusual."""
        said = variables or {}
        try:
            return {name: read(said[variable]) for name, (variable, read) in self.given.items()}
        except Exception:  # noqa: BLE001 the library says what it is
            return None

    async def outcome(self, context: Any, given: Mapping[str, Any]) -> Outcome:
        """What comes of it."""
        try:
            return Outcome(await self.resolver(None, Caller(context), **given))
        except Exception as error:  # noqa: BLE001 the library says what it is
            return Outcome(error=error)

    def answer(self, outcome: Outcome) -> dict[str, Any] | None:
        """The data of the answer; null: it is unusual."""
        if outcome.error is not None:
            return None
        try:
            if self.several:
                return {self.name: [self.plans[type(each)].fill(each) for each in outcome.value]}
            return {self.name: self.plans[type(outcome.value)].fill(outcome.value)}
        except Exception:  # noqa: BLE001 the library says what it is
            return None


def fast_path_of(executor: Executor) -> FastPath | None:
    """What an operation that was executed does; null: it needs the library."""
    operation, root = executor.operation, executor.shape.root
    if operation.operation is not OperationType.MUTATION or root is None or len(root.grouped_field_set) != 1:
        return None
    if any(each.variable_signatures for each in executor.fragments.values()):
        return None
    if any(conditions(directives(operation.selection_set, executor.fragments))) or operation.directives:
        return None
    ((name, details),) = root.grouped_field_set.items()
    field = executor.schema.mutation_type and executor.schema.mutation_type.fields.get(details[0].node.name.value)
    if not field:
        return None
    given, plans = _given(executor, field, details[0].node), _plans(executor, field, details)
    if given is None or plans is None:
        return None
    resolver = field.extensions[DEFINED_BY].base_resolver.wrapped_func
    return FastPath(name, resolver, given, plans, isinstance(get_nullable_type(field.type), GraphQLList))


def _given(executor: Executor, field: GraphQLField, node: FieldNode) -> Mapping[str, tuple[str, Read]] | None:
    """The variables that the arguments are, and how they are read; null: they are not all variables."""
    said = {each.name.value: each.value for each in node.arguments or ()}
    if said.keys() != field.args.keys() or not all(isinstance(each, VariableNode) for each in said.values()):
        return None
    kinds = _kinds(executor, executor.operation)
    names = arguments(field.extensions[DEFINED_BY])(dict.fromkeys(said))
    variables = [cast("VariableNode", each).name.value for each in said.values()]
    return {name: (variable, reader(kinds[variable])) for variable, name in zip(variables, names, strict=True)}


def _kinds(executor: Executor, operation: OperationDefinitionNode) -> dict[str, GraphQLInputType]:
    return {
        each.variable.name.value: cast("GraphQLInputType", type_from_ast(executor.schema, each.type))
        for each in operation.variable_definitions or ()
    }


def _plans(executor: Executor, field: GraphQLField, details: Any) -> Mapping[type, Plan] | None:
    """The plan for each class that the answer can have; null: some of it needs the library."""
    kind = get_named_type(field.type)
    classes = [each.extensions[DEFINED_BY].origin for each in executor.possible(kind)]
    plans = {each: executor.plan_of_class(kind, details, each) for each in classes}
    return cast("Any", plans) if all(plan and plan.is_attribute_only for plan in plans.values()) else None


def reader(kind: Any) -> Read:
    """How values of a type are read that are not null. An input is one that holds its members as documents do."""
    kind = get_nullable_type(kind)
    if isinstance(kind, GraphQLList):
        return _list(reader(kind.of_type))
    if isinstance(kind, GraphQLInputObjectType):
        cls, members = kind.extensions[DEFINED_BY].origin, Members(kind)
        return lambda value: made(cls, members.values(value))
    return _plain(kind)


def _plain(kind: Any) -> Read:
    """How values are read that a document holds."""
    kind = get_nullable_type(kind)
    match kind:
        case GraphQLList():
            return _list(_plain(kind.of_type))
        case GraphQLInputObjectType():
            return Members(kind).read
        case GraphQLEnumType():
            return {name: kind.coerce_input_value(name) for name in kind.values}.__getitem__
        case GraphQLScalarType():
            return EXACTLY.get(kind.name) or kind.coerce_input_value
    return _unusual


def _list(item: Read) -> Read:
    def read(values: Any) -> list[Any]:
        if type(values) is not list:
            raise Fallback
        return [item(each) for each in values]

    return read


class Member(NamedTuple):
    """One member of an input."""

    name: str
    read: Read
    null: bool
    """Whether it may be null."""
    kept: bool
    """Whether null is a value of it; otherwise it is as good as not given."""


class Members:
    """How inputs of a type are read."""

    def __init__(self, kind: GraphQLInputObjectType) -> None:
        definition = kind.extensions[DEFINED_BY]
        self.cls: type[Input[Any]] = definition.origin
        self.one_of = kind.is_one_of
        self.required = {name for name, field in kind.fields.items() if is_required_input_field(field)}
        self.kind = kind
        self.known: dict[str, Member] = {}

    def read(self, value: Any) -> dict[str, Any]:
        """Return the members as the document has them."""
        return self.cls.as_document(self.values(value))

    def values(self, value: Any) -> dict[str, Any]:
        """The members that are given, by the names that the document has for them."""
        known = self.known or self._meet()
        if type(value) is not dict or not self.required <= value.keys() or (self.one_of and len(value) != 1):
            raise Fallback
        given = {}
        for name, each in value.items():
            member = known[name]
            if each is not None:
                given[member.name] = member.read(each)
            elif self.one_of or not member.null:
                raise Fallback
            elif member.kept:
                given[member.name] = None
        return given

    def _meet(self) -> dict[str, Member]:
        """Looked at when the first value comes: inputs may hold each other."""
        if not issubclass(self.cls, Input):
            raise Fallback
        names = member_names(self.cls)
        self.known = {name: self._member(names[name], field.type) for name, field in self.kind.fields.items()}
        return self.known

    def _member(self, name: str, kind: GraphQLInputType) -> Member:
        kept = not self.one_of and self.cls.may_be_null(name)
        return Member(name, _plain(kind), not isinstance(kind, GraphQLNonNull), kept)


def _unusual(_: Any) -> Any:
    raise Fallback


EXACTLY: Final[Mapping[str, Read]] = {
    name: Serializers(WRITTEN[name]).write for name in ("String", "ID", "Boolean", "Int", "Float")
}
"""How scalars are read that are exactly what they should be: as they are written."""
