"""SQL constructs that differ between SQLite and PostgreSQL."""

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Self, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeEngine

from runstate.documents import exact_json
from runstate.rows.base import EPOCH, ArrayParameter, DocumentColumn, Timestamp

TEXT: Final = sa.Text()
NUMBER: Final = sa.BigInteger()
LIKE_CHARACTERS: Final = 255
"""Longest text that is matched with LIKE."""
AS_IT_IS: Final = sa.types.NullType()
"""The type of unconverted values. One instance is shared, because SQLAlchemy memoizes cache keys per type instance."""


class Condition(FunctionElement[bool]):
    """A Boolean expression. It is compiled without `= 1`, which would keep SQLite from using an index."""

    type = sa.Boolean()
    inherit_cache = True

    def self_group(self, against: OperatorType | None = None) -> Self:
        """Return the condition itself."""
        return self


@functools.lru_cache(1024)
def array_of(kind: TypeEngine[Any]) -> ArrayParameter:
    """Return the type of a parameter that is a list of such values."""
    return ArrayParameter(kind)


class Among(Condition):
    """Whether a column has one of many values, passed as one parameter."""

    inherit_cache = True
    name = "among"


def among(column: sa.ColumnElement[Any] | Any, values: Iterable[Any]) -> sa.ColumnElement[bool]:
    """Return whether a column has one of these values. The text of the statement does not depend on their number."""
    kind = array_of(column.type)
    return Among(column, sa.bindparam(None, list(values), type_=kind, unique=True))


def among_given(column: sa.ColumnElement[Any] | Any, parameter: str) -> sa.ColumnElement[bool]:
    """Return whether a column has one of the values in a list parameter, which is bound at execution."""
    return Among(column, sa.bindparam(parameter, type_=array_of(column.type)))


class AmongSelected(Condition):
    """Whether a column has one of the values that a query selects; the query is executed first."""

    type = sa.Boolean()
    inherit_cache = True
    name = "among_selected"


def among_selected(column: sa.ColumnElement[Any] | Any, query: sa.Select[Any]) -> sa.ColumnElement[bool]:
    """Return whether a column has one of the values of a query. An index on the column is used even inside an OR."""
    return AmongSelected(column, query.scalar_subquery())


@compiles(AmongSelected, "postgresql")
def _any_selected(element: AmongSelected, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = element.clauses
    # The array is computed first and then looked up in the index; `IN` could become a join over the table.
    return f"{compiler.process(column, **kw)} = ANY (ARRAY{compiler.process(query, **kw)})"


@compiles(AmongSelected, "sqlite")
def _in_selected(element: AmongSelected, compiler: SQLCompiler, **kw: Any) -> str:
    column, query = element.clauses
    return f"{compiler.process(column, **kw)} IN {compiler.process(query, **kw)}"


@compiles(Among, "postgresql")
def _any(element: Among, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(values, **kw)})"


@compiles(Among, "sqlite")
def _json_each(element: Among, compiler: SQLCompiler, **kw: Any) -> str:
    column, values = element.clauses
    return f"{compiler.process(column, **kw)} IN (SELECT value FROM json_each({compiler.process(values, **kw)}))"


class HasTags(Condition):
    """The base of conditions on a JSON list of tags."""

    inherit_cache = True
    name = "has_tags"


class HasAnyTag(HasTags):
    """Whether a JSON list of text has any of the tags."""

    inherit_cache = True
    name = "has_any_tag"


class HasAllTags(HasTags):
    """Whether a JSON list of text has all of the tags."""

    inherit_cache = True
    name = "has_all_tags"


def has_any_tag(column: sa.ColumnElement[Any] | Any, tags: Iterable[str]) -> sa.ColumnElement[bool]:
    """Return whether a column of tags has one of these."""
    return HasAnyTag(column, sa.bindparam(None, sorted(set(tags)), type_=array_of(TEXT), unique=True))


def has_all_tags(column: sa.ColumnElement[Any] | Any, tags: Collection[str]) -> sa.ColumnElement[bool]:
    """Return whether a column of tags has all of these."""
    if not tags:
        return sa.true()
    return HasAllTags(column, sa.bindparam(None, sorted(set(tags)), type_=array_of(TEXT), unique=True))


@compiles(HasAnyTag, "postgresql")
def _has_any_postgresql(element: HasAnyTag, compiler: SQLCompiler, **kw: Any) -> str:
    column, tags = element.clauses
    return f"{compiler.process(column, **kw)} ?| {compiler.process(tags, **kw)}"


@compiles(HasAllTags, "postgresql")
def _has_all_postgresql(element: HasAllTags, compiler: SQLCompiler, **kw: Any) -> str:
    column, tags = element.clauses
    return f"{compiler.process(column, **kw)} ?& {compiler.process(tags, **kw)}"


@compiles(HasAnyTag, "sqlite")
def _has_any_sqlite(element: HasAnyTag, compiler: SQLCompiler, **kw: Any) -> str:
    return _with_tags(
        element,
        compiler,
        "EXISTS (SELECT 1 FROM json_each({had}) AS had JOIN json_each({asked}) AS asked ON had.value = asked.value)",
        **kw,
    )


@compiles(HasAllTags, "sqlite")
def _has_all_sqlite(element: HasAllTags, compiler: SQLCompiler, **kw: Any) -> str:
    return _with_tags(
        element,
        compiler,
        "NOT EXISTS (SELECT 1 FROM json_each({asked}) AS asked WHERE asked.value NOT IN"
        " (SELECT had.value FROM json_each({had}) AS had))",
        **kw,
    )


def _with_tags(element: HasTags, compiler: SQLCompiler, condition: str, **kw: Any) -> str:
    """Return a condition on tags. If they have an index, the distinct lists in it are tested instead of each row."""
    column, tags = element.clauses
    held, asked = compiler.process(column, **kw), compiler.process(tags, **kw)
    table = next((base.table for base in column.base_columns if isinstance(base, sa.Column)), None)
    if table is None or not any(index.name == f"ix_{table.name}_tags_list" for index in table.indexes):
        return condition.format(had=held, asked=asked)
    # The partial index has the same condition; without it, SQLite does not use the index.
    lists = f"SELECT DISTINCT tags FROM {table.name} WHERE tags <> '[]'"
    of_list = condition.format(had="listed.tags", asked=asked)
    return f"({held} <> '[]' AND {held} IN (SELECT listed.tags FROM ({lists}) AS listed WHERE {of_list}))"


class Items(FunctionElement[Any]):
    """The items of a JSON list of text, as rows."""

    inherit_cache = True
    name = "items"


def items(column: sa.ColumnElement[Any] | Any, name: str) -> sa.TableValuedAlias:
    """Return the items of a list of text as a table of this name, with the column `value`."""
    return Items(column).table_valued(sa.column("value", TEXT), name=name)


@compiles(Items, "postgresql")
def _items_postgresql(element: Items, compiler: SQLCompiler, **kw: Any) -> str:
    return f"jsonb_array_elements_text({compiler.process(element.clauses, **kw)})"


@compiles(Items, "sqlite")
def _items_sqlite(element: Items, compiler: SQLCompiler, **kw: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **kw)})"


class TextContains(Condition):
    """Whether a text contains another, ignoring case."""

    inherit_cache = True
    name = "text_contains"


def text_contains(column: sa.ColumnElement[Any] | Any, text: str) -> sa.ColumnElement[bool]:
    """Return whether a column contains a text, ignoring case.

    SQLite's LIKE ignores case only in ASCII, accepts at most 50,000 bytes, and takes quadratic time. A function matches
    all other texts.
    """
    if len(text) > LIKE_CHARACTERS:
        return TextContains(column, sa.literal(text, TEXT))
    if text.isascii():
        return cast("sa.ColumnElement[bool]", column.icontains(text, autoescape=True))
    return ShortTextContains(column, sa.literal(text, TEXT))


@compiles(TextContains, "postgresql")
def _text_contains_postgresql(element: TextContains, compiler: SQLCompiler, **kw: Any) -> str:
    column, text = (compiler.process(each, **kw) for each in element.clauses)
    # No pattern, so nothing in the text needs escaping.
    return f"(strpos(lower({column}), lower({text})) > 0)"


@compiles(TextContains, "sqlite")
def _text_contains_sqlite(element: TextContains, compiler: SQLCompiler, **kw: Any) -> str:
    column, text = (compiler.process(each, **kw) for each in element.clauses)
    return f"text_contains({column}, {text})"


class ShortTextContains(TextContains):
    """The same for a short text: on PostgreSQL by ILIKE, which an index of trigrams serves."""

    inherit_cache = True
    name = "short_text_contains"


@compiles(ShortTextContains, "postgresql")
def _short_text_contains_postgresql(element: ShortTextContains, compiler: SQLCompiler, **kw: Any) -> str:
    column, text = (compiler.process(each, **kw) for each in element.clauses)
    # Escaped in SQL, because the text is a parameter of a statement that is compiled once.
    escaped = rf"regexp_replace({text}, '([\\%_])', '\\\1', 'g')"
    return f"({column} ILIKE '%' || {escaped} || '%')"


class DatabaseTime(FunctionElement[datetime]):
    """The time by the clock of the database, when the statement is executed."""

    type = Timestamp()
    inherit_cache = True
    name = "database_time"


@compiles(DatabaseTime, "postgresql")
def _time_postgresql(element: DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    # now() is the time at which the transaction began.
    return "statement_timestamp()"


@compiles(DatabaseTime, "sqlite")
def _time_sqlite(element: DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    return "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"


class SecondsBetween(FunctionElement[float]):
    """The seconds from one instant to another."""

    type = sa.Double()
    inherit_cache = True
    name = "seconds_between"


def seconds_between(start: Any, end: Any) -> sa.ColumnElement[float]:
    """Return the seconds from one instant to another, as a double."""
    return SecondsBetween(start, end)


@compiles(SecondsBetween, "postgresql")
def _seconds_postgresql(element: SecondsBetween, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = element.clauses
    return f"EXTRACT(EPOCH FROM {compiler.process(end, **kw)} - {compiler.process(start, **kw)})::double precision"


@compiles(SecondsBetween, "sqlite")
def _seconds_sqlite(element: SecondsBetween, compiler: SQLCompiler, **kw: Any) -> str:
    start, end = element.clauses
    return f"(({compiler.process(end, **kw)} - {compiler.process(start, **kw)}) / 1000000.0)"


def as_given(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a column whose values are not converted by SQLAlchemy; JSON is cast to text."""
    if isinstance(column.type, sa.JSON | DocumentColumn):
        return sa.cast(column, TEXT).label(column.key)
    return sa.type_coerce(column, TEXT if isinstance(column.type, sa.Text) else AS_IT_IS)


@functools.lru_cache(1024)
def processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return the converter for values of an `as_given` column; None if they need no conversion."""
    if isinstance(kind, sa.JSON):
        return _parsed
    if isinstance(kind, DocumentColumn):
        return lambda text: kind.process_result_value(_parsed(text), dialect)
    return reader(kind, dialect)


def reader(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return the converter for driver values of a type; None if they need no conversion."""
    if isinstance(kind, sa.Double):
        return None  # the processor for asyncpg needs the column type of the cursor, which is not known here
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def _parsed(text: str | None) -> Any:
    return None if text is None else exact_json.loads(text)


def plain(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Return the function that converts all driver values of a column for JSON: ids to text, instants to datetimes."""
    if isinstance(kind, sa.Uuid):
        return _ids_of_postgresql if dialect.name == "postgresql" else _ids_of_sqlite
    return _instants_of_sqlite if isinstance(kind, Timestamp) and dialect.name == "sqlite" else _as_they_are


def _as_they_are(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _ids_of_postgresql(values: Sequence[Any]) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _ids_of_sqlite(values: Sequence[Any]) -> list[str | None]:
    return [
        None if held is None else f"{held[:8]}-{held[8:12]}-{held[12:16]}-{held[16:20]}-{held[20:]}" for held in values
    ]


def _instants_of_sqlite(values: Sequence[Any]) -> list[datetime | None]:
    return [None if value is None else EPOCH + timedelta(microseconds=value) for value in values]


def insert_or_skip(dialect: str, table: sa.Table) -> Any:
    """Return an INSERT that skips rows whose unique key is taken."""
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    return make(table).on_conflict_do_nothing()


def insert_or_replace(
    dialect: str, table: sa.Table, keys: Sequence[str], columns: Sequence[str], *, if_greater: Sequence[str] = ()
) -> Any:
    """Return an INSERT that updates these columns of the existing row if the unique key is taken.

    With `if_greater`, the existing row is only updated if the new values of these columns are greater.
    """
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    insert = make(table)
    there, new = ([each[name] for name in if_greater] for each in (table.c, insert.excluded))
    return insert.on_conflict_do_update(
        index_elements=list(keys),
        set_={name: insert.excluded[name] for name in columns},
        where=sa.tuple_(*there) < sa.tuple_(*new) if if_greater else None,
    )


class InstantOf(FunctionElement[datetime]):
    """The instant of an ISO 8601 text in a JSON document."""

    type = Timestamp()
    inherit_cache = True
    name = "instant_of"


def instant_of(text: sa.ColumnElement[Any]) -> sa.ColumnElement[datetime]:
    """Return the instant of an ISO 8601 text; on SQLite it is rounded to milliseconds."""
    return InstantOf(text)


@compiles(InstantOf, "postgresql")
def _instant_postgresql(element: InstantOf, compiler: SQLCompiler, **kw: Any) -> str:
    (text,) = element.clauses
    return f"CAST({compiler.process(text, **kw)} AS timestamptz)"


@compiles(InstantOf, "sqlite")
def _instant_sqlite(element: InstantOf, compiler: SQLCompiler, **kw: Any) -> str:
    (text,) = element.clauses
    # A double of days since 4714 BC is too coarse for microseconds.
    return f"CAST(round((julianday({compiler.process(text, **kw)}) - 2440587.5) * 86400000) AS INTEGER) * 1000"
