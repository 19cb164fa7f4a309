"""References of documents to rows: by id, or by a unique column."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel

from runstate.errors import InvalidInput, NotFound
from runstate.rows import Row


def referred_to(row: type[Row], document: BaseModel) -> sa.ColumnElement[bool]:
    """Return the condition that selects the row to which an update document refers, by `id` or `by`."""
    ((name, value),) = _key(document)
    condition: sa.ColumnElement[bool] = row.__table__.c[name] == value
    return condition


def unknown(document: BaseModel) -> NotFound:
    """Return the problem for a document that refers to an unknown id or name."""
    ((name, value),) = _key(document)
    return NotFound(value) if name == "id" else NotFound(message=f"No object has the {name} `{value}`.")


def _key(document: BaseModel) -> list[tuple[str, Any]]:
    reference = getattr(document, "by", None)
    named = [
        (name, value) for name, value in reference or (("id", getattr(document, "id", None)),) if value is not None
    ]
    if len(named) != 1:
        raise InvalidInput("Exactly one member must be set.", ["by"])
    return named
