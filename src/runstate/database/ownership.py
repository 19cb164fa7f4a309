"""Ownership of a SQLite file: one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runstate.database.address import parse
from runstate.errors import ConfigurationError


@contextmanager
def sole_owner(url: str) -> Iterator[None]:
    """Lock a SQLite file while the block runs. Raise ConfigurationError if another server holds the lock."""
    file = parse(url).file
    if file is None:
        yield
        return
    # A separate file, because SQLite locks the database file itself. The kernel releases the lock of a killed process.
    lock = Path(f"{file}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another server uses {file}: stop it, or use PostgreSQL for several servers."
            raise ConfigurationError(message) from None
        yield
