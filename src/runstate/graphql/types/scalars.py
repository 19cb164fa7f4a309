"""Scalars: instants and JSON values, as clients send and receive them."""

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import orjson
import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

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


def dumped(answer: object) -> bytes:
    """Return an answer as JSON. UUIDs and datetimes in it are written as the schema defines."""
    return orjson.dumps(answer, option=orjson.OPT_UTC_Z)


def json_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    """Return the JSON value of a literal in a document. Values of variables were parsed with the request."""
    return finite(value_from_ast_untyped(node, variables))


def finite(value: Any) -> Any:
    """Return a JSON value. Raise GraphQLError if a number in it is not finite."""
    match value:
        # The literal 1e999 is parsed as infinity.
        case float() if not isfinite(value):
            raise GraphQLError("Numbers in JSON must be finite.")
        case list():
            return [finite(item) for item in value]
        case dict():
            return {key: finite(item) for key, item in value.items()}
    return value


DateTime: Final = strawberry.scalar(
    name="DateTime",
    description="Instant in RFC 3339 format. Input needs an offset; output is in UTC (`Z`) with six fractional digits.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=written,
    parse_value=instant,
)

JSON: Final = strawberry.scalar(
    name="JSON",
    description="Any JSON value. Numbers must be finite.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
    serialize=lambda value: value,
    parse_value=lambda value: value,
    parse_literal=json_literal,
)

SCALARS: Final[dict[object, ScalarDefinition]] = {datetime: DateTime, strawberry.scalars.JSON: JSON}
"""Scalars of Python types."""
