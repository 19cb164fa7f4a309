"""The schema: the families merged. A family is a module with a class `Query`, `Mutation` or `Subscription`."""

from typing import Any
from weakref import WeakKeyDictionary

import strawberry
from graphql import GraphQLInputObjectType, lexicographic_sort_schema, print_schema
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.tools import merge_types

from runstate.database.budget import ANSWERS_AT_ONCE, Room
from runstate.graphql.execution.events import Events
from runstate.graphql.execution.executor import executor_with
from runstate.graphql.execution.operation import Schema
from runstate.graphql.execution.plan_cache import PlanCache
from runstate.graphql.families.discovery import families
from runstate.graphql.types.derive import implementing
from runstate.graphql.types.registry import REGISTRY
from runstate.graphql.types.scalars import SCALARS
from runstate.graphql.validation.concurrency import InFlight
from runstate.graphql.validation.document_cache import DocumentCache
from runstate.graphql.validation.limits import RequestLimits
from runstate.rows import Row


def build_schema(limits: RequestLimits | None = None, *, plans: bool = True, kind: type[Schema] = Schema) -> Schema:
    """Return the schema that clients see; without plans, graphql-core executes everything."""
    limits, plan_cache = limits or RequestLimits(), PlanCache()
    query = _merged("Query", "Read operations.")
    mutation = _merged("Mutation", "Write operations.")
    subscription = _merged("Subscription", "Event streams.")
    # The import of the families has registered everything.
    REGISTRY.close()
    schema = kind(
        query=query,
        mutation=mutation,
        subscription=subscription,
        # Types that are found only by `node(id:)` or by an interface are no type of a field.
        types=[*implementing(Row), *(kind for family in families() for kind in getattr(family, "IMPLEMENTATIONS", ()))],
        execution_context_class=executor_with(plan_cache) if plans else StrawberryGraphQLCoreExecutionContext,
        config=StrawberryConfig(scalar_map=SCALARS),
    )
    # graphql-core prints and validates `@oneOf` by this attribute, which Strawberry does not set.
    for each in schema._schema.type_map.values():  # noqa: SLF001
        if isinstance(each, GraphQLInputObjectType):
            each.is_one_of = each.extensions["strawberry-definition"].is_one_of
    # Strawberry has no public attribute for the schema of graphql-core.
    schema.documents = DocumentCache(schema._schema, limits)  # noqa: SLF001
    schema.in_flight = InFlight(limits.operations, limits.subscriptions)
    schema.events, schema.room = Events(), Room(ANSWERS_AT_ONCE * limits.answer_bytes)
    schema.plan_cache, schema.fast_paths = plan_cache, WeakKeyDictionary()
    return schema


def _merged(name: str, description: str) -> Any:
    classes = tuple(getattr(family, name) for family in families() if getattr(family, name, None))
    if not classes:
        return None
    merged = merge_types(name, classes)
    merged.__strawberry_definition__.description = description  # type: ignore[attr-defined]
    return merged


def sdl(schema: strawberry.Schema) -> str:
    """Return the schema as text, sorted."""
    return print_schema(lexicographic_sort_schema(schema._schema)) + "\n"  # noqa: SLF001
