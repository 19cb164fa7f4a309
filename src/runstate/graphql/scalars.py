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
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.(?P<fraction>\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
LARGEST_INTEGER: Final = 2**64 - 1
SMALLEST_INTEGER: Final = -(2**63)


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


def storable(value: Any) -> Any:
    """A JSON value as it can be kept: finite numbers, integers beyond 64 bits as floats, no NUL in texts."""
    match value:
        case str() if "\0" in value:
            raise GraphQLError("A text in JSON cannot hold the NUL character.")
        case float() if not isfinite(value):
            raise GraphQLError("A number in JSON is finite.")
        case bool():
            return value
        case int() if not SMALLEST_INTEGER <= value <= LARGEST_INTEGER:
            return storable(_as_float(value))
        case list():
            return [storable(item) for item in value]
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
    return value


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def json_value(value: Any) -> Any:
    """A JSON value that was parsed from JSON, where numbers are finite and fit already."""
    return storable(value) if b"\\u0000" in orjson.dumps(value) else value


def json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """A JSON value that was written into the document."""
    return storable(value_from_ast_untyped(node, variables))


DateTime: Final = strawberry.scalar(
    name="DateTime",
    description="An instant as in RFC 3339: refused without an offset, answered in UTC as Z with six fraction digits.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=written,
    parse_value=instant,
)

JSON: Final = strawberry.scalar(
    name="JSON",
    description="Any JSON value. Numbers are finite; texts hold no NUL character.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    serialize=lambda value: value,
    parse_value=json_value,
    parse_literal=json_literal,
)

SCALARS: Final[dict[object, ScalarDefinition]] = {datetime: DateTime, strawberry.scalars.JSON: JSON}
"""Which scalar stands for which Python type."""
