"""Fixtures for tests of the feed: hubs that poll only when they are notified, by default."""

from collections.abc import AsyncIterator

import pytest

from runstate.database import Database
from runstate.feed import Feed, Hub, HubSettings
from runstate.rows import Transition

NEVER = 3_600.0
QUIET = HubSettings(poll_seconds=NEVER, pause_seconds=0, heartbeat_seconds=NEVER)


@pytest.fixture
async def feed(database: Database) -> AsyncIterator[Feed]:
    """Yield the feed of a process, without notifications from other processes."""
    feed = Feed(database, QUIET)
    await feed.transitions.start()
    feed.deletions.start()
    feed.slots.start()
    yield feed
    await feed.stop()


@pytest.fixture
def hub(feed: Feed) -> Hub[Transition]:
    """Return the hub of the log of transitions."""
    return feed.transitions
