"""Fixtures for all tests: databases of both kinds, the application over HTTP, server processes."""

import asyncio
import gc
import itertools
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from pydantic import SecretStr
from starlette.applications import Starlette

from runstate.app import build_app
from runstate.core.keyring import new_key
from runstate.database import Database
from runstate.settings import Settings
from tests.client import Ask, asking, running
from tests.databases import OURS, make_tables, postgresql_database, sqlite_url
from tests.databases import server as postgresql_server
from tests.node import Packages, packages
from tests.serving import Serve
from tests.subscribing import Listening, listening
from tests.subscribing import asking as asking_over_sockets

KINDS = ("sqlite", "postgresql")
SECRET_KEY = new_key()
COLLECTED_EVERY = 40
FINISHED = itertools.count(1)
"""Numbers of the tests that this process has finished."""


def pytest_configure() -> None:
    """Handle SIGTERM like Ctrl-C, so that started processes are stopped too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish() -> None:
    """Return the memory of earlier tests now and then: servers in this process freeze all objects when they start."""
    if next(FINISHED) % COLLECTED_EVERY == 0:
        # Faults of earlier tests would fail one that is not concerned.
        report, sys.unraisablehook = sys.unraisablehook, lambda _: None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.unfreeze()
            gc.collect()
        sys.unraisablehook = report


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Share the PostgreSQL server with the worker processes of pytest-xdist."""
    node.workerinput["postgresql"] = postgresql_server(node.config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the PostgreSQL server if this process started one."""
    if OURS in config.stash:
        config.stash[OURS].stop()


@pytest.fixture(autouse=True)
def default_logging() -> Iterator[None]:
    """Undo the logging of a command that the test executes in this process: its standard error is closed afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> str:
    """Return the URL of the administration database of a PostgreSQL server."""
    return postgresql_server(request.config)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated, empty SQLite database to copy."""
    file = tmp_path_factory.mktemp("template") / "runstate.db"
    asyncio.run(make_tables(sqlite_url(file)))
    return file


@pytest.fixture(scope="session")
def postgresql_template(postgresql: str) -> Iterator[str]:
    """Yield the name of a migrated, empty PostgreSQL database to copy."""
    with postgresql_database(postgresql) as url:
        asyncio.run(make_tables(url))
        yield str(sa.make_url(url).database)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of the database; the test runs once for each."""
    return str(request.param)


@pytest.fixture
def blank_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a database without tables."""
    if kind == "sqlite":
        yield sqlite_url(tmp_path / "blank.db")
    else:
        with postgresql_database(request.getfixturevalue("postgresql")) as url:
            yield url


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Yield the URL of a migrated, empty database."""
    template = request.getfixturevalue(f"{kind}_template")
    if kind == "sqlite":
        yield sqlite_url(Path(shutil.copy(template, tmp_path / "runstate.db")))
    else:
        with postgresql_database(request.getfixturevalue("postgresql"), template) as url:
            yield url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Yield a migrated, empty database."""
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
async def app(url: str) -> AsyncIterator[Starlette]:
    """Yield the application with the database, started and without background services."""
    app = build_app(Settings(database_url=url, services="off", secret_keys=SecretStr(SECRET_KEY)))
    async with running(app):
        yield app


@pytest.fixture
async def ask(app: Starlette) -> AsyncIterator[Ask]:
    """Yield a client of the application over HTTP."""
    async with asking(app) as ask:
        yield ask


@pytest.fixture
async def server(url: str) -> AsyncIterator[Listening]:
    """Yield a server in this process over real sockets, for subscriptions and long requests."""
    async with listening(url) as server:
        yield server


@pytest.fixture
async def live(server: Listening) -> AsyncIterator[Ask]:
    """Yield a client of the server over HTTP."""
    async with asking_over_sockets(server) as live:
        yield live


@pytest.fixture
async def serve(url: str) -> AsyncIterator[Serve]:
    """Yield a function that starts server processes with environment variables; requests go to `server.url`."""
    async with AsyncExitStack() as servers:
        yield Serve(servers, {"RUNSTATE_DATABASE_URL": url, "RUNSTATE_SERVICES": "off"})


@pytest.fixture(scope="session")
def clients() -> Packages:
    """Return the npm packages of GraphQL clients."""
    return packages(Path(__file__).parent / "clients")
