"""Fixtures for tests of services: a database with runs, and a second server."""

from collections.abc import AsyncIterator

import pytest

from runstate.core.batch.batcher import Batcher
from runstate.database import Database
from tests.services.factories import Making, batcher_of


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Making]:
    """Yield a factory of rows; `make.batcher` is its batcher, `make.clock` its clock."""
    make = Making(database)
    yield make
    await make.batcher.close()


@pytest.fixture
async def other(make: Making, url: str) -> AsyncIterator[Batcher]:
    """Yield the batcher of a second server on the same database; on SQLite, a second batcher of one server."""
    database = make.database if make.database.is_sqlite else Database(url)
    batcher = batcher_of(database, make.clock)
    yield batcher
    await batcher.close()
    await database.close()
