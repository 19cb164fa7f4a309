"""Saved searches."""

from sqlalchemy.orm import Mapped, mapped_column

from runstate.documents.base import ShortText
from runstate.documents.searches import SavedSearchFilters
from runstate.rows.base import NOT_FILTERABLE, DocumentColumn, Row


class SavedSearch(Row):
    """Conditions that people want to use again, in their own terms. The server does not interpret them."""

    __tablename__ = "saved_search"
    __order__, __indexed__ = ("name",), ("created", "updated")

    name: Mapped[ShortText] = mapped_column(unique=True, doc="Unique name, at most 255 characters.")
    filters: Mapped[SavedSearchFilters] = mapped_column(
        DocumentColumn(SavedSearchFilters),
        default=list,
        info=NOT_FILTERABLE,
        doc="The conditions, in the given order; at most 100.",
    )
