"""Inputs: `Input[Document]` has the members of a document, which validates them."""

from collections.abc import Callable, Collection
from functools import cache, partial
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

import orjson
import strawberry
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from runstate.documents.base import Changes, Document, is_read_only
from runstate.errors import InvalidInput
from runstate.graphql.types.deferred import lazy_type
from runstate.graphql.types.derive import (
    Member,
    class_of,
    define_type,
    graphql_type_of,
    list_of,
    members,
    optional,
)
from runstate.graphql.types.fields import description_of, input_type, named
from runstate.graphql.types.registry import REGISTRY, InputOptions, RegistrationError
from runstate.graphql.types.unions import DocumentUnion, is_enum, is_union, simplified, union_of, variants

M = TypeVar("M", bound=BaseModel)

Convert = Callable[[Any], Any]

MESSAGES = {
    "uuid_parsing": "The value is not a valid UUID.",
    "missing": "The field is required.",
}
"""Messages that replace Pydantic's, by type of error."""
HINTS = {
    "flow_id": "Did you mean the name of a flow? Use `runFlow` or `deployFlow` with `flow: {{name: {name}}}`.",
    "deployment_id": "Did you mean the name of a deployment? Use `deployment: {{flow: …, name: {name}}}` instead.",
    "id": "Did you mean `name: {name}`?",
}
"""What to do instead of giving a name as an id, by member."""
LONGEST_NAME = 255
SHOWN = (bool, int, float, str)
"""Types of the defaults that the schema shows."""


class Input(Generic[M]):
    """The members of a document as a client sent them; `Input[ProposeState]` is the input `ProposeStateInput`."""

    document_class: ClassVar[Any]
    """The document, or the union of documents."""
    make_document: ClassVar[Callable[[Any], Any]]
    """Returns the document with these members; raises ValidationError."""

    def member_values(self) -> dict[str, Any]:
        """Return the values that were sent, by the names of the document, except null where `may_be_null` is false."""
        given = {name: value for name, value in vars(self).items() if value is not UNSET}
        return {name: _plain(value) for name, value in given.items() if value is not None or self.may_be_null(name)}

    def checked(self) -> M:
        """Return the document. Raise InvalidInput with the path of the first mistake."""
        try:
            return cast("M", type(self).make_document(self.member_values()))
        except ValidationError as error:
            # The first mistake only: others often follow from it.
            first = error.errors(include_url=False, include_context=False)[0]
            path = [to_camel_case(str(part).rstrip("_")) for part in first["loc"]]
            # Pydantic puts a prefix before the messages of validators.
            message = MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
            raise InvalidInput(message + _hint(first), path) from error

    @classmethod
    def may_be_null(cls, name: str) -> bool:
        """Return whether null is passed to the document: as a value, or as a mistake in an update.

        In other documents, null for a member that cannot be null counts as omitted.
        """
        annotation = cls.document_class.model_fields[name].annotation
        # An update distinguishes null from an omitted member, so null must reach the document to be refused there.
        return issubclass(cls.document_class, Changes) or annotation is Any or NoneType in get_args(annotation)

    @classmethod
    def __class_getitem__(cls, model: Any) -> Any:
        annotation = simplified(model)
        if union := union_of(annotation):
            make = partial(_of_union, annotation, union)
            return lazy_type(f"{union.name}Input", lambda: REGISTRY.make(Input, annotation, make))
        # Generic classes are also subscripted with type variables.
        if not isinstance(model, type):
            return cls
        return lazy_type(f"{model.__name__}Input", lambda: _input_of(_extended(model)))


def _input_of(model: type[BaseModel]) -> type:
    return REGISTRY.make(Input, model, lambda: _of_document(model))


# Strawberry resolves the type of an argument with each of its values.
@cache
def _extended(model: type[BaseModel]) -> type[BaseModel]:
    """Return the base of a document that adds no member to it, since they share one input; else the document."""
    base = model.__base__
    if model in REGISTRY.inputs or base is None or not issubclass(base, Document) or not base.model_fields:
        return model
    return _extended(base) if members(base) == members(model) else model


def _hint(error: ErrorDetails) -> str:
    """Return a proposal for an input with a name in place of an id; empty for other errors."""
    name, (*outer, member) = error["input"], error["loc"] or ("",)
    is_name = error["type"] == "uuid_parsing" and isinstance(name, str) and 0 < len(name) <= LONGEST_NAME
    # An id alone, or in `by`, says what it is of: only references inside an input are taken for names.
    if not is_name or member not in HINTS or (member == "id" and outer in ([], ["by"])):
        return ""
    return " " + HINTS[str(member)].format(name=orjson.dumps(name).decode())


class UnionInput(Input[M]):
    """An input with one member for each document of a union. Exactly one of them is set."""

    document_union: ClassVar[DocumentUnion]
    bare_kinds: ClassVar[frozenset[str]]
    """Kinds of documents whose only member is a Boolean named as the kind. The input has that Boolean itself."""

    def member_values(self) -> dict[str, Any]:
        """Return the members of the document that is set, and its kind."""
        return self.as_document({kind: _plain(value) for kind, value in vars(self).items() if value is not UNSET})

    @classmethod
    def as_document(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the members of the document that is set, and its kind."""
        ((kind, value),) = values.items()
        inner = {kind: value} if kind in cls.bare_kinds else value
        return {cls.document_union.discriminator: kind, **inner}


def register_input(
    model: type[BaseModel], *, name: str | None = None, only: Collection[str] | None = None, one_of: bool = False
) -> None:
    """Declare how the input of a document differs from the document.

    With `only`, the input has these members, and all are optional. With `one_of`, exactly one member must be set.
    """
    REGISTRY.require_open(model, f"The input of {model.__name__}")
    if model in REGISTRY.inputs:
        raise RegistrationError(f"The input of {model.__name__} is registered twice. Register it once.")
    REGISTRY.inputs[model] = InputOptions(name, only, one_of)


def _of_document(model: type[BaseModel]) -> type:
    """Make the input of a document."""
    options = REGISTRY.inputs.get(model, InputOptions())
    only = options.only
    chosen = _writable(model) if only is None else [member for member in members(model) if member.name in only]
    whole = only is None and not options.one_of
    fields = {member.name: _input_field(model, member, whole=whole) for member in chosen}
    name = options.name or f"{model.__name__}Input"
    more = {"document_class": model, "make_document": model.model_validate}
    made = class_of(name, (Input,), fields, __doc__=description_of(model), __module__=__name__, **more)
    return input_type(name=name, one_of=options.one_of)(made)


def _of_union(annotation: Any, union: DocumentUnion) -> type:
    """Make the input of a union of documents."""
    bare = frozenset(kind for kind, document in union.kinds.items() if _is_bare(document, kind))
    fields = {kind: _variant(document, bool if kind in bare else document) for kind, document in union.kinds.items()}
    name = f"{union.name}Input"
    made = class_of(
        name,
        (UnionInput,),
        fields,
        __doc__=f"{union.description} Exactly one member must be set.",
        __module__=__name__,
        document_class=annotation,
        make_document=TypeAdapter[Any](annotation).validate_python,
        document_union=union,
        bare_kinds=bare,
    )
    return input_type(name=name, one_of=True)(made)


def _variant(document: type[BaseModel], annotation: Any) -> tuple[Any, Any]:
    return optional(_kind(annotation)), strawberry.field(description=description_of(document), default=UNSET)


def _is_bare(document: type[BaseModel], kind: str) -> bool:
    return [(member.name, member.type) for member in members(document)] == [(kind, bool)]


def _writable(model: type[BaseModel]) -> list[Member]:
    return [member for member in members(model) if not is_read_only(model.model_fields[member.name])]


def _input_field(model: type[BaseModel], member: Member, *, whole: bool) -> tuple[Any, Any]:
    field, kind = model.model_fields[member.name], _member_kind(model, member)
    shown: dict[str, Any] = {"name": named(member.name), "description": member.doc}
    if whole and field.is_required():
        return kind, strawberry.field(**shown)
    if whole and isinstance(field.default, SHOWN):
        return kind, strawberry.field(**shown, default=field.default)
    if whole and isinstance(field.default, list | tuple) and all(isinstance(item, SHOWN) for item in field.default):
        # Strawberry's types are dataclasses, which accept no mutable default.
        return kind, strawberry.field(**shown, default_factory=partial(list, field.default))
    return optional(kind), strawberry.field(**shown, default=UNSET)


def _member_kind(model: type[BaseModel], member: Member) -> Any:
    try:
        return _kind(member.type)
    except RegistrationError as error:
        raise RegistrationError(f"{model.__name__}.{member.name}: {error}") from error


def _kind(annotation: Any) -> Any:
    """Return the GraphQL type of a member of an input. Documents and unions of documents are inputs themselves."""
    if union_of(annotation) or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return Input.__class_getitem__(annotation)
    if is_union(annotation):
        return optional(_kind(variants(annotation)[0]))
    if get_origin(annotation) in (list, tuple):
        return list_of(_kind(get_args(annotation)[0]))
    # An enum that no answer has is not defined yet.
    if is_enum(annotation):
        define_type(annotation)
    return graphql_type_of(annotation)


def _plain(value: Any) -> Any:
    if isinstance(value, Input):
        return value.member_values()
    return [_plain(item) for item in value] if isinstance(value, list) else value
