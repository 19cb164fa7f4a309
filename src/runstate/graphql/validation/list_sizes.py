"""Lengths of the lists in variables, as a client sent them. Lists in JSON values do not count."""

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

LongestList = Callable[[Any], int]
"""Returns the length of the longest list in a value."""


class ListSizes:
    """The members of each input type that hold lists. Other members of a value are not visited."""

    def __init__(self, schema: GraphQLSchema) -> None:
        self.schema = schema
        inputs = [kind for kind in schema.type_map.values() if isinstance(kind, GraphQLInputObjectType)]
        self.members: dict[str, dict[str, LongestList]] = {kind.name: {} for kind in inputs}
        self.with_lists = _with_lists(inputs)
        for kind in inputs:
            found = {name: self.of(field.type) for name, field in kind.fields.items()}
            self.members[kind.name].update({name: each for name, each in found.items() if each})

    def of(self, kind: Any) -> LongestList | None:
        """Return the function that measures values of a type; None if they hold no list."""
        if isinstance(kind, GraphQLNonNull):
            return self.of(kind.of_type)
        if isinstance(kind, GraphQLList):
            inner = self.of(kind.of_type)
            return lambda value: _in_list(value, inner)
        if getattr(kind, "name", None) in self.with_lists:
            # Inputs can contain each other, so their members are complete only after the constructor.
            members = self.members[kind.name]
            return lambda value: _in_members(value, members)
        return None

    def of_variables(self, operation: OperationDefinitionNode) -> LongestList | None:
        """Return the function that measures the variables of an operation; None if they hold no list."""
        kinds = {
            each.variable.name.value: type_from_ast(self.schema, each.type)
            for each in operation.variable_definitions or ()
        }
        members = {name: found for name, kind in kinds.items() if (found := self.of(kind))}
        return (lambda value: _in_members(value, members)) if members else None


def _with_lists(inputs: list[GraphQLInputObjectType]) -> set[str]:
    """Return the names of inputs that hold lists at any depth."""
    fields = {kind.name: [field.type for field in kind.fields.values()] for kind in inputs}
    with_lists = {name for name, types in fields.items() if any(_is_list(each) for each in types)}
    while more := {
        name
        for name, types in fields.items()
        if name not in with_lists and any(get_named_type(each).name in with_lists for each in types)
    }:
        with_lists |= more
    return with_lists


def _is_list(kind: Any) -> bool:
    return isinstance(kind.of_type if isinstance(kind, GraphQLNonNull) else kind, GraphQLList)


def _in_list(value: Any, inner: LongestList | None) -> int:
    # GraphQL takes a single value for a list of one.
    if not isinstance(value, list):
        return inner(value) if inner else 0
    return max([len(value), *map(inner, value)]) if inner else len(value)


def _in_members(value: Any, members: Mapping[str, LongestList]) -> int:
    if not isinstance(value, dict):
        return 0
    return max([0, *(members[name](each) for name, each in value.items() if name in members)])
