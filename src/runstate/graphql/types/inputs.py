"""What clients send: `Input[Document]` has the members of a document, which checks them."""

from collections.abc import Callable, Collection
from types import NoneType
from typing import Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin

import strawberry
from pydantic import BaseModel, ValidationError
from strawberry import UNSET
from strawberry.utils.str_converters import to_camel_case

from runstate.documents.base import Changes
from runstate.errors import InvalidInput
from runstate.graphql.types.derive import Member, class_of, graphql_type_of, list_of, members, optional, register_type
from runstate.graphql.types.fields import description_of, input_type

M = TypeVar("M", bound=BaseModel)

Convert = Callable[[Any], Any]

MESSAGES = {
    "uuid_parsing": "The value is not a valid UUID.",
    "missing": "The field is required.",
}
"""Messages instead of Pydantic's, by type of error."""
SHOWN = (bool, int, float, str)
"""Defaults of these types are shown in the schema."""


class Input(Generic[M]):
    """The members of a document, as a client gave them; `Input[ProposeState]` is the input `ProposeStateInput`."""

    model: ClassVar[type[BaseModel]]

    def values(self) -> dict[str, Any]:
        """What was given, by the names of the document. Null for what is never null counts as not given."""
        given = {name: value for name, value in vars(self).items() if value is not UNSET}
        return {name: _plain(value) for name, value in given.items() if value is not None or self.may_be_null(name)}

    def checked(self) -> M:
        """The document, or `InvalidInput` that says where the first mistake is."""
        try:
            return cast("M", self.model.model_validate(self.values()))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = [to_camel_case(str(part)) for part in first["loc"]]
            message = MESSAGES.get(first["type"]) or first["msg"].removeprefix("Value error, ")
            raise InvalidInput(message, path) from error

    @classmethod
    def may_be_null(cls, name: str) -> bool:
        """Return whether null is passed to the document: as a value, or as a mistake in an update.

        In other documents, null for a member that is never null counts as omitted.
        """
        annotation = cls.model.model_fields[name].annotation
        return issubclass(cls.model, Changes) or annotation is Any or NoneType in get_args(annotation)

    @classmethod
    def __class_getitem__(cls, model: Any) -> type:
        if not isinstance(model, type):
            return cls
        if "__input__" not in vars(model):
            register_input(model)
        return cast("type", vars(model)["__input__"])


def register_input(
    model: type[BaseModel], *, name: str | None = None, only: Collection[str] | None = None, one_of: bool = False
) -> None:
    """Make an input of a document.

    With `only` it is of a part of the document, and every member may be left out; with `one_of` exactly one member
    is given.
    """
    whole = only is None and not one_of
    held = [member for member in members(model) if only is None or member.name in only]
    fields = {member.name: _asked(model, member, whole=whole) for member in held}
    known_as = name or f"{model.__name__}Input"
    made = class_of(known_as, (Input,), fields, __doc__=description_of(model), __module__=__name__, model=model)
    given: type = input_type(name=known_as, one_of=one_of)(made)
    setattr(model, "__input__", given)  # noqa: B010 a class has no such attribute


def _asked(model: type[BaseModel], member: Member, *, whole: bool) -> tuple[Any, Any]:
    field, kind = model.model_fields[member.name], _kind(member.type)
    if whole and field.is_required():
        return kind, strawberry.field(description=member.doc)
    if whole and isinstance(field.default, SHOWN):
        return kind, strawberry.field(description=member.doc, default=field.default)
    return optional(kind), strawberry.field(description=member.doc, default=UNSET)


def _kind(annotation: Any) -> Any:
    """How an input calls a type: documents are inputs of their own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Input.__class_getitem__(annotation)
    arguments = [argument for argument in get_args(annotation) if argument is not NoneType]
    if NoneType in get_args(annotation):
        return optional(_kind(arguments[0]))
    if get_origin(annotation) in (list, tuple):
        return list_of(_kind(arguments[0]))
    register_type(*(kind for kind in [annotation] if isinstance(kind, type) and hasattr(kind, "__members__")))
    return graphql_type_of(annotation)


def _plain(value: Any) -> Any:
    if isinstance(value, Input):
        return value.values()
    return [_plain(item) for item in value] if isinstance(value, list) else value
