"""Saved searches: savedSearch, savedSearches, createSavedSearch, deleteSavedSearch."""

from runstate.core.commands import crud, saved_searches
from runstate.documents.access import Scope
from runstate.graphql.families.family import Command, Delete, Family, by_reference, creation, deletion
from runstate.graphql.pagination.connection import rows_of
from runstate.graphql.published import SavedSearch

CREATE = Command(
    saved_searches.create_saved_search,
    saved_searches.CreateSavedSearch,
    description="Create a saved search, or replace all conditions of the one with this name.",
)
FAMILY = Family(
    SavedSearch,
    {
        "saved_search": by_reference(SavedSearch, "name"),
        "saved_searches": rows_of(SavedSearch, "All saved searches that meet a condition, by name."),
    },
    {
        "create_saved_search": creation(SavedSearch, CREATE, Scope.PROPOSE),
        "delete_saved_search": deletion(SavedSearch, Delete(crud.delete(SavedSearch)), Scope.PROPOSE),
    },
)
