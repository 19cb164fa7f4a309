"""Which columns a client's selection needs, so that only those are read."""

import functools
from collections.abc import Iterable, Iterator, Mapping

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, SelectionNode
from strawberry.utils.str_converters import to_camel_case

from runstate.graphql.types.derive import definition_of
from runstate.rows import Row

Fragments = Mapping[str, FragmentDefinitionNode]
Columns = frozenset[str]


@functools.cache
def every(row: type[Row]) -> Columns:
    """Every column of a row."""
    return frozenset(column.key for column in row.__table__.columns)


@functools.cache
def needs(row: type[Row]) -> Mapping[str, Columns]:
    """What each field of a row reads; a field that does not say so reads everything."""
    fields = definition_of(row).fields
    asked = {field.graphql_name or to_camel_case(field.python_name): field.metadata.get("needs") for field in fields}
    return {name: every(row) if columns is None else frozenset(columns) for name, columns in asked.items()}


def columns(
    row: type[Row], nodes: Iterable[FieldNode], fragments: Fragments, paths: Iterable[tuple[str, ...]]
) -> Columns:
    """The columns of a row that are read below a field, where the row is found under one of these paths of fields.

    Fragments count whatever type they are on and directives whatever they say: that reads too much at most.
    """
    found = {"id"}
    for path in paths:
        inner = list(nodes)
        for name in path:
            inner = [node for node in selected(inner, fragments) if node.name.value == name]
        for node in selected(inner, fragments):
            found |= needs(row).get(node.name.value, frozenset())
    return frozenset(found)


def selected(nodes: Iterable[FieldNode], fragments: Fragments) -> Iterator[FieldNode]:
    """The fields that are selected of what some fields answer; every fragment is looked at once."""
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
