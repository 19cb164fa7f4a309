"""Column types of migrations, frozen: a type that a migration uses never changes. A changed one is a new type.

The rows have types of their own, which change with the code. A migration leads to the same tables forever.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.sqlite.base import SQLiteTypeCompiler
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import DDLCompiler, SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Timestamp(TypeDecorator[datetime]):
    """An instant: with a time zone on PostgreSQL, as microseconds since 1970 on SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the column in the database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return what makes the stored value of an instant."""
        return _microseconds if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return what makes an instant of the stored value."""
        return _instant if dialect.name == "sqlite" else None


def _microseconds(value: datetime | None) -> int | None:
    return None if value is None else (value - EPOCH) // MICROSECOND


def _instant(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)


class TextualJSON(sqlite.JSON[Any]):
    """JSON that SQLite keeps as the text that it is."""

    def adapt(self, cls: Any, **_: Any) -> Any:
        """Return the type itself: it is made for SQLite already."""
        return self


@compiles(TextualJSON, "sqlite")
def _as_text(kind: TextualJSON, compiler: SQLiteTypeCompiler, **_: Any) -> str:
    return "TEXT"


NUMERIC_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""Any JSON value, as it was kept before 0004: where it was a number, SQLite kept its own idea of the number."""
JSON = NUMERIC_JSON.with_variant(TextualJSON(none_as_null=True), "sqlite")
"""Any JSON value: jsonb on PostgreSQL, text on SQLite."""


class Xid8(sa.types.UserDefinedType[str]):
    """The 64-bit transaction id of PostgreSQL; text on SQLite."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type."""
        return "xid8"


@compiles(Xid8, "sqlite")
def _transaction_id(kind: Xid8, compiler: SQLiteTypeCompiler, **_: Any) -> str:
    return "TEXT"


class ServerSays(sa.sql.expression.ColumnElement[Any]):
    """A default that PostgreSQL computes with a function, and that is NULL on SQLite."""

    inherit_cache = True

    def __init__(self, function: str) -> None:
        self.function = function


@compiles(ServerSays, "postgresql")
def _on_postgresql(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return element.function


@compiles(ServerSays)
def _elsewhere(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return "NULL"
