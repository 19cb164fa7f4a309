"""Scalars: instants and JSON values, as clients send and receive them."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import orjson
import strawberry
from graphql import (
    FloatValueNode,
    GraphQLError,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    ValueNode,
    value_from_ast_untyped,
)
from strawberry.types.scalar import ScalarDefinition

from runstate.documents import exact_json

# datetime.fromisoformat() also accepts formats that are not in RFC 3339.
RFC_3339: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]([01]\d|2[0-3]):\d{2}:\d{2}(\.(?P<fraction>\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def instant(value: Any) -> datetime:
    """Return the instant of a text in RFC 3339 format. Digits beyond microseconds are dropped."""
    if not isinstance(value, str) or not (match := RFC_3339.fullmatch(value)):
        raise GraphQLError("A DateTime must be a text in RFC 3339 format with an offset, such as 2026-01-02T03:04:05Z.")
    # RFC 3339 allows `t` and `z`.
    text = value.upper()
    if match["fraction"]:
        start, end = match.span("fraction")
        text = text[:start] + text[start:end][:6].ljust(6, "0") + text[end:]
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise GraphQLError(f"The date or time is out of range: {value}") from error


def written(value: datetime) -> str:
    """Return an instant as text, in UTC with six fractional digits."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


dumped: Final = partial(exact_json.dumps, option=orjson.OPT_UTC_Z)
"""Returns an answer as JSON. UUIDs and datetimes in it are written as the schema defines."""


def json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """Return the JSON value of a literal in a document. Values of variables were parsed with the request."""
    match node:
        case IntValueNode(value=text) | FloatValueNode(value=text):
            # graphql-core would read a double, which has fewer digits.
            return _number(text)
        case ListValueNode(values=values):
            return [json_literal(each, variables) for each in values]
        case ObjectValueNode(fields=fields):
            return {each.name.value: json_literal(each.value, variables) for each in fields}
    return value_from_ast_untyped(node, variables)


def _number(text: str) -> float:
    try:
        number: float = exact_json.loads(text)
    except orjson.JSONDecodeError as error:
        raise GraphQLError(f"Numbers in JSON must be finite: {error}.") from None
    return number


DateTime: Final = strawberry.scalar(
    name="DateTime",
    description="Instant in RFC 3339 format. Input needs an offset; output is in UTC (`Z`) with six fractional digits.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=written,
    parse_value=instant,
)

JSON: Final = strawberry.scalar(
    name="JSON",
    description="Any JSON value. Numbers keep all their digits; they are at most 1.8e308.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    serialize=lambda value: value,
    parse_value=lambda value: value,
    parse_literal=json_literal,
)

SCALARS: Final[dict[object, ScalarDefinition]] = {datetime: DateTime, strawberry.scalars.JSON: JSON}
"""Scalars of Python types."""
