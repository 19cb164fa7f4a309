"""Conditions on JSON columns, compiled for each dialect."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from runstate.database.dialects import TEXT, Condition, array_of
from runstate.rows.base import JSON


class JsonEquals(Condition):
    """Whether the value at a path of a JSON column equals another."""

    inherit_cache = True
    name = "json_equals"
    operator = "="


class JsonContains(JsonEquals):
    """Whether the value at a path of a JSON column contains another."""

    inherit_cache = True
    name = "json_contains"
    operator = "@>"


class JsonIsNull(Condition):
    """Whether the value at a path of a JSON column is null or absent."""

    inherit_cache = True
    name = "json_is_null"


def json_equals(column: Any, path: Iterable[str], value: Any) -> sa.ColumnElement[bool]:
    """Return whether the value at a path of keys equals this one; false if the path does not exist."""
    return JsonEquals(column, _path(path), sa.literal(value, JSON))


def json_contains(column: Any, path: Iterable[str], value: Any) -> sa.ColumnElement[bool]:
    """Return whether the value at a path of keys contains this one. A list contains each of its items."""
    return JsonContains(column, _path(path), sa.literal(value, JSON))


def json_is_null(column: Any, path: Iterable[str]) -> sa.ColumnElement[bool]:
    """Return whether the value at a path of keys is null or absent."""
    return JsonIsNull(column, _path(path))


def _path(keys: Iterable[str]) -> sa.ColumnElement[Any]:
    return sa.bindparam(None, list(keys), type_=array_of(TEXT), unique=True)


@compiles(JsonEquals, "postgresql")
def _json_holds_postgresql(element: JsonEquals, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, value = (compiler.process(each, **kw) for each in element.clauses)
    # An absent path results in NULL, and so would its negation.
    return f"coalesce(({column} #> {path}) {element.operator} {value}, false)"


@compiles(JsonEquals, "sqlite")
def _json_holds_sqlite(element: JsonEquals, compiler: SQLCompiler, **kw: Any) -> str:
    column, path, value = (compiler.process(each, **kw) for each in element.clauses)
    return f"{element.name}({column}, {path}, {value})"


@compiles(JsonIsNull, "postgresql")
def _json_null_postgresql(element: JsonIsNull, compiler: SQLCompiler, **kw: Any) -> str:
    column, path = (compiler.process(each, **kw) for each in element.clauses)
    # An absent path is NULL in SQL, and a stored null is not.
    return f"coalesce({column} #> {path}, 'null'::jsonb) = 'null'::jsonb"


@compiles(JsonIsNull, "sqlite")
def _json_null_sqlite(element: JsonIsNull, compiler: SQLCompiler, **kw: Any) -> str:
    column, path = (compiler.process(each, **kw) for each in element.clauses)
    return f"json_is_null({column}, {path})"


class HasAnyItem(Condition):
    """Whether a JSON list has any of the items of another list."""

    inherit_cache = True
    name = "has_any_item"


def has_any_item(column: sa.ColumnElement[Any] | Any, items: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Return whether a JSON list has one of these items."""
    return HasAnyItem(column, sa.literal(list(items), JSON))


def has_all_items(column: sa.ColumnElement[Any] | Any, items: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Return whether a JSON list has all of these items."""
    return json_contains(column, (), list(items))


@compiles(HasAnyItem, "postgresql")
def _has_any_item_postgresql(element: HasAnyItem, compiler: SQLCompiler, **kw: Any) -> str:
    column, items = (compiler.process(each, **kw) for each in element.clauses)
    return f"{column} @> ANY (SELECT jsonb_build_array(item) FROM jsonb_array_elements({items}) AS items (item))"


@compiles(HasAnyItem, "sqlite")
def _has_any_item_sqlite(element: HasAnyItem, compiler: SQLCompiler, **kw: Any) -> str:
    column, items = (compiler.process(each, **kw) for each in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) AS had JOIN json_each({items}) AS asked USING (value))"
