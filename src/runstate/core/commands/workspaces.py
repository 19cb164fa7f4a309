"""The workspace: one server is one workspace of one account. Its names are kept in the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from runstate.core.commands.command import command
from runstate.core.commands.crud import change, columns_of
from runstate.core.context import CommandContext
from runstate.database.driver import fetch
from runstate.documents.workspaces import UpdateWorkspace
from runstate.errors import InvalidInput
from runstate.rows import Configuration


def camel(name: str) -> str:
    """Return the name of a member as clients know it."""
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


KEY: Final = "runstate.workspace"
"""Key of the row that the first migration of the workspace inserts, with the ids of account and workspace."""


async def read_workspace(connection: AsyncConnection) -> dict[str, Any]:
    """Return the ids and names of the workspace."""
    ((value,),) = await fetch(connection, sa.select(Configuration.value).where(Configuration.key == KEY))
    found: dict[str, Any] = value
    return found


@command(Configuration)
async def update_workspace(context: CommandContext, document: UpdateWorkspace) -> Mapping[str, Any]:
    """Update the given names of the workspace; return all."""
    given = columns_of(document)
    if null := next((name for name, value in given.items() if value is None), None):
        raise InvalidInput("null is not allowed; omit the field to keep its value", [camel(null)])
    async with context.database.write() as transaction:
        connection = transaction.connection
        # Locked, so that two updates of different names are both kept.
        await connection.execute(sa.select(Configuration.id).where(Configuration.key == KEY).with_for_update())
        value = await read_workspace(connection) | given
        await change(connection, Configuration, {"key": KEY}, {"value": value}, context.clock())
    return value
