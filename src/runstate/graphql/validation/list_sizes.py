"""How long the lists are in what a client gives for variables; a JSON value is not looked into."""

from collections.abc import Callable, Mapping
from typing import Any

from graphql import (
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    get_named_type,
    type_from_ast,
)

Longest = Callable[[Any], int]
"""How many items the longest list in a value has."""


class Lists:
    """Knows for the types of a schema where lists can be in their values, and looks nowhere else."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        inputs = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLInputObjectType)]
        self.members: dict[str, dict[str, Longest]] = {kind.name: {} for kind in inputs}
        self.holding = _holding(inputs)
        for kind in inputs:
            held = {name: self.of(field.type) for name, field in kind.fields.items()}
            self.members[kind.name].update({name: each for name, each in held.items() if each})

    def of(self, kind: Any) -> Longest | None:
        """How to find the longest list in the values of a type; None: they hold none."""
        if isinstance(kind, GraphQLNonNull):
            return self.of(kind.of_type)
        if isinstance(kind, GraphQLList):
            inner = self.of(kind.of_type)
            return lambda value: _of_list(value, inner)
        if getattr(kind, "name", None) in self.holding:
            members = self.members[kind.name]
            return lambda value: _of_members(value, members)
        return None

    def of_variables(self, operation: OperationDefinitionNode) -> Longest | None:
        """How to find the longest list in the variables of an operation; None: they hold none."""
        kinds = {
            each.variable.name.value: type_from_ast(self.schema, each.type)
            for each in operation.variable_definitions or ()
        }
        members = {name: found for name, kind in kinds.items() if (found := self.of(kind))}
        return (lambda value: _of_members(value, members)) if members else None


def _holding(inputs: list[GraphQLInputObjectType]) -> set[str]:
    """The inputs that hold lists, however far inside."""
    fields = {kind.name: [field.type for field in kind.fields.values()] for kind in inputs}
    holding = {name for name, types in fields.items() if any(_is_list(each) for each in types)}
    while more := {
        name
        for name, types in fields.items()
        if name not in holding and any(get_named_type(each).name in holding for each in types)
    }:
        holding |= more
    return holding


def _is_list(kind: Any) -> bool:
    return isinstance(kind.of_type if isinstance(kind, GraphQLNonNull) else kind, GraphQLList)


def _of_list(value: Any, inner: Longest | None) -> int:
    if not isinstance(value, list):
        return inner(value) if inner else 0
    return max([len(value), *map(inner, value)]) if inner else len(value)


def _of_members(value: Any, members: Mapping[str, Longest]) -> int:
    if not isinstance(value, dict):
        return 0
    return max([0, *(members[name](each) for name, each in value.items() if name in members)])
