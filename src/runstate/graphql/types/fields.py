"""Fields and types whose descriptions are docstrings."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeVar, cast, dataclass_transform

import strawberry
from graphql import GraphQLField
from strawberry.types.field import StrawberryField

from runstate.documents.access import Scope
from runstate.graphql.types.input_values import read

DEFINED_BY: Final = "strawberry-definition"
"""Extension of GraphQL types and fields that holds Strawberry's definition."""

NEEDS: Final = "scope"
"""Metadata key of a field or a column: the scope that it needs."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

Root = strawberry.Parent[Any]
"""Type of the first argument of a resolver outside of a class: the object of the field."""

Id = Annotated[strawberry.ID, strawberry.argument(description="Id of the object; a malformed id is unknown.")]
"""The id argument of fields for one object."""


def field(resolver: F, scope: Scope | None = None) -> F:
    """Make a field of a type."""
    return cast("F", strawberry.field(resolver, **_declared(resolver, scope)))


def cached_attribute(attribute: str) -> Callable[[F], F]:
    """Return a decorator for a field with the value of an attribute; the resolver is called if that is null."""

    def make(resolver: F) -> F:
        made = strawberry.field(resolver, description=description_of(resolver), metadata={"held": attribute})
        return cast("F", made)

    return make


def query(resolver: F, scope: Scope | None = None) -> F:
    """Make a field of `Query`; `@partial(query, scope=Scope.ADMIN)` makes one that needs more than `read`."""
    return field(resolver, scope)


def mutation(resolver: F, scope: Scope) -> F:
    """Make a field of `Mutation`, which needs a scope."""
    return cast("F", strawberry.mutation(resolver, **_declared(resolver, scope)))


def subscription(resolver: F, scope: Scope | None = None) -> F:
    """Make a field of `Subscription`."""
    return cast("F", strawberry.subscription(resolver, **_declared(resolver, scope)))


def with_options(options: type[Any], **annotations: Any) -> Callable[[F], F]:
    """Return a decorator for resolvers with a parameter `options`, which has the members of a dataclass as arguments.

    `annotations` replace types of members.
    """
    members = inspect.signature(options).parameters
    shared = [
        each.replace(kind=each.KEYWORD_ONLY, annotation=annotations.get(name, each.annotation))
        for name, each in members.items()
    ]

    def decorate(resolver: F) -> F:
        @functools.wraps(resolver)
        async def resolve(*args: Any, **given: Any) -> Any:
            chosen = {name: given.pop(name) for name in members.keys() & given.keys()}
            return await resolver(*args, options=options(**chosen), **given)

        signature = inspect.signature(resolver)
        own = [each for each in signature.parameters.values() if each.name != "options"]
        resolve.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        return cast("F", resolve)

    return decorate


def _declared(resolver: Callable[..., Any], scope: Scope | None) -> dict[str, Any]:
    description = description_of(resolver)
    if scope is None:
        return {"description": description}
    return {"description": f"{description} Needs the scope `{scope}`.", "metadata": {NEEDS: scope}}


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def object_type(cls: type[T]) -> type[T]:
    """Make an object type whose description is the docstring of its class."""
    return strawberry.type(cls, description=description_of(cls))


@dataclass_transform(kw_only_default=True, field_specifiers=(strawberry.field,))
def input_type(*, name: str | None = None, one_of: bool = False) -> Callable[[type[T]], type[T]]:
    """Return a decorator that makes an input whose description is the docstring of its class."""

    def make(cls: type[T]) -> type[T]:
        made = strawberry.input(cls, name=name, one_of=one_of, description=description_of(cls))
        # Strawberry calls this for each value; its own function inspects the types of all members each time.
        cast("Any", made).__strawberry_definition__.from_input = read
        return made

    return make


def description_of(thing: object) -> str:
    """Return the docstring of an object, with each paragraph on one line."""
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split("\n")) for paragraph in paragraphs)


def named(python_name: str) -> str | None:
    """Return the GraphQL name of a member whose Python name ends in `_`, because Python or SQLAlchemy uses the name."""
    return python_name[:-1] if python_name.endswith("_") else None


def metadata(field: GraphQLField) -> Mapping[Any, Any]:
    """Return the metadata that a field was declared with."""
    definition = field.extensions.get(DEFINED_BY)
    return definition.metadata if isinstance(definition, StrawberryField) else {}
