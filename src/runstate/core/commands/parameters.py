"""Parameters of runs, checked against the schema of their deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runstate.core.context import CommandContext
from runstate.documents.states import Json

MOST_REFERENCES: Final = 10
"""Longest chain of references that is followed to a default."""


async def check_schema(context: CommandContext, schema: dict[str, Any] | None) -> None:
    """Raise InvalidInput if a JSON schema of parameters is invalid."""
    if schema:
        await context.json_schemas.check(schema, ("parameterSchema",))


def defaults_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the properties of a JSON schema; references within the schema are resolved."""
    properties = schema.get("properties")
    found = {name: _resolved(each, schema) for name, each in _object(properties).items()}
    return {name: each["default"] for name, each in found.items() if "default" in each}


def _resolved(part: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a part of a schema, with what it refers to below its own members."""
    members: Mapping[str, Any] = _object(part)
    for _ in range(MOST_REFERENCES):
        reference = members.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        target: Any = schema
        for name in reference[2:].split("/"):
            # JSON pointers escape `/` and `~`; in this order, because `~01` means `~1`.
            target = _object(target).get(name.replace("~1", "/").replace("~0", "~"))
        members = {**_object(target), **{key: value for key, value in members.items() if key != "$ref"}}
    return members


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


async def check_parameters(
    context: CommandContext, schema: dict[str, Any], parameters: Json, path: tuple[str, ...], *, complete: bool
) -> None:
    """Raise InvalidInput unless parameters conform to a schema; required ones may be missing unless `complete`.

    A required parameter with a default is not missing.
    """
    if schema and complete:
        await context.json_schemas.validate(defaults_of(schema) | parameters, schema, path)
    elif schema:
        asked = {key: value for key, value in schema.items() if key != "required"}
        await context.json_schemas.validate(parameters, asked, path)
