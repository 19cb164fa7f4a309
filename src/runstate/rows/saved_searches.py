"""Saved searches."""

from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.base import ShortText
from runstate.documents.searches import SavedSearchFilters
from runstate.rows.base import NOT_FILTERABLE, DocumentColumn, Row


class SavedSearch(Row):
    """Conditions that people want to use again. Conditions on objects of the server can be applied to these."""

    __tablename__ = "saved_search"
    __order__, __indexed__ = ("name",), ("created", "updated")

    name: Mapped[ShortText] = mapped_column(unique=True, doc="Unique name, at most 255 characters.")
    filters: Mapped[SavedSearchFilters] = mapped_column(
        DocumentColumn(SavedSearchFilters),
        default=list,
        info=NOT_FILTERABLE,
        doc="The conditions, in the given order; at most 100.",
    )
