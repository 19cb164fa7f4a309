"""Settings in the database."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, Field

from runstate.core.commands.command import command
from runstate.core.commands.crud import change, fresh, insert_or_find
from runstate.core.context import CommandContext
from runstate.documents.base import Document, Name, storable_json
from runstate.errors import InvalidInput, NotFound
from runstate.rows import Configuration

RESERVED: Final = "runstate."
"""Beginning of the keys of the server's own settings."""
Setting = Annotated[dict[str, Any], AfterValidator(partial(storable_json, at_most=64 * 1024))]


class SetConfiguration(Document):
    """A setting."""

    key: Name = Field(description=f"Unique key. Keys that begin with `{RESERVED}` are those of the server.")
    value: Setting = Field(description="An object, at most 64 KiB.")


@command(Configuration)
async def delete_configuration(context: CommandContext, configuration_id: UUID) -> None:
    """Delete a setting. Those of the server are not found."""
    own = Configuration.key.startswith(RESERVED)
    async with context.database.write() as transaction:
        deleted = sa.delete(Configuration).where(Configuration.id == configuration_id, sa.not_(own))
        if not (await transaction.connection.execute(deleted)).rowcount:
            raise NotFound(configuration_id)


@command(Configuration)
async def set_configuration(context: CommandContext, document: SetConfiguration) -> Configuration:
    """Create or replace a setting."""
    if document.key.startswith(RESERVED):
        raise InvalidInput(f"Keys that begin with `{RESERVED}` are those of the server.", ["key"])
    columns = {"key": document.key, "value": document.value}
    async with context.database.write() as transaction:
        connection = transaction.connection
        found = await insert_or_find(connection, Configuration, fresh(context) | columns, ("key",), lock=True)
        if found.created:
            return found.row
        value = {"value": document.value}
        return await change(connection, Configuration, {"id": found.row.id}, value, context.clock()) or found.row
