"""The base of all tables: column types, access of columns, tags."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Self
from uuid import UUID

import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.sqlite.base import SQLiteTypeCompiler
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator, TypeEngine

from runstate.documents.access import Scope
from runstate.documents.base import Tags, omits_defaults

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


class Timestamp(TypeDecorator[datetime]):
    """An instant in UTC. On SQLite it is stored as microseconds since 1970, which can be sorted and subtracted."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Any:
        # None, because asyncpg converts times itself: a function for each value would cost time for nothing.
        return _microseconds if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        return _instant if dialect.name == "sqlite" else None


class Duration(TypeDecorator[timedelta]):
    """A time span that can be added to a timestamp; on SQLite a number of microseconds."""

    impl = sa.Interval
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.BigInteger() if dialect.name == "sqlite" else sa.Interval())

    def bind_processor(self, dialect: Dialect) -> Any:
        return _span if dialect.name == "sqlite" else None


def _microseconds(value: datetime | None) -> int | None:
    return None if value is None else (value - EPOCH) // MICROSECOND


def _instant(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)


def _span(value: timedelta) -> int:
    return value // MICROSECOND


class TextualJSON(sqlite.JSON[Any]):
    """JSON in a TEXT column of SQLite. A column of type JSON would convert values that look like numbers."""

    def adapt(self, cls: Any, **_: Any) -> Any:
        """Return the type itself, which needs no adaptation to SQLite."""
        return self


@compiles(TextualJSON, "sqlite")
def _as_text(kind: TextualJSON, compiler: SQLiteTypeCompiler, **_: Any) -> str:
    return "TEXT"


JSON = (
    # Otherwise None would be stored as the JSON value null.
    sa.JSON(none_as_null=True)
    .with_variant(JSONB(none_as_null=True), "postgresql")
    .with_variant(TextualJSON(none_as_null=True), "sqlite")
)


class DocumentColumn(TypeDecorator[Any]):
    """A JSON column with values of a type: a document, a union of documents, or a list or dict of documents."""

    impl = sa.JSON
    cache_ok = True

    def __init__(self, annotation: Any) -> None:
        super().__init__()
        self.annotation = annotation
        adapter = TypeAdapter[Any](annotation)
        # The methods of the adapter look these up at each call, and a page converts thousands of values.
        self.read = adapter.validator.validate_python
        self.write = partial(adapter.serializer.to_python, mode="json", exclude_defaults=omits_defaults(annotation))
        self.blank = _blank(annotation)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(JSON)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.write(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return None
        # Most documents are empty, and need no validation.
        return self.blank if self.blank and not value else self.read(value)


def _blank(annotation: Any) -> BaseModel | None:
    """Return the document with all defaults, one instance for all rows; None if a member has no constant default."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel) and omits_defaults(annotation)):
        return None
    return None if any(field.is_required() for field in annotation.model_fields.values()) else annotation()


class ArrayParameter(TypeDecorator[list[Any]]):
    """A list as one parameter: an array on PostgreSQL, JSON text on SQLite. SQL text does not depend on its length."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            # An array has one type for all lengths; with a list of parameters, each length would be another statement.
            return dialect.type_descriptor(ARRAY(self.item))
        return dialect.type_descriptor(sa.JSON())

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        process = self.item.dialect_impl(dialect).bind_processor(dialect)
        return [process(item) if process else item for item in value]


PRIVATE: dict[str, Any] = {"private": True}
"""`info` of a column that clients neither read nor write."""
READ_ONLY: dict[str, Any] = {"written": "by the server"}
"""`info` of a column that clients read and the server writes."""
REQUIRED: dict[str, Any] = {"required": "on creation"}
"""`info` of a nullable column that a client must set when it creates a row, possibly to null."""
CREATE_ONLY: dict[str, Any] = {"written": "once"}
"""`info` of a column that is set when the row is created and never changes."""


def is_marked(column: sa.Column[Any], mark: dict[str, Any]) -> bool:
    """Return whether the `info` of a column contains a mark."""
    return mark.items() <= column.info.items()


def needs(scope: Scope) -> dict[str, Any]:
    """Return the `info` of a column that requires a scope to read. Others could guess its values with a filter."""
    return {"scope": scope, "filterable": False}


def reverse(name: str, doc: str) -> dict[str, Any]:
    """Return the `info` of a relationship that is also a list on the referenced row, with this name and description."""
    return {"reverse": (name, doc)}


def unconstrained(join: Callable[[], Any], doc: str, info: dict[str, Any] | None = None) -> Any:
    """Return a relationship without a foreign key: the referenced row can be missing. `join` returns its condition."""
    return relationship(lazy="raise", viewonly=True, primaryjoin=join, info=info or {}, doc=doc)


NOT_FILTERABLE: dict[str, Any] = {"filterable": False}
"""`info` of a column that clients read but cannot filter by."""


class ReadOnlyAttribute:
    """A descriptor that returns the column on the class and leaves instances to their own `__dict__`.

    SQLAlchemy's descriptor has `__set__`, so Python would call it for each read of a snapshot's value. This one has no
    `__set__`, so the value in the instance takes precedence.
    """

    def __init__(self, attribute: Any) -> None:
        self.attribute = attribute

    def __get__(self, instance: object | None, owner: type) -> Any:
        """Return the column of the class. Raise AttributeError for a snapshot that was read without the column."""
        if instance is None:
            return self.attribute
        raise AttributeError(f"This {owner.__name__} was read without {self.attribute.key}.")


@dataclass(frozen=True, slots=True)
class Retention:
    """The expiry of rows, declared as `__retention__` on the row class. Services delete expired rows."""

    column: str
    """Column with the start of the period; without a setting, column with the time of expiry."""
    setting: str | None = None
    """Name of the setting with the period; its last word is the unit: `…_hours`, `…_days`."""
    replaces: str | None = None
    """Key column: a row replaces older rows with the same value. They are deleted first, so none is used again."""

    def period(self, settings: Mapping[str, float]) -> timedelta | None:
        """Return the time for which rows are kept; None if the setting is missing in *settings*."""
        if self.setting is None:
            return timedelta(0)
        unit = self.setting.rpartition("_")[2]
        return timedelta(**{unit: settings[self.setting]}) if self.setting in settings else None


class Base(DeclarativeBase):
    """A table. Instances are immutable snapshots, created with `of` and never attached to a session."""

    __retention__: ClassVar[Retention | None] = None
    """Expiry of the rows; None if they never expire."""

    metadata = sa.MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Timestamp(),
        UUID: sa.Uuid(),
        str: sa.Text(),
        dict[str, Any]: JSON,
        list[str]: JSON,
        Any: JSON,
        float: sa.Double(),
    }

    def __init_subclass__(cls, **options: Any) -> None:
        """Map the class to its table, and make its columns read-only attributes."""
        super().__init_subclass__(**options)
        # A copy, because the loop changes the class.
        for key, attribute in vars(cls).copy().items():
            if isinstance(attribute, InstrumentedAttribute):
                # The metaclass of SQLAlchemy would map the attribute again.
                type.__setattr__(cls, key, ReadOnlyAttribute(attribute))

    @classmethod
    def of(cls, columns: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Self:
        """Return a snapshot with these columns. Reading any other column raises AttributeError."""
        # The constructor of SQLAlchemy would add the state of a session.
        row = object.__new__(cls)
        row.__dict__ = dict(columns)
        return row

    def replace(self, **columns: Any) -> Self:
        """Return a copy of the snapshot with other values in some columns."""
        row = object.__new__(type(self))
        row.__dict__ = {**self.__dict__, **columns}
        return row


class Row(Base):
    """A table whose rows have an id. Each is a GraphQL type of the same name, unless it is private."""

    __abstract__ = True
    __private__: ClassVar[bool] = False
    """Whether the table is missing in GraphQL."""
    __node__: ClassVar[bool] = True
    """Whether `node(id:)` finds rows of the table."""
    __announced__: ClassVar[bool] = False
    """Whether events tell that rows are created, updated and deleted."""
    __shares_ids__: ClassVar[bool] = False
    """Whether an id can also be that of a row of another table, which `node(id:)` then finds instead."""
    __order__: ClassVar[tuple[str, ...]] = ("-id",)
    """Columns to sort by if a client gives no order; a minus sign stands for descending."""
    __indexed__: ClassVar[tuple[str, ...]] = ()
    """Columns that have an index, so that clients can sort by them."""
    __sorted__: ClassVar[tuple[str, ...]] = ()
    """Columns without an index that clients can sort by nevertheless."""
    __computed__: ClassVar[dict[str, sa.Label[Any]]] = {}
    """Expressions of values that are not stored, and that clients can sort by."""
    __numerous__: ClassVar[bool] = False
    """Whether an object can have so many of these rows that a page must not read all of them."""
    __searched__: ClassVar[tuple[str, ...]] = ()
    """Columns with the text that the member `search` of filters looks at, joined by spaces."""

    id: Mapped[UUID] = mapped_column(
        primary_key=True, sort_order=-3, info=READ_ONLY, doc="Unique over all types; a UUID of version 7."
    )
    created: Mapped[datetime] = mapped_column(sort_order=-2, info=READ_ONLY, doc="Time of creation.")
    updated: Mapped[datetime] = mapped_column(sort_order=-1, info=READ_ONLY, doc="Time of the last change.")

    def __init_subclass__(cls, **options: Any) -> None:
        """Create the indexes that the class names."""
        super().__init_subclass__(**options)
        if (table := vars(cls).get("__table__")) is not None:
            for name in cls.__indexed__:
                sa.Index(None, table.c[name])


def value_of(row: type[Row], name: str) -> sa.ColumnElement[Any]:
    """Return the column of a row, or the expression of a computed value."""
    if name in row.__computed__:
        return row.__computed__[name]
    column: sa.ColumnElement[Any] = row.__table__.c[name]
    return column


def table_with(row: type[Row], names: Collection[str]) -> sa.FromClause:
    """Return the table of a row; if computed values are among the names, a query for the table with these values."""
    computed = [row.__computed__[name] for name in names if name in row.__computed__]
    return sa.select(*row.__table__.c, *computed).subquery(str(row.__tablename__)) if computed else row.__table__


class Tagged:
    """A mixin: a column of tags, and the indexes on it for each kind of database."""

    tags: Mapped[Tags] = mapped_column(JSON, default=list, doc="Labels to filter by.")

    def __init_subclass__(cls, **options: Any) -> None:
        """Create the indexes of the table."""
        super().__init_subclass__(**options)
        table = vars(cls).get("__table__")
        if table is not None:
            _index_tags(table)


def _index_tags(table: sa.Table) -> None:
    tags, name = table.c.tags, f"ix_{table.name}_tags"
    # GIN finds items of lists. SQLite has no such index: the distinct lists are read from its index instead.
    sa.Index(name, tags, postgresql_using="gin", info={"only": "postgresql"}).ddl_if("postgresql")
    listed = sa.text("tags <> '[]'")
    sa.Index(f"{name}_list", tags, sqlite_where=listed, info={"only": "sqlite"}).ddl_if("sqlite")


def row_classes() -> list[type[Base]]:
    """Return the class of each table of the schema, ordered by table name."""
    # Tests declare further tables in other metadata, which are no part of the schema.
    rows = [each.class_ for each in Base.registry.mappers if each.class_.__table__.metadata is Base.metadata]
    return sorted(rows, key=lambda row: str(row.__tablename__))
