"""The schema: the families merged. A family is a module with a class `Query`, `Mutation` or `Subscription`."""

from functools import partial
from typing import Any, Final

import strawberry
from graphql import GraphQLError, GraphQLInputObjectType, lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.tools import merge_types
from strawberry.types.execution import ExecutionContext

from runstate.graphql import creating, faults, flows, limits, nodes, proposals, runs, slots, transitions
from runstate.graphql.derive import implementing
from runstate.graphql.documents import Documents, Prepared
from runstate.graphql.scalars import SCALARS
from runstate.rows import Row

FAMILIES: Final[tuple[Any, ...]] = (nodes, flows, runs, limits, proposals, creating, slots, transitions)
"""Modules that have a class `Query`, `Mutation` or `Subscription`."""


class Schema(strawberry.Schema):
    """Strawberry's schema, with our log."""

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log errors before they are presented."""
        faults.record(errors, execution_context)


def build_schema() -> Schema:
    """The schema that clients see."""
    schema = Schema(
        query=_merged("Query", "What can be asked."),
        mutation=_merged("Mutation", "What can be done."),
        subscription=_merged("Subscription", "What can be listened to."),
        types=implementing(Row),
        extensions=[partial(Prepared, Documents()), faults.Presented],
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    for known in schema._schema.type_map.values():  # noqa: SLF001
        if isinstance(known, GraphQLInputObjectType):
            known.is_one_of = known.extensions["strawberry-definition"].is_one_of
    return schema


def _merged(name: str, description: str) -> Any:
    classes = tuple(getattr(family, name) for family in FAMILIES if hasattr(family, name))
    if not classes:
        return None
    merged = merge_types(name, classes)
    merged.__strawberry_definition__.description = description  # type: ignore[attr-defined]
    return merged


def sdl(schema: strawberry.Schema) -> str:
    """The schema as text, sorted."""
    return print_schema(lexicographic_sort_schema(schema._schema)) + "\n"  # noqa: SLF001
