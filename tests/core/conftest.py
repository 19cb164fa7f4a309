"""Databases shared by tests that create runs of their own: creating a database takes longer than most tests."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runstate.database import Database
from tests.conftest import KINDS
from tests.databases import postgresql_database, sqlite_url


@pytest.fixture(scope="module", params=KINDS)
def shared_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a migrated database; each module has one of each kind."""
    template = request.getfixturevalue(f"{request.param}_template")
    if request.param == "sqlite":
        yield sqlite_url(Path(shutil.copy(template, tmp_path_factory.mktemp("shared") / "runstate.db")))
    else:
        with postgresql_database(request.getfixturevalue("postgresql"), template) as url:
            yield url


@pytest.fixture
def postgresql_url(postgresql: str, postgresql_template: str) -> Iterator[str]:
    """Yield the URL of a migrated, empty PostgreSQL database."""
    with postgresql_database(postgresql, postgresql_template) as url:
        yield url


@pytest.fixture
async def shared(shared_url: str) -> AsyncIterator[Database]:
    """Yield a migrated database that contains rows of other tests."""
    database = Database(shared_url)
    yield database
    await database.close()
