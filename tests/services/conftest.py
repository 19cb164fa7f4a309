"""What tests of services ask for: a database with things in it, and a second server."""

from collections.abc import AsyncIterator

import pytest

from runstate.core.desk import Desk
from runstate.database import Database
from tests.services.making import Making, desk_of


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Making]:
    """Makes things in a database; `make.desk` is its desk, `make.clock` the time."""
    make = Making(database)
    yield make
    await make.desk.close()


@pytest.fixture
async def other(make: Making, url: str) -> AsyncIterator[Desk]:
    """The desk of another server on the same database; a SQLite file has one server, so there it is a second desk."""
    database = make.database if make.database.is_sqlite else Database(url)
    desk = desk_of(database, make.clock)
    yield desk
    await desk.close()
    await database.close()
