"""Hubs that are woken by pokes only, unless a test says otherwise."""

from collections.abc import AsyncIterator

import pytest

from runstate.database import Database
from runstate.feed import Hub

NEVER = 3_600.0


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Hub]:
    """A hub on the database."""
    hub = Hub(database, poll_seconds=NEVER, pause_seconds=0, heartbeat_seconds=NEVER, wakeups=False)
    await hub.start()
    yield hub
    await hub.stop()
