"""Problems: mistakes of clients as members of the unions that mutations return, derived from `runstate.errors`."""

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, get_type_hints

import strawberry

from runstate import errors
from runstate.graphql.types.derive import class_of, graphql_type_of, texts
from runstate.graphql.types.fields import description_of, object_type
from runstate.graphql.types.input_values import DEFINITION

PROBLEMS: Final[Sequence[type[errors.Problem]]] = errors.Problem.__subclasses__()

ProblemCode: Any = Enum("ProblemCode", [(each.code, each.code) for each in PROBLEMS])  # type: ignore[misc]
strawberry.enum(ProblemCode, description="Kind of a problem.")
# An enum that is made at run time has no docstrings in a source.
for _value, _kind in zip(getattr(ProblemCode, DEFINITION).values, PROBLEMS, strict=True):
    _value.description = description_of(_kind)


@strawberry.interface(description="A mistake of the client.")
class Problem:
    """A mistake of the client."""

    code: ProblemCode = strawberry.field(description="Kind of the problem.")
    message: str = strawberry.field(description="Explanation for people.")


def _details(kind: type[errors.Problem]) -> dict[str, Any]:
    """Return the types of the attributes that a kind of problem declares itself."""
    hints = get_type_hints(kind)
    return {name: hints[name] for name in vars(kind).get("__annotations__", {})}


def _object_type(kind: type[errors.Problem]) -> type:
    docs = texts(kind)
    fields = {
        name: (graphql_type_of(hint), strawberry.field(description=docs[name])) for name, hint in _details(kind).items()
    }
    return object_type(class_of(kind.__name__, (Problem,), fields, __doc__=kind.__doc__, __module__=__name__))


TYPES: Final = {kind: _object_type(kind) for kind in PROBLEMS}
"""The GraphQL type of each kind of problem."""


def as_object(error: errors.Problem) -> Any:
    """Return the GraphQL object of a problem."""
    kind = type(error)
    values = {name: getattr(error, name) for name in _details(kind)}
    details = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return TYPES[kind](code=ProblemCode(error.code), message=error.message, **details)
