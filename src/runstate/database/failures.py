"""Failures of the database: one list, with the answer to clients and the reaction of the server."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

import asyncpg
import sqlalchemy as sa
from alembic.util import CommandError

from runstate.errors import BadUserInput, DatabaseMoved, Overloaded, RunstateError, Timeout, Unavailable, UnknownOutcome

FAILURES: Final = (
    sa.exc.SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    sqlite3.Error,
    CommandError,
    OSError,
)
"""Exceptions of the database, its drivers and the network."""
CLOSED: Final = "connection is closed"
"""Part of the driver's message, which has no class of its own for this."""
ENDED: Final = ("cannot switch to state", "got result for unknown protocol state", "_on_result")
"""Messages of asyncpg's internal errors if the server has ended the session, and its transport does not know it yet."""
SILENT: Final = {ConnectionRefusedError: "connection refused", TimeoutError: "it does not answer"}


class Kind(Enum):
    """Kinds of failures: the answer to the client, and the reaction of the server."""

    BUG = "INTERNAL"
    """A bug, or damage: logged with its traceback."""
    LATE = "TIMEOUT"
    """The statement was ended because it took too long."""
    LARGE = "BAD_USER_INPUT"
    """The statement is too large or too complex for the database."""
    LOST = "UNAVAILABLE, another connection"
    """The connection is lost or cannot be opened. If that happens during COMMIT, the outcome is unknown."""
    STALE = "UNAVAILABLE, new connections"
    """The session can no longer do its work: all connections are replaced."""
    CONFLICT = "UNAVAILABLE, repeated at once"
    """The transaction was rolled back because of others."""
    REFUSED = "UNAVAILABLE"
    """The database cannot do it now."""
    BROKEN = "UNAVAILABLE, connection closed"
    """The database cannot use its files; the connection is closed because it may be the reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure: its kind, and the reason that clients are told if it is temporary."""

    kind: Kind
    reason: str = "The database cannot be reached"

    @property
    def is_temporary(self) -> bool:
        """Whether the same operation may succeed later: the answer is UNAVAILABLE."""
        return self.kind in TEMPORARY

    @property
    def is_answered(self) -> bool:
        """Whether the database itself has refused: if that happens during COMMIT, nothing was written."""
        return self.is_temporary and self.kind is not Kind.LOST


TEMPORARY: Final = frozenset({Kind.LOST, Kind.STALE, Kind.CONFLICT, Kind.REFUSED, Kind.BROKEN})
BUG: Final = Failure(Kind.BUG)
LOST: Final = Failure(Kind.LOST)
DENIED: Final = Failure(Kind.REFUSED, "The database denies the server access")
CONFLICT: Final = Failure(Kind.CONFLICT, "The transaction was rolled back again and again because of others")
FULL: Final = Failure(Kind.REFUSED, "The disk of the database is full")
EXHAUSTED: Final = Failure(Kind.REFUSED, "The database has no memory or other resources left")
FILES: Final = Failure(Kind.BROKEN, "The database cannot read or write its files")
READ_ONLY: Final = Failure(Kind.BROKEN, "The database file is read-only")
MISSING: Final = Failure(Kind.REFUSED, "The database or its tables do not exist")
NOT_READY: Final = Failure(Kind.REFUSED, "The database is not in the state for this")
LOCKED: Final = Failure(Kind.REFUSED, "Another program has locked the database")
MOVED: Final = Failure(Kind.REFUSED, "The database file was deleted or replaced")
LARGE: Final = Failure(Kind.LARGE, "The operation is too large for the database.")

TOO_MANY_CONNECTIONS: Final = "53300"
BUGS: Final = (
    *("00", "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23", "24", "25"),
    *("27", "2B", "2D", "2F", "34", "38", "39", "3B", "42", "44", "HV", "P0", "XX"),
)
"""Classes of SQLSTATE that only a bug of the server or of the database can cause."""
SQLSTATES: Final[Mapping[str, Failure]] = {
    **dict.fromkeys(BUGS, BUG),
    "08": LOST,
    "25006": Failure(Kind.STALE, "The database accepts no writes"),
    "25P03": LOST,
    "25P04": Failure(Kind.LATE),
    "26": Failure(Kind.STALE, "The database has forgotten the session"),
    "28": DENIED,
    "3D": MISSING,
    "3F": MISSING,
    "40": CONFLICT,
    "42501": DENIED,
    "42P01": MISSING,
    "53": EXHAUSTED,
    "53100": FULL,
    TOO_MANY_CONNECTIONS: Failure(Kind.LOST, "The database has too many connections"),
    "54": LARGE,
    "55": NOT_READY,
    "55P03": CONFLICT,
    "57": LOST,
    "57014": Failure(Kind.LATE),
    "58": FILES,
    "72": CONFLICT,
    "F0": FILES,
}
"""Failures of PostgreSQL by SQLSTATE: all classes, and the codes that differ from their class."""
RESULTS: Final[Mapping[str, Failure]] = {
    "SQLITE_PERM": READ_ONLY,
    "SQLITE_BUSY": LOCKED,
    "SQLITE_LOCKED": LOCKED,
    "SQLITE_NOMEM": EXHAUSTED,
    "SQLITE_READONLY": READ_ONLY,
    "SQLITE_INTERRUPT": Failure(Kind.LATE),
    "SQLITE_IOERR": FILES,
    "SQLITE_CORRUPT": Failure(Kind.BROKEN, "The database file is damaged"),
    "SQLITE_FULL": FULL,
    "SQLITE_CANTOPEN": FILES,
    "SQLITE_PROTOCOL": LOCKED,
    "SQLITE_SCHEMA": CONFLICT,
    "SQLITE_TOOBIG": LARGE,
    "SQLITE_NOLFS": FULL,
    "SQLITE_NOTADB": Failure(Kind.BROKEN, "The file is not a database"),
}
"""Failures of SQLite by result code; all others are bugs."""


def failure_of(error: BaseException) -> Failure:
    """Return the failure that an exception stands for, raised by a driver or by SQLAlchemy."""
    if isinstance(error, DatabaseMoved):
        return MOVED
    raised = _of_driver(error)
    found = (
        SQLSTATES.get(sqlstate(raised)) or SQLSTATES.get(sqlstate(raised)[:2]) or RESULTS.get(_result(raised)) or BUG
    )
    return LOST if found is BUG and _is_lost(error, raised) else found


def _of_driver(error: BaseException) -> BaseException:
    """Return the exception of the driver behind one of SQLAlchemy, whose adapter for asyncpg has classes of its own."""
    return (error.driver_exception if isinstance(error, sa.exc.DBAPIError) else None) or error


def is_ended(error: BaseException) -> bool:
    """Return whether the server has ended the session of the driver, even if its transport does not know that yet."""
    raised = _of_driver(error)
    return isinstance(raised, asyncpg.InternalClientError) and str(raised).startswith(ENDED)


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an exception; empty if it has none."""
    return str(getattr(error, "sqlstate", None) or getattr(getattr(error, "orig", None), "sqlstate", None) or "")


def _result(error: BaseException) -> str:
    """Return the primary result code of SQLite: of SQLITE_IOERR_WRITE, SQLITE_IOERR."""
    return "_".join(str(getattr(error, "sqlite_errorname", "")).split("_")[:2])


def _is_lost(error: BaseException, raised: BaseException) -> bool:
    is_closed = isinstance(raised, asyncpg.InterfaceError) and CLOSED in str(raised)
    return (
        is_closed
        or is_ended(raised)
        or getattr(error, "connection_invalidated", False)
        or isinstance(raised, ConnectionError | UnknownOutcome | asyncpg.TargetServerAttributeNotMatched)
    )


def as_answer(error: BaseException) -> RunstateError | None:
    """Return the error that clients get for a failure of the database; None for a bug and for other exceptions."""
    if isinstance(error, RunstateError):
        return error
    if isinstance(error, sa.exc.TimeoutError):
        return Overloaded()
    failure = failure_of(error)
    if failure.is_temporary:
        return Unavailable(f"{failure.reason}; nothing was written.")
    if failure.kind is Kind.LARGE:
        return BadUserInput(failure.reason)
    return Timeout() if failure.kind is Kind.LATE else None


def is_temporary(error: BaseException) -> bool:
    """Return whether the same work may succeed later, because the database failed or was too slow."""
    failure = failure_of(error)
    # The batcher raises our own errors.
    is_late = failure.kind is Kind.LATE or isinstance(error, TimeoutError | sa.exc.TimeoutError | Timeout)
    return is_late or failure.is_temporary or isinstance(error, Overloaded | Unavailable)


def reason(error: BaseException) -> str:
    """Return the first line of the message of the database or operating system, without SQLAlchemy's additions."""
    while isinstance(error, sa.exc.DBAPIError) and error.orig:
        error = error.orig
    while isinstance(error.__cause__, FAILURES):
        error = error.__cause__
    named = next((text for kind, text in SILENT.items() if isinstance(error, kind)), None)
    lines = str(error).strip().splitlines()
    return named or (lines[0].rstrip(".") if lines else type(error).__name__)
