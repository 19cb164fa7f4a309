"""Conditions of saved searches."""

from typing import Annotated

from pydantic import Field

from runstate.documents.base import Document, JsonValue, ShortText


class SavedSearchFilter(Document):
    """A condition of a saved search."""

    object: ShortText = Field(description="The searched objects: `flow_run`, `deployment`, …")
    property: ShortText = Field(description="The property that is compared.")
    type: ShortText = Field(description="Type of the property: `string`, …")
    operation: ShortText = Field(description="The comparison: `equals`, …")
    value: JsonValue | None = Field(default=None, description="The value that the property is compared with.")


SavedSearchFilters = Annotated[list[SavedSearchFilter], Field(max_length=100)]
