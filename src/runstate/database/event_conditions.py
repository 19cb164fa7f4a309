"""Conditions on events in SQL: labels of resources, patterns, and all texts of a JSON value."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from runstate.database.dialects import TEXT, Condition, among, among_selected, array_of
from runstate.database.patterns import expression
from runstate.rows import FlowRun, StoredEventResource, TaskRun
from runstate.rows.base import JSON

Clause = sa.ColumnElement[bool]
FIELDS = {"resource.id": ["resource_id"], "resource.role": ["role"], "resource.name": ["name"]}
"""Paths of the labels that have a field of their own."""


class JsonText(FunctionElement[str]):
    """The text at a path of a JSON value; NULL without one."""

    type = TEXT
    inherit_cache = True
    name = "json_text"


def json_text(column: Any, path: Iterable[str]) -> sa.ColumnElement[str]:
    """Return the text at a path of keys; NULL if the path does not exist."""
    return JsonText(column, sa.bindparam(None, list(path), type_=array_of(TEXT), unique=True))


@compiles(JsonText, "postgresql")
def _json_text_postgresql(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    column, path = (compiler.process(each, **kw) for each in element.clauses)
    return f"({column} #>> {path})"


@compiles(JsonText, "sqlite")
def _json_text_sqlite(element: JsonText, compiler: SQLCompiler, **kw: Any) -> str:
    column, path = (compiler.process(each, **kw) for each in element.clauses)
    return f"json_text({column}, {path})"


class TextFits(Condition):
    """Whether a regular expression matches a whole text."""

    inherit_cache = True
    name = "text_fits"


@compiles(TextFits, "postgresql")
def _fits_postgresql(element: TextFits, compiler: SQLCompiler, **kw: Any) -> str:
    column, text = (compiler.process(each, **kw) for each in element.clauses)
    # Anchored, because `~` looks for the pattern anywhere in the text.
    return f"({column} ~ ('^(?:' || {text} || ')$'))"


@compiles(TextFits, "sqlite")
def _fits_sqlite(element: TextFits, compiler: SQLCompiler, **kw: Any) -> str:
    column, text = (compiler.process(each, **kw) for each in element.clauses)
    return f"text_fits({column}, {text})"


class JsonTexts(FunctionElement[str]):
    """All texts inside a JSON value, without keys, joined by spaces."""

    type = TEXT
    inherit_cache = True
    name = "json_texts"


@compiles(JsonTexts, "postgresql")
def _texts_postgresql(element: JsonTexts, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    # Strict: in the lax mode, items of lists would be found twice.
    texts = f"jsonb_path_query({column}, 'strict $.**') AS each (inside) WHERE jsonb_typeof(inside) = 'string'"
    return f"coalesce((SELECT string_agg(inside #>> '{{}}', ' ') FROM {texts}), '')"  # noqa: S608 compiled SQL


@compiles(JsonTexts, "sqlite")
def _texts_sqlite(element: JsonTexts, compiler: SQLCompiler, **kw: Any) -> str:
    column = compiler.process(element.clauses, **kw)
    return f"coalesce((SELECT group_concat(atom, ' ') FROM json_tree({column}) WHERE type = 'text'), '')"  # noqa: S608


class Elements(FunctionElement[Any]):
    """The items of a JSON list, as rows."""

    inherit_cache = True
    name = "elements"


@compiles(Elements, "postgresql")
def _elements_postgresql(element: Elements, compiler: SQLCompiler, **kw: Any) -> str:
    return f"jsonb_array_elements({compiler.process(element.clauses, **kw)})"


@compiles(Elements, "sqlite")
def _elements_sqlite(element: Elements, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


def elements(column: Any) -> sa.TableValuedAlias:
    """Return the items of a JSON list as a table with the column `value`."""
    return Elements(column).table_valued(sa.column("value", JSON), name="each")


def fits_one(column: sa.ColumnElement[Any], patterns: Iterable[str], *, negatable: bool = True) -> Clause:
    """Return the condition that one of the patterns matches a text; a missing text matches none.

    A leading `!` negates a pattern if they are negatable.
    """
    return sa.or_(sa.false(), *(_fits(column, each, negatable=negatable) for each in patterns))


def _fits(column: sa.ColumnElement[Any], pattern: str, *, negatable: bool) -> Clause:
    negated = negatable and pattern.startswith("!")
    fits = TextFits(column, sa.literal(expression(pattern[1:] if negated else pattern), TEXT))
    # A missing label matches no pattern, not even a negated one.
    return sa.and_(column.is_not(None), sa.not_(fits)) if negated else fits


def label_of(resource: Any, label: str) -> sa.ColumnElement[str]:
    """Return a label of a resource; NULL if it does not have it."""
    return json_text(resource, FIELDS.get(label) or ["labels", label])


def is_of(event: sa.FromClause, ids: Iterable[str]) -> Clause:
    """Return a condition that an index serves, and that all events meet whose resource has one of these ids."""
    some = list(ids)
    return sa.or_(among(event.c.stored_resource_id, some), among(event.c.run_id, runs_in(some)))


def is_related_to(event: sa.FromClause, ids: Iterable[str]) -> Clause:
    """Return a condition that an index serves, and that all events meet that are related to one of these ids.

    Tags of transitions have no index.
    """
    some = list(ids)
    resource = StoredEventResource.__table__
    stored = among_selected(event.c.seq, sa.select(resource.c.event_seq).where(among(resource.c.resource_id, some)))
    if any(each.startswith("runstate.tag.") for each in some):
        return sa.or_(stored, event.c.run_id.is_not(None))
    return sa.or_(stored, among_selected(event.c.run_id, _runs_of(runs_in(some)))) if runs_in(some) else stored


def runs_in(ids: Iterable[str]) -> list[Any]:
    """Return the UUIDs in ids of resources of the server."""
    ends = (each.rpartition(".")[2] for each in ids if each.startswith("runstate."))
    return [known for each in ends if (known := _uuid(each)) is not None]


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _runs_of(ids: list[UUID]) -> sa.Select[Any]:
    """Select the runs that belong to objects with these ids."""
    flow_run, task_run = FlowRun.__table__, TaskRun.__table__
    keys = ("id", "flow_id", "deployment_id", "work_queue_id", "parent_task_run_id")
    flow_runs = sa.select(flow_run.c.id).where(sa.or_(*(among(flow_run.c[key], ids) for key in keys)))
    inner = flow_runs.subquery("flow_runs")
    below = sa.select(task_run.c.id).join(inner, inner.c.id == task_run.c.flow_run_id)
    found = sa.union(flow_runs, below, sa.select(task_run.c.id).where(among(task_run.c.id, ids))).subquery("found")
    return sa.select(found.c.id)
