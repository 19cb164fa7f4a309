"""Instants in SQL, relative to the present."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from runstate.rows.base import Timestamp

SECONDS: Final[sa.Double[float]] = sa.Double()


class SecondsAgo(FunctionElement[datetime]):
    """The instant some seconds before the present, by the clock of the database."""

    type = Timestamp()
    inherit_cache = True
    name = "seconds_ago"


def seconds_ago(seconds: float) -> sa.ColumnElement[datetime]:
    """Return the instant this many seconds before the present; a negative number is in the future."""
    return SecondsAgo(sa.literal(seconds, SECONDS))


@compiles(SecondsAgo, "postgresql")
def _ago_postgresql(element: SecondsAgo, compiler: SQLCompiler, **kw: Any) -> str:
    return f"(now() - make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(SecondsAgo, "sqlite")
def _ago_sqlite(element: SecondsAgo, compiler: SQLCompiler, **kw: Any) -> str:
    # A Julian day in a double is exact to about 40 microseconds.
    now = "(julianday('now') - 2440587.5) * 86400000000"
    return f"CAST({now} - {compiler.process(element.clauses, **kw)} * 1000000 AS INTEGER)"
