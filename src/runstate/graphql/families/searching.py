"""Application of saved searches: savedSearch { flowRuns taskRuns deployments }."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import strawberry
from graphql import GraphQLSchema, Undefined
from graphql.utilities import coerce_input_value, validate_input_value
from strawberry.utils.str_converters import to_camel_case

from runstate.documents.searches import SavedSearchFilter
from runstate.errors import BadUserInput
from runstate.graphql.pagination.connection import searched_by
from runstate.graphql.published import Deployment, FlowRun, Row, SavedSearch, TaskRun
from runstate.graphql.types.derive import definition_of
from runstate.graphql.types.fields import DEFINED_BY
from runstate.graphql.types.input_values import read

OBJECTS: Final[Mapping[str, type[Row]]] = {"flow_run": FlowRun, "task_run": TaskRun, "deployment": Deployment}
"""Rows by the names that saved searches have for them."""
WHOLE: Final = "where"
"""Property of a condition whose value is a complete `Where`."""
OPERATIONS: Final[Mapping[str, str]] = {"equals": "eq", "not_equals": "ne", "any": "in", "any_": "in"}
"""Other names of comparisons; all comparisons of the schema have their own."""


def condition(schema: GraphQLSchema, name: str, filters: Iterable[SavedSearchFilter]) -> Any:
    """Return the `Where` of the conditions on objects of one kind. Raise BadUserInput if one cannot be applied."""
    where = f"{definition_of(OBJECTS[name]).name}Where"
    kind: Any = schema.get_type(where)
    given = {"and": [_member(each) for each in filters if each.object == name]}
    value = coerce_input_value(given, kind)
    if value is Undefined:
        errors: list[str] = []
        validate_input_value(given, kind, lambda error, _: errors.append(error.message), hide_suggestions=True)
        raise BadUserInput(f"The saved search cannot be applied as {where}: {errors[0]}")
    return read(kind.extensions[DEFINED_BY].origin, value, None)


def _member(filter_: SavedSearchFilter) -> Any:
    if filter_.property == WHOLE:
        return filter_.value
    operation = OPERATIONS.get(filter_.operation, filter_.operation)
    return {to_camel_case(filter_.property): {to_camel_case(operation): filter_.value}}


def _found(name: str) -> Any:
    def where(root: SavedSearch, info: strawberry.Info[Any, Any], further: Any) -> Any:
        found = condition(info._raw_info.schema, name, root.filters)  # noqa: SLF001
        found.and_ += [further] if further else []
        return found

    return where


for _name, _row in OBJECTS.items():
    searched_by(
        SavedSearch,
        f"{_name}s",
        _row,
        {"filters"},
        _found(_name),
        f"Objects that meet the conditions with the object `{_name}`; all of them without such a condition.",
    )
