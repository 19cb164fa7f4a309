"""Mutations: what is wrong with an input is data, everything else that goes wrong is an error."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import strawberry

from runstate.core.batch.requests import Outcome
from runstate.documents.access import Scope
from runstate.errors import IdempotencyConflict, InvalidInput, NotFound, VersionConflict
from runstate.graphql.context import Info
from runstate.graphql.types.comparisons import as_uuid
from runstate.graphql.types.fields import mutation, object_type
from runstate.graphql.types.problems import problem

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
PROBLEMS: Final = (InvalidInput, NotFound, VersionConflict, IdempotencyConflict)


def doing(resolver: F) -> F:
    """A field of `Mutation` whose problems are members of the union that it answers with; it needs `admin`."""
    return _doing(resolver, Scope.ADMIN)


def proposing(resolver: F) -> F:
    """A field of `Mutation` that programs which run workflows use: like others, but it needs no more than `propose`."""
    return _doing(resolver, Scope.PROPOSE)


def _doing(resolver: F, scope: Scope) -> F:
    @functools.wraps(resolver)
    async def do(*args: Any, **kwargs: Any) -> Any:
        try:
            return settled(await resolver(*args, **kwargs))
        except PROBLEMS as error:
            return problem(error)

    return cast("F", mutation(do, scope))


def settled(outcome: Outcome | Any) -> Any:
    """What became of a request: a problem as data, a bug as an error."""
    if isinstance(outcome, PROBLEMS):
        return problem(outcome)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def who(info: Info) -> dict[str, Any]:
    """Who asks, and in which request: kept with every state."""
    return {"actor": info.context.actor, "request_id": info.context.request_id or None}


@object_type
class DeletePayload:
    """What was deleted."""

    deleted_id: strawberry.ID = strawberry.field(description="Its id.")


async def deleted(info: Info, key: str, delete: Callable[[Any, UUID], Awaitable[bool]]) -> DeletePayload:
    """Delete what has an id; nothing has a malformed one."""
    known = as_uuid(key)
    if known is None or not await delete(info.context.batcher, known):
        raise NotFound(key)
    return DeletePayload(deleted_id=strawberry.ID(str(known)))
