"""Mutations: problems are members of the union that a mutation returns, all other errors are GraphQL errors."""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar, Union, cast, get_type_hints

import strawberry
from strawberry.utils.str_converters import to_camel_case

from runstate.documents.access import Scope
from runstate.errors import NotFound, Problem
from runstate.graphql.context import Info
from runstate.graphql.types import fields
from runstate.graphql.types.conditions import as_uuid
from runstate.graphql.types.derive import class_of
from runstate.graphql.types.fields import object_type
from runstate.graphql.types.problems import TYPES, as_object

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])
CREATED: Final = "True if this request created it; false if it already existed."


def mutation(
    scope: Scope, *problems: type[Problem], returns: Any = None, result: str | None = None
) -> Callable[[F], F]:
    """Return a decorator for fields of `Mutation` that return their payload or one of the problems.

    `returns` is the type of the payload, by default the resolver's annotation. The union is named after the field by
    default: `CreateFlowResult` for `create_flow`. A problem that is not a member becomes a GraphQL error with its code.
    """

    def decorate(resolver: F) -> F:
        return cast("F", fields.mutation(_answering(resolver, problems, returns, result), scope))

    return decorate


def query_with_problems(*problems: type[Problem]) -> Callable[[F], F]:
    """Return a decorator for fields of `Query` that return their payload or one of the problems."""

    def decorate(resolver: F) -> F:
        return cast("F", fields.query(_answering(resolver, problems, None, None)))

    return decorate


def _answering(
    resolver: Callable[..., Awaitable[Any]], problems: tuple[type[Problem], ...], returns: Any, result: str | None
) -> Any:
    """Return the resolver of the union of a payload and its problems."""

    @functools.wraps(resolver)
    async def resolve(*args: Any, **kwargs: Any) -> Any:
        try:
            return await resolver(*args, **kwargs)
        except problems as error:
            return as_object(error)

    # Strawberry reads the type of the field from this annotation.
    kind = returns or get_type_hints(resolver, include_extras=True)["return"]
    name = result or f"{_pascal(resolver.__name__)}Result"
    resolver.__annotations__["return"] = union = result_union(name, kind, *problems)
    if signature := getattr(resolver, "__signature__", None):
        resolve.__signature__ = signature.replace(return_annotation=union)  # type: ignore[attr-defined]
    return resolve


def result_union(name: str, kind: Any, *problems: type[Problem]) -> Any:
    """Return the union of a payload and the problems that a mutation can return instead."""
    return _union(name, kind, problems)


@functools.cache
def _union(name: str, kind: Any, problems: tuple[type[Problem], ...]) -> Any:
    """Return the union of a name, the same object for all mutations that share it."""
    members: Any = Union.__getitem__((kind, *(TYPES[each] for each in problems)))
    text = "The payload, or a problem." if problems else "The payload."
    return Annotated[members, strawberry.union(name, description=text)]


def payload(name: str, description: str, **members: tuple[Any, str]) -> Any:
    """Return the object type of a payload; each member is a type and its description."""
    made = {key: (kind, strawberry.field(description=text)) for key, (kind, text) in members.items()}
    return object_type(class_of(name, (), made, __doc__=description, __module__=__name__))


def actor(info: Info) -> dict[str, Any]:
    """Return the actor and the id of the request, which are stored with every state."""
    return {"actor": info.context.actor, "request_id": info.context.request_id or None}


@object_type
class DeletePayload:
    """A deletion."""

    deleted_id: strawberry.ID = strawberry.field(description="Id of the deleted object.")


async def deleted(info: Info, id: str, delete: Callable[..., Awaitable[None]]) -> DeletePayload:
    """Delete the object with an id. Raise NotFound if the id is unknown or malformed."""
    known = as_uuid(id)
    # GraphQL's ID is any text.
    if known is None:
        raise NotFound(id)
    await delete(info.context.commands, known)
    return DeletePayload(deleted_id=strawberry.ID(str(known)))


def _pascal(name: str) -> str:
    camel = to_camel_case(name)
    return camel[0].upper() + camel[1:]
