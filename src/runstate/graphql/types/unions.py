"""Unions of documents: `Annotated[A | B, Field(discriminator="kind", title="Schedule", description="…")]`.

The title is the name in GraphQL. Answers have a union of the documents; inputs have a `@oneOf` input with a member for
each document, named after its kind: the constant text of the member that the discriminator names.
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
    """The member that tells the documents apart."""
    kinds: dict[str, type[BaseModel]]
    """The documents by their kind."""


def is_union(annotation: Any) -> bool:
    """Whether a type is one of several, null included."""
    return get_origin(annotation) in (Union, UnionType)


def is_enum(annotation: Any) -> bool:
    """Whether a type is an enum."""
    return isinstance(annotation, type) and issubclass(annotation, Enum)


def variants(annotation: Any) -> tuple[Any, ...]:
    """Return the types that a union is made of, without null."""
    return tuple(each for each in get_args(annotation) if each is not NoneType)


def simplified(annotation: Any) -> Any:
    """Return a type without what is annotated on it and on its parts, except on unions of documents."""
    if get_origin(annotation) is Annotated:
        return _simplified_union(annotation) or simplified(annotation.__origin__)
    parts = tuple(map(simplified, get_args(annotation)))
    if parts == get_args(annotation):
        return annotation
    return reduce(or_, parts) if is_union(annotation) else cast("Any", get_origin(annotation))[parts]


def _simplified_union(annotation: Any) -> Any:
    """Return a union of documents with null outside of it; null: the type is no union of documents."""
    inner = annotation.__origin__
    if not is_union(inner) or len(variants(inner)) == 1:
        return None
    union = annotation.copy_with((reduce(or_, variants(inner)),))
    return union | None if NoneType in get_args(inner) else union


def union_of(annotation: Any) -> DocumentUnion | None:
    """Return the union of documents that a type is; RegistrationError if its declaration lacks something."""
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
    """Return the error about a union that has no name, or does not say how its documents are told apart."""
    names = " | ".join(getattr(each, "__name__", str(each)) for each in types)
    if not all(isinstance(each, type) and issubclass(each, BaseModel) for each in types):
        return RegistrationError(f"GraphQL has no type for {names}: a union is of documents. Use Any for a JSON value.")
    return RegistrationError(
        f"The union {names} needs a name, a description and a discriminator. Declare it once as "
        f'`Annotated[{names}, Field(discriminator="kind", title="NameInGraphQL", description="…")]`.'
    )


def _kind_of(document: type[BaseModel], discriminator: str) -> str:
    field = document.model_fields.get(discriminator)
    kind = str(get_args(field.annotation)[0]) if field and is_kind(field.annotation) else ""
    if not kind.isidentifier():
        raise RegistrationError(
            f'{document.__name__} has no kind. Declare `{discriminator}: Literal["…"]` in it, with a name as the text.'
        )
    return kind
