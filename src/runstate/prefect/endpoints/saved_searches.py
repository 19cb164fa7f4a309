"""Saved searches."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import Field

from runstate.core.commands import crud
from runstate.core.commands.saved_searches import CreateSavedSearch, create_saved_search
from runstate.database.bulk import table_of
from runstate.documents.access import Scope
from runstate.documents.searches import SavedSearchFilter
from runstate.prefect import objects
from runstate.prefect.bodies import Body, Page
from runstate.prefect.endpoint import Call, Reply, endpoint
from runstate.prefect.presentation import Object
from runstate.rows import SavedSearch

remove = crud.delete(SavedSearch)


class NewSavedSearch(Body):
    """A saved search."""

    name: str
    filters: Annotated[list[SavedSearchFilter], Field(max_length=100)] = Field(default=[])


@endpoint("PUT", "/saved_searches/", Scope.PROPOSE)
async def save(call: Call, body: NewSavedSearch) -> Reply:
    """Create a saved search, or replace the conditions of the one with this name."""
    made = await create_saved_search(call.context, CreateSavedSearch(name=body.name, filters=body.filters))
    return Reply(_shown(made.row), 201 if made.created else 200)


@endpoint("GET", "/saved_searches/{id}", Scope.READ)
async def read(call: Call) -> Any:
    """Return a saved search."""
    where = SavedSearch.id == call.id()
    return _shown(await objects.only(call, SavedSearch, "saved search", call.id(), where))


@endpoint("POST", "/saved_searches/filter", Scope.READ)
async def read_many(call: Call, body: Page) -> Any:
    """Return a page of saved searches, by name."""
    asked = sa.select(*table_of(SavedSearch).columns).order_by(SavedSearch.name)
    return [_shown(each) for each in await objects.rows(call, SavedSearch, asked.limit(body.limit).offset(body.offset))]


def _shown(row: SavedSearch) -> Object:
    return objects.plain(row) | {"filters": [each.model_dump(mode="json") for each in row.filters]}


@endpoint("DELETE", "/saved_searches/{id}", Scope.PROPOSE, status=204)
async def delete(call: Call) -> None:
    """Delete a saved search."""
    await remove(call.context, call.id())
