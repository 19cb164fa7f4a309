"""Columns that a selection needs: only those are read."""

import functools
from collections.abc import Iterable, Iterator, Mapping

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
)
from strawberry.utils.str_converters import to_camel_case

from runstate.graphql.types.derive import definition_of
from runstate.rows import Row

Fragments = Mapping[str, FragmentDefinitionNode]
Columns = frozenset[str]


@functools.cache
def every(row: type[Row]) -> Columns:
    """Return all columns of a row."""
    return frozenset(column.key for column in row.__table__.columns)


@functools.cache
def needs(row: type[Row]) -> Mapping[str, Columns]:
    """Return the columns that each field of a row reads; all columns for a field that does not declare them."""
    fields = definition_of(row).fields
    declared = {field.graphql_name or to_camel_case(field.python_name): field.metadata.get("needs") for field in fields}
    return {name: every(row) if columns is None else frozenset(columns) for name, columns in declared.items()}


def columns(
    row: type[Row], nodes: Iterable[FieldNode], fragments: Fragments, paths: Iterable[tuple[str, ...]]
) -> Columns:
    """Return the columns of a row that a selection reads, if the row is found under one of these paths of fields.

    Type conditions and directives are ignored, so more columns than necessary may be read.
    """
    # The id is read in any case: loaders and nested lists find rows by it.
    result = {"id"}
    for path in paths:
        inner = list(nodes)
        for name in path:
            inner = [node for node in selected(inner, fragments) if node.name.value == name]
        for node in selected(inner, fragments):
            result |= needs(row).get(node.name.value, frozenset())
    return frozenset(result)


def selected(nodes: Iterable[FieldNode | OperationDefinitionNode], fragments: Fragments) -> Iterator[FieldNode]:
    """Yield the fields that are selected below some fields, or in operations. Each fragment is visited once."""
    seen: set[str] = set()
    waiting: list[SelectionNode] = [
        selection for node in nodes if node.selection_set for selection in node.selection_set.selections
    ]
    while waiting:
        selection = waiting.pop()
        if isinstance(selection, FieldNode):
            yield selection
        elif isinstance(selection, FragmentSpreadNode):
            if selection.name.value not in seen and selection.name.value in fragments:
                seen.add(selection.name.value)
                waiting.extend(fragments[selection.name.value].selection_set.selections)
        else:
            waiting.extend(selection.selection_set.selections)  # type: ignore[attr-defined]


def type_conditions(nodes: Iterable[FieldNode], fragments: Fragments) -> set[str]:
    """Return the names of the types in the conditions of fragments that are selected directly below some fields."""
    result, seen = set[str](), set[str]()
    waiting = [node.selection_set for node in nodes if node.selection_set]
    while waiting:
        for selection in waiting.pop().selections:
            inner: SelectionNode | FragmentDefinitionNode = selection
            if isinstance(selection, FragmentSpreadNode) and selection.name.value not in seen:
                seen.add(selection.name.value)
                inner = fragments.get(selection.name.value, selection)
            if isinstance(inner, InlineFragmentNode | FragmentDefinitionNode):
                result |= {inner.type_condition.name.value} if inner.type_condition else set()
                waiting.append(inner.selection_set)
    return result
