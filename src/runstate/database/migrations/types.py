"""Column types of migrations. They are frozen: a type never changes once a migration uses it.

The types of the rows change with the code. Migrations do not import them, so that a migration always creates the same
tables.
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
    """An instant: `timestamptz` on PostgreSQL, microseconds since 1970 on SQLite."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the type of the column in the database."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.BigInteger())
        return dialect.type_descriptor(sa.DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the converter from an instant to the stored value; None if the driver converts."""
        return _microseconds if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return the converter from the stored value to an instant; None if the driver converts."""
        return _instant if dialect.name == "sqlite" else None


def _microseconds(value: datetime | None) -> int | None:
    return None if value is None else (value - EPOCH) // MICROSECOND


def _instant(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)


class TextualJSON(sqlite.JSON[Any]):
    """JSON in a TEXT column of SQLite."""

    def adapt(self, cls: Any, **_: Any) -> Any:
        """Return the type itself, which needs no adaptation to SQLite."""
        return self


@compiles(TextualJSON, "sqlite")
def _as_text(kind: TextualJSON, compiler: SQLiteTypeCompiler, **_: Any) -> str:
    return "TEXT"


NUMERIC_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""Any JSON value, as stored before 0004: SQLite converted a JSON number to an integer or a double."""
JSON = NUMERIC_JSON.with_variant(TextualJSON(none_as_null=True), "sqlite")
"""Any JSON value: jsonb on PostgreSQL, text on SQLite."""


class Xid8(sa.types.UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id; text on SQLite."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return the name of the type in SQL."""
        return "xid8"


@compiles(Xid8, "sqlite")
def _transaction_id(kind: Xid8, compiler: SQLiteTypeCompiler, **_: Any) -> str:
    return "TEXT"


class ServerSays(sa.sql.expression.ColumnElement[Any]):
    """A column default: a function call on PostgreSQL, NULL on SQLite."""

    inherit_cache = True

    def __init__(self, function: str) -> None:
        self.function = function


@compiles(ServerSays, "postgresql")
def _on_postgresql(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return element.function


@compiles(ServerSays)
def _elsewhere(element: ServerSays, compiler: SQLCompiler | DDLCompiler, **_: Any) -> str:
    return "NULL"
