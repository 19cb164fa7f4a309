"""References of documents to rows: by id, or by a unique column."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from runstate.errors import InvalidInput, NotFound
from runstate.rows import Row


def reference_of(document: BaseModel) -> dict[str, Any]:
    """Return the column and its value by which an update document refers to a row, in `id` or `by`."""
    reference = getattr(document, "by", None)
    named = {name: value for name, value in reference or (("id", getattr(document, "id", None)),) if value is not None}
    if len(named) != 1:
        raise InvalidInput("Exactly one member must be set.", ["by"])
    return named


def referred_to(row: type[Row], document: BaseModel) -> sa.ColumnElement[bool]:
    """Return the condition that selects the row to which an update document refers."""
    ((name, value),) = reference_of(document).items()
    condition: sa.ColumnElement[bool] = row.__table__.c[name] == value
    return condition


def unknown(document: BaseModel) -> NotFound:
    """Return the problem for a document that refers to an unknown id or name."""
    ((name, value),) = reference_of(document).items()
    return NotFound(value) if name == "id" else NotFound(message=f"No object has the {name} `{value}`.")
