"""Conversion of GraphQL's values to inputs and arguments."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from typing import Any, Final

from strawberry.types.base import StrawberryList, StrawberryOptional
from strawberry.types.field import StrawberryField
from strawberry.types.lazy_type import LazyType
from strawberry.utils.str_converters import to_camel_case

DEFINITION: Final = "__strawberry_definition__"
Convert = Callable[[Any], Any]


def read(cls: type, value: Mapping[str, Any], _: object) -> Any:
    """Return the input for GraphQL's values. Strawberry's own function inspects the types of all members each time."""
    known, blank = _reading(cls)
    if check := getattr(cls, "check_members", None):
        check(value)
    given = dict(blank)
    for name, each in value.items():
        member, convert = known[name]
        given[member] = convert(each) if convert and each is not None else each
    return made(cls, given)


def made(cls: type, members: Mapping[str, Any]) -> Any:
    """Return an input with these members."""
    # The constructor would set each default again.
    result: Any = object.__new__(cls)
    result.__dict__.update(members)
    return result


@functools.cache
def _reading(cls: type) -> tuple[Mapping[str, tuple[str, Convert | None]], Mapping[str, Any]]:
    """Return Python names and conversions of the members by GraphQL name, and their defaults by Python name."""
    fields = getattr(cls, DEFINITION).fields
    known = {
        field.graphql_name or to_camel_case(field.python_name): (field.python_name, _converted(field.type))
        for field in fields
    }
    return known, {field.python_name: _default(field) for field in fields}


def _default(field: StrawberryField) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def member_names(cls: type) -> dict[str, str]:
    """Return the Python names of the members of an input, by their GraphQL names."""
    return {name: member for name, (member, _) in _reading(cls)[0].items()}


def _converted(kind: Any) -> Convert | None:
    """Return the conversion of non-null values of a type; None if they stay as they are."""
    if isinstance(kind, StrawberryOptional):
        return _converted(kind.of_type)
    if isinstance(kind, StrawberryList):
        item = _converted(kind.of_type)
        return list if item is None else lambda values: [None if each is None else item(each) for each in values]
    if isinstance(kind, LazyType):
        return _converted(kind.resolve_type())
    is_input = isinstance(kind, type) and getattr(getattr(kind, DEFINITION, None), "is_input", False)
    return (lambda value: read(kind, value, None)) if is_input else None


def arguments(field: StrawberryField) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return the function that converts the arguments of a field."""
    known = {
        each.graphql_name or to_camel_case(each.python_name): (each.python_name, _converted(each.type))
        for each in field.arguments
    }

    def read_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
        return {
            known[name][0]: convert(value) if (convert := known[name][1]) and value is not None else value
            for name, value in given.items()
        }

    return read_arguments
