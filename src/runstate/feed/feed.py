"""The feed of one process: the sources of all subscriptions."""

from collections.abc import Callable

from runstate.database import Database
from runstate.feed.deletions import DeletionWatch
from runstate.feed.hub import DEFAULTS, Hub, HubSettings
from runstate.feed.lines import Lines
from runstate.feed.log import LOG_WRITES, TRANSITIONS
from runstate.feed.notifications import Notifications
from runstate.feed.slots import SlotWatch
from runstate.feed.trees import Trees
from runstate.feed.work import WorkWatch
from runstate.rows import Transition


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
        self.logs = Hub(database, LOG_WRITES, self.notifications, settings)
        self.lines = Lines(database.subscriptions)
        self.trees = Trees(database.subscriptions)
        self.deletions = DeletionWatch(database.subscriptions, self.notifications)
        self.slots = SlotWatch(database.subscriptions, self.notifications)
        self.work = WorkWatch(database.subscriptions, self.notifications)

    async def start(self) -> None:
        """Start reading and receiving notifications."""
        await self.transitions.start()
        await self.logs.start()
        self.deletions.start()
        self.slots.start()
        self.work.start()
        # Last: only after the first connection is it known whether the server is a pooler.
        self.notifications.start()

    async def stop(self) -> None:
        """Deliver committed entries to subscribers, and stop."""
        await self.transitions.stop()
        await self.logs.stop()
        await self.deletions.stop()
        await self.slots.stop()
        await self.work.stop()
        await self.notifications.stop()
