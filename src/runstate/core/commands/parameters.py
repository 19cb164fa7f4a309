"""Parameters of runs, checked against the schema of their deployment."""

from __future__ import annotations

from typing import Any

from runstate.core.context import CommandContext
from runstate.documents.states import Json


async def check_schema(context: CommandContext, schema: dict[str, Any] | None) -> None:
    """Raise InvalidInput if a JSON schema of parameters is invalid."""
    if schema:
        await context.json_schemas.check(schema, ("parameterSchema",))


async def check_parameters(
    context: CommandContext, schema: dict[str, Any], parameters: Json, path: tuple[str, ...], *, complete: bool
) -> None:
    """Raise InvalidInput unless parameters conform to a schema; required ones may be missing unless `complete`."""
    if schema:
        asked = schema if complete else {key: value for key, value in schema.items() if key != "required"}
        await context.json_schemas.validate(parameters, asked, path)
