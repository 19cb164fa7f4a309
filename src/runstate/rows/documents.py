"""Documents derived from rows: the inputs of commands that create, update and refer to rows.

The row declares names, types, validation and descriptions. A family adds only members that are not columns.
"""

import functools
from collections.abc import Collection, Iterator
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints
from uuid import UUID

import sqlalchemy as sa
from pydantic import BeforeValidator, Field, create_model

from runstate.documents.base import Changes, Document, Name, not_null
from runstate.rows.base import CREATE_ONLY, PRIVATE, READ_ONLY, REQUIRED, Row, is_marked

Fields = dict[str, tuple[Any, Any]]
"""Members of a document: the type and Pydantic's `Field` of each."""


class Writable(NamedTuple):
    """A column that clients write."""

    name: str
    annotation: Any
    column: sa.Column[Any]


def writable(row: type[Row], *, once: bool) -> Iterator[Writable]:
    """Yield the columns that clients write, on creation (`once`) or in updates: some are set on creation only."""
    hidden = (PRIVATE, READ_ONLY) if once else (PRIVATE, READ_ONLY, CREATE_ONLY)
    hints = get_type_hints(row, include_extras=True)
    for column in sa.inspect(row).columns:
        if not any(is_marked(column, mark) for mark in hidden):
            (annotation,) = get_args(hints[str(column.key)])
            yield Writable(str(column.key), annotation, column)


def create_document(
    row: type[Row], *, without: Collection[str] = (), doc: str = "", called: str = "", **more: Any
) -> Any:
    """Return the document for the creation of a row: `CreateFlow` for `Flow`. `more` adds or replaces members."""
    fields: Fields = {}
    for name, annotation, column in writable(row, once=True):
        is_required = is_marked(column, REQUIRED) or (column.default is None and not column.nullable)
        fields[name] = annotation, Field(default=... if is_required else None, description=column.doc)
    return _document(called or f"Create{row.__name__}", Document, doc or f"A new {noun(row)}.", fields | more, without)


def update_document(
    row: type[Row],
    *,
    by: type[Document] | None = None,
    named: type[Document] | None = None,
    without: Collection[str] = (),
    doc: str = "",
    **more: Any,
) -> Any:
    """Return the document for an update of a row: `UpdateFlow` for `Flow`. `by` refers to the row, by id by default."""
    names = noun(row)
    key = _either(names, named) if named else _key(names, by)
    fields = key | {
        name: (_changed(annotation, column), Field(default=None, description=column.doc))
        for name, annotation, column in writable(row, once=False)
    }
    text = doc or f"Changes to a {names}. Omitted fields keep their value."
    return _document(f"Update{row.__name__}", Changes, text, fields | more, without)


def _key(names: str, by: type[Document] | None) -> Fields:
    """Return the member that names the row: its id, or a reference."""
    if by:
        return {"by": (by, Field(description=f"The {names} to change."))}
    return {"id": (UUID, Field(description=f"Id of the {names}."))}


def _either(names: str, named: type[Document]) -> Fields:
    """Return the members of which one names the row."""
    return {
        "id": (UUID | None, Field(default=None, description=f"Id of the {names}, or else `by`.")),
        "by": (named | None, Field(default=None, description=f"The {names}, by id or by name.")),
    }


def _changed(annotation: Any, column: sa.Column[Any]) -> Any:
    return annotation if column.nullable else Annotated[annotation, BeforeValidator(not_null)]


@functools.cache
def reference_document(row: type[Row], key: str = "name") -> Any:
    """Return the document that refers to a row by id or by a unique column: `FlowRef` for `Flow`."""
    names = noun(row)
    fields: Fields = {
        "id": (UUID | None, Field(default=None, description=f"The {names} with this id.")),
        key: (Name | None, Field(default=None, description=f"The {names} with this {key}.")),
    }
    text = f"A {names}, by id or by {key}. Exactly one must be set."
    return _document(f"{row.__name__}Ref", Document, text, fields, ())


def _document(name: str, base: type[Document], doc: str, fields: Fields, without: Collection[str]) -> Any:
    kept = {key: field for key, field in fields.items() if key not in without}
    model: Any = create_model(name, __base__=base, __module__=__name__, **kept)  # type: ignore[call-overload]
    model.__doc__ = doc
    return model


def noun(row: type[Row]) -> str:
    """Return the name of a row in words: `concurrency limit` for `ConcurrencyLimit`."""
    return str(row.__tablename__).replace("_", " ")
