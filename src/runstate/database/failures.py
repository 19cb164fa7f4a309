"""Failures of a database, described in one line for the command line."""

import sqlite3
from typing import Final

import asyncpg
import sqlalchemy as sa
from alembic.util import CommandError

FAILURES: Final = (
    sa.exc.SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    sqlite3.Error,
    CommandError,
    OSError,
)
"""Exceptions of the database, its drivers and the network."""
UNREACHABLE: Final = {ConnectionRefusedError: "connection refused", TimeoutError: "it does not answer"}


def reason(error: BaseException) -> str:
    """Return the first line of the message of the database or operating system, without SQLAlchemy's additions."""
    while isinstance(error, sa.exc.DBAPIError) and error.orig:
        error = error.orig
    while isinstance(error.__cause__, FAILURES):
        error = error.__cause__
    named = next((text for kind, text in UNREACHABLE.items() if isinstance(error, kind)), None)
    lines = str(error).strip().splitlines()
    return named or (lines[0].rstrip(".") if lines else type(error).__name__)
