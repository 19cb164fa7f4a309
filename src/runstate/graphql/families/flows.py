"""Flows and deployments: queries, and fields that no column holds."""

from typing import Annotated

import strawberry
from strawberry import UNSET

from runstate.graphql.context import Info
from runstate.graphql.pagination.connection import Connection, rows_of
from runstate.graphql.published import ConcurrencyLimit, Deployment, Flow
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import Id, input_type, query


@extends(Deployment, needs={"concurrency_limit_id"})
async def concurrency_limit(root: strawberry.Parent[Deployment], info: Info) -> int | None:
    """How many of its runs may hold a slot at once; null: any number."""
    found = await info.context.row(ConcurrencyLimit, root.concurrency_limit_id, frozenset({"limit"}))
    return found.limit if found else None


@input_type(one_of=True)
class FlowRef:
    """Which flow."""

    id: strawberry.ID | None = strawberry.field(default=UNSET, description="The flow with this id.")
    name: str | None = strawberry.field(default=UNSET, description="The flow with this name.")


By = Annotated[FlowRef, strawberry.argument(description="Which one.")]


@strawberry.type
class Query:
    """Flows and deployments."""

    flows: Connection[Flow] = rows_of(Flow, "Flows; newest first unless asked.")
    deployments: Connection[Deployment] = rows_of(Deployment, "Deployments; newest first unless asked.")

    @query
    async def flow(self, info: Info, by: By) -> Flow | None:
        """The flow with an id or a name."""
        if isinstance(by.id, str):
            return await info.context.load(info, Flow, by.id)
        return await info.context.named(info, Flow, by.name)

    @query
    async def deployment(self, info: Info, id: Id) -> Deployment | None:
        """The deployment with an id."""
        return await info.context.load(info, Deployment, id)
