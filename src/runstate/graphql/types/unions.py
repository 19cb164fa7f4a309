"""Unions of documents: `Annotated[A | B, Field(discriminator="kind", title="Schedule", description="…")]`.

The title is the name in GraphQL. Answers have a union of the documents. Inputs have a `@oneOf` input with a member for
each document, named by its kind: the literal text in the member that is the discriminator.
"""

from enum import Enum
from functools import reduce
from operator import or_
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from runstate.documents.base import is_kind
from runstate.graphql.types.registry import RegistrationError


class DocumentUnion(NamedTuple):
    """A union of documents with a name."""

    name: str
    description: str
    discriminator: str
    """Name of the member that tells the documents apart."""
    kinds: dict[str, type[BaseModel]]
    """The documents, by kind."""


def is_union(annotation: Any) -> bool:
    """Return whether a type is a union. A type that is optional is one, too."""
    return get_origin(annotation) in (Union, UnionType)


def is_enum(annotation: Any) -> bool:
    """Return whether a type is an enum."""
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def variants(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, without null."""
    return tuple(each for each in get_args(annotation) if each is not NoneType)


def simplified(annotation: Any) -> Any:
    """Return a type without its annotations and those of its parts. Unions of documents keep theirs."""
    if get_origin(annotation) is Annotated:
        return _simplified_union(annotation) or simplified(annotation.__origin__)
    parts = tuple(map(simplified, get_args(annotation)))
    if parts == get_args(annotation):
        return annotation
    return reduce(or_, parts) if is_union(annotation) else cast("Any", get_origin(annotation))[parts]


def _simplified_union(annotation: Any) -> Any:
    """Return a union of documents with null outside of its annotation; None for other types."""
    inner = annotation.__origin__
    if not is_union(inner) or len(variants(inner)) == 1:
        return None
    union = annotation.copy_with((reduce(or_, variants(inner)),))
    return union | None if NoneType in get_args(inner) else union


def union_of(annotation: Any) -> DocumentUnion | None:
    """Return the declared union of a type; None for other types. Raise RegistrationError if it is incomplete."""
    if is_union(annotation) and len(variants(annotation)) > 1:
        raise unnamed(variants(annotation))
    if get_origin(annotation) is not Annotated:
        return None
    documents = get_args(annotation.__origin__)
    fields = [each for each in annotation.__metadata__ if isinstance(each, FieldInfo)]
    field = next((each for each in fields if each.title), None)
    if field is None or not isinstance(field.discriminator, str) or not field.description:
        raise unnamed(documents)
    kinds = {_kind_of(document, field.discriminator): document for document in documents}
    return DocumentUnion(str(field.title), field.description, field.discriminator, kinds)


def unnamed(types: tuple[Any, ...]) -> RegistrationError:
    """Return the error for a union of other types than documents, or without a name or a discriminator."""
    names = " | ".join(getattr(each, "__name__", str(each)) for each in types)
    if not all(isinstance(each, type) and issubclass(each, BaseModel) for each in types):
        return RegistrationError(f"GraphQL has no type for {names}. Unions consist of documents. Use Any for JSON.")
    return RegistrationError(
        f"The union {names} needs a name, a description and a discriminator. Declare it once as "
        f'`Annotated[{names}, Field(discriminator="kind", title="NameInGraphQL", description="…")]`.'
    )


def _kind_of(document: type[BaseModel], discriminator: str) -> str:
    field = document.model_fields.get(discriminator)
    kind = str(get_args(field.annotation)[0]) if field and is_kind(field.annotation) else ""
    # The kind becomes the name of a member of the input.
    if not kind.isidentifier():
        raise RegistrationError(
            f'{document.__name__} has no kind. Declare `{discriminator}: Literal["…"]` in it, with an identifier.'
        )
    return kind
