"""The executor: what was stored is answered by a plan, everything else as GraphQL's own executor does it.

A selection is planned once for a document and the variables that its `@skip` and `@include` read. A plan reads stored
values and turns them into JSON without the library's path for a single field; in lists it follows references for all
objects together. **Nothing that a plan does has effects.** So whatever is unusual, a null that may not be, a number out of
range, a row that is gone, is left to the library, which does it again and says exactly what it always says.
"""

import asyncio
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import partial
from math import isfinite
from operator import attrgetter, itemgetter
from typing import Any, ClassVar, Final, NamedTuple, cast
from uuid import UUID

from graphql import (
    DirectiveNode,
    ExecutionResult,
    FieldNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    Node,
    OperationDefinitionNode,
    OperationType,
    Undefined,
    VariableNode,
    Visitor,
    is_abstract_type,
    is_leaf_type,
    visit,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, GroupedFieldSet, collect_fields
from graphql.pyutils import AwaitableOrValue, Path, gather_with_cancel
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField
from typing_extensions import override

from runstate.graphql.derive import DEFINITION, Follows
from runstate.graphql.scalars import DateTime
from runstate.graphql.selection import Columns, columns
from runstate.rows import Base

BACKREF: Final = "strawberry-definition"
LARGEST_INT: Final = 2**31 - 1
CONDITIONS: Final = ("skip", "include")

Convert = Callable[[Any], Any]


class UnusualError(Exception):
    """What a plan leaves to the library."""


class Table(dict[type, Convert]):
    """How values of each Python type are written; a type that is not there is unusual."""

    def __missing__(self, kind: type) -> Convert:
        for known in (UUID,):
            if known in self and issubclass(kind, known):
                self[kind] = self[known]
                return self[known]
        raise UnusualError


def same(value: Any) -> Any:
    """The value, which is JSON already."""
    return value


def _int(value: int) -> int:
    if -LARGEST_INT - 1 <= value <= LARGEST_INT:
        return value
    raise UnusualError


def _float(value: float) -> float:
    if isfinite(value):
        return value
    raise UnusualError


SCALARS: Final[dict[str, dict[type, Convert]]] = {
    "String": {str: same},
    "ID": {str: same, UUID: str},
    "Int": {int: _int},
    "Float": {float: _float},
    "Boolean": {bool: same},
    "JSON": dict.fromkeys((dict, list, str, int, float, bool), same),
}
"""The scalars whose values are written without asking them."""


def _nothing(_: None) -> None:
    return None


def _written(kind: GraphQLOutputType, made: Callable[[GraphQLObjectType], "Plan | None"]) -> Table | None:
    """How values of a type are written; None: not without the library."""
    if isinstance(kind, GraphQLNonNull):
        return _known(kind.of_type, made)
    table = _known(kind, made)
    return None if table is None else Table({**table, type(None): _nothing})


def _known(kind: GraphQLOutputType, made: Callable[[GraphQLObjectType], "Plan | None"]) -> Table | None:
    if isinstance(kind, GraphQLList):
        item = _written(kind.of_type, made)
        return None if item is None else Table(dict.fromkeys((list, tuple), partial(_each, item)))
    if isinstance(kind, GraphQLScalarType):
        return _of_scalar(kind)
    if isinstance(kind, GraphQLEnumType):
        return _of_enum(kind)
    if isinstance(kind, GraphQLObjectType):
        plan = made(kind)
        return Objects(kind, plan) if plan and plan.quick else None
    return None


def _each(item: Table, values: Iterable[Any]) -> list[Any]:
    return [item[type(value)](value) for value in values]


def _of_scalar(kind: GraphQLScalarType) -> Table | None:
    if kind.name == DateTime.name:
        return Table({datetime_type: kind.coerce_output_value})
    return Table(SCALARS[kind.name]) if kind.name in SCALARS else None
