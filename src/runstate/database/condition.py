"""The condition of a database, as seen from its transactions: whether it accepts writes, and whether its file moved."""

import time
from pathlib import Path
from typing import Final

import structlog

from runstate.database.failures import Kind, failure_of, reason
from runstate.errors import DatabaseMoved

LOG_SECONDS: Final = 10.0
"""Least time between two lines in the log about failures for the same reason."""
WRITES_SECONDS: Final = 5.0
"""Time for which the outcome of a transaction says whether the database can be written."""
CHECK_SECONDS: Final = 0.25
"""Time for which a check of the file is good enough for reading."""

log = structlog.get_logger(__name__)


class Condition:
    """Outcomes of the last transactions."""

    def __init__(self) -> None:
        self.committed = -WRITES_SECONDS
        """Time of the last transaction that was committed, by the monotonic clock."""
        self.failed = -WRITES_SECONDS
        """Time of the last transaction that the database made fail."""
        self.reason = ""
        """Reason of its failure."""
        self.logged: dict[str, float] = {}
        """Times of the last line in the log by reason."""

    def succeed(self) -> None:
        """Note a transaction that was committed."""
        self.committed = time.monotonic()

    def fail(self, error: BaseException, *, writing: bool = False) -> None:
        """Note a failure of work, and log it if the database is the reason and it was not logged just now."""
        failure = failure_of(error)
        if not failure.is_temporary or failure.kind is Kind.CONFLICT:
            return
        now = time.monotonic()
        if writing:
            self.failed, self.reason = now, failure.reason
        if now - self.logged.get(failure.reason, -LOG_SECONDS) >= LOG_SECONDS:
            self.logged[failure.reason] = now
            log.warning("database_unavailable", reason=reason(error))

    @property
    def is_writing(self) -> bool:
        """Whether the last transaction was committed, within the last seconds."""
        return self.committed > self.failed and time.monotonic() - self.committed < WRITES_SECONDS

    @property
    def fault(self) -> str | None:
        """Why the last transaction failed; None if it was committed, or if that is long ago."""
        is_failing = self.failed > self.committed and time.monotonic() - self.failed < WRITES_SECONDS
        return self.reason if is_failing else None


class DatabaseFile:
    """The file of a SQLite database and its write-ahead log, as they were when they were opened.

    SQLite goes on with a file that was deleted or replaced: everything written would be lost.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = Path(f"{path}-wal")
        self.opened: tuple[int, int] | None = None
        self.opened_log: tuple[int, int] | None = None
        self.checked = -CHECK_SECONDS
        """Time of the last successful check, by the monotonic clock."""

    def open(self) -> None:
        """Note which file is open, unless that is known already."""
        self.opened = self.opened or identity(self.path)

    def reopen_log(self) -> None:
        """Forget which log is open: SQLite creates a new one when its only connection is replaced."""
        self.opened_log = None

    def glance(self) -> None:
        """Check the file unless it was checked just now: a check takes a hundredth of the time of a statement."""
        if time.monotonic() - self.checked >= CHECK_SECONDS:
            self.check()

    def check(self) -> None:
        """Raise DatabaseMoved if the file at the path is not the one that is open."""
        if self.opened is not None and identity(self.path) != self.opened:
            self.checked = -CHECK_SECONDS
            raise DatabaseMoved
        self.checked = time.monotonic()

    def check_log(self) -> None:
        """Raise DatabaseMoved if the file or its log are not those that are open."""
        self.check()
        current = identity(self.log)
        self.opened_log = self.opened_log or current
        if current != self.opened_log:
            self.checked = -CHECK_SECONDS
            raise DatabaseMoved


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and the inode of a file; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
