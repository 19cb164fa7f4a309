"""The feed of one process: the sources of all subscriptions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from runstate.database import Database
from runstate.feed.deletions import DeletionWatch
from runstate.feed.hub import DEFAULTS, Hub, HubSettings
from runstate.feed.lines import Lines
from runstate.feed.log import EVENTS, LOG_WRITES, TRANSITIONS
from runstate.feed.notifications import Notifications
from runstate.feed.slots import SlotWatch
from runstate.feed.trees import Trees
from runstate.feed.work import WorkWatch
from runstate.rows import Transition

LINES_PAUSE_SECONDS: Final = 0.05
"""Shortest time between two polls of the log of writes. After a longer silence, new lines are sent at once."""


class Feed:
    """A hub for each log, and the watch for deleted rows. They share the connections for notifications."""

    def __init__(
        self,
        database: Database,
        settings: HubSettings = DEFAULTS,
        delivered: Callable[[Transition], None] = lambda _: None,
    ) -> None:
        self.notifications = Notifications(database)
        self.transitions = Hub(database, TRANSITIONS, self.notifications, settings, delivered)
        self.events = Hub(database, EVENTS, self.notifications, settings)
        # A program writes many lines in a second, and each statement and each event costs as much as many lines.
        gathering = replace(settings, pause_seconds=LINES_PAUSE_SECONDS)
        self.logs = Hub(database, LOG_WRITES, self.notifications, gathering)
        self.lines = Lines(database.subscriptions, is_awaited=self.logs.is_awaited)
        self.trees = Trees(database.subscriptions)
        self.deletions = DeletionWatch(database.subscriptions, self.notifications)
        self.slots = SlotWatch(database.subscriptions, self.notifications)
        self.work = WorkWatch(database.subscriptions, self.notifications)

    async def start(self) -> None:
        """Start reading and receiving notifications."""
        await self.transitions.start()
        await self.events.start()
        await self.logs.start()
        self.deletions.start()
        self.slots.start()
        self.work.start()
        # Last: only after the first connection is it known whether the server is a pooler.
        self.notifications.start()

    async def stop(self) -> None:
        """Deliver committed entries to subscribers, and stop."""
        await self.transitions.stop()
        await self.events.stop()
        await self.logs.stop()
        await self.deletions.stop()
        await self.slots.stop()
        await self.work.stop()
        await self.notifications.stop()
