"""Saved searches."""

from __future__ import annotations

from typing import Any

from runstate.core.commands.command import command
from runstate.core.commands.crud import Written, change, fresh, insert_or_find, new_columns
from runstate.core.context import CommandContext
from runstate.rows import SavedSearch
from runstate.rows.documents import create_document

CreateSavedSearch = create_document(SavedSearch)


@command(SavedSearch)
async def create_saved_search(context: CommandContext, document: Any) -> Written[SavedSearch]:
    """Create a saved search, or replace all conditions of the one with this name."""
    columns = new_columns(SavedSearch, document)
    async with context.database.write() as transaction:
        connection = transaction.connection
        found = await insert_or_find(connection, SavedSearch, fresh(context) | columns, ("name",), lock=True)
        if found.created:
            return found
        filters = {"filters": columns["filters"]}
        changed = await change(connection, SavedSearch, {"id": found.row.id}, filters, context.clock())
        return Written(changed or found.row, created=False)
