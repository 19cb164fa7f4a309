"""Concurrency limits: queries, and fields that no column holds."""

from math import ceil
from typing import Annotated

import strawberry
from strawberry import UNSET

from runstate.graphql.context import Info
from runstate.graphql.pagination.connection import Connection, rows_of
from runstate.graphql.published import ConcurrencyLimit
from runstate.graphql.types.derive import extends
from runstate.graphql.types.fields import input_type, query


@extends(ConcurrencyLimit, needs={"occupied", "slot_decay_per_second", "drained"})
def active_slots(root: strawberry.Parent[ConcurrencyLimit], info: Info) -> int:
    """How many slots are held now."""
    if not root.slot_decay_per_second:
        return root.occupied
    seconds = (root.drained - info.context.now).total_seconds() if root.drained else 0.0
    return ceil(max(0.0, root.slot_decay_per_second * seconds))


@input_type(one_of=True)
class ConcurrencyLimitRef:
    """Which concurrency limit."""

    id: strawberry.ID | None = strawberry.field(default=UNSET, description="The limit with this id.")
    name: str | None = strawberry.field(default=UNSET, description="The limit with this name.")


By = Annotated[ConcurrencyLimitRef, strawberry.argument(description="Which one.")]


@strawberry.type
class Query:
    """Concurrency limits."""

    concurrency_limits: Connection[ConcurrencyLimit] = rows_of(
        ConcurrencyLimit, "Concurrency limits; newest first unless asked."
    )

    @query
    async def concurrency_limit(self, info: Info, by: By) -> ConcurrencyLimit | None:
        """The limit with an id or a name."""
        if isinstance(by.id, str):
            return await info.context.load(info, ConcurrencyLimit, by.id)
        return await info.context.named(info, ConcurrencyLimit, by.name)
