"""Instants and JSON values, as clients write and read them."""

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import orjson
import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

RFC_3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]([01]\d|2[0-3]):\d{2}:\d{2}(\.(?P<fraction>\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def instant(value: Any) -> datetime:
    """The instant that a text in the form of RFC 3339 names; digits after the microseconds are dropped."""
    if not isinstance(value, str) or not (match := RFC_3339.fullmatch(value)):
        raise GraphQLError("A DateTime is a text as in RFC 3339, with an offset: 2026-01-02T03:04:05Z.")
    text = value.upper()
    if match["fraction"]:
        start, end = match.span("fraction")
        text = text[:start] + text[start:end][:6].ljust(6, "0") + text[end:]
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise GraphQLError(f"There is no such instant: {value}") from error


def written(value: datetime) -> str:
    """An instant in UTC with six fractional digits."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def dumped(answer: object) -> bytes:
    """An answer as JSON. Ids and instants may be in it as they are: they are written as the schema says."""
    return orjson.dumps(answer, option=orjson.OPT_UTC_Z)


def json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A JSON value that was written into the document; one in the variables was parsed from JSON already."""
    return finite(value_from_ast_untyped(node, variables))


def finite(value: Any) -> Any:
    """A JSON value, if its numbers are finite."""
    match value:
        case float() if not isfinite(value):
            raise GraphQLError("A number in JSON is finite.")
        case list():
            return [finite(item) for item in value]
        case dict():
            return {key: finite(item) for key, item in value.items()}
    return value


DateTime: Final = strawberry.scalar(
    name="DateTime",
    description="An instant as in RFC 3339: refused without an offset, answered in UTC as Z with six fraction digits.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=written,
    parse_value=instant,
)

JSON: Final = strawberry.scalar(
    name="JSON",
    description="Any JSON value. Numbers are finite.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    serialize=lambda value: value,
    parse_value=lambda value: value,
    parse_literal=json_literal,
)

SCALARS: Final[dict[object, ScalarDefinition]] = {datetime: DateTime, strawberry.scalars.JSON: JSON}
"""Which scalar stands for which Python type."""
