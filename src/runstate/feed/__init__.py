"""What has happened, told to whoever listens: the log's reader, cursors, the hub, wake-ups."""

from runstate.feed.filter import TagsWanted, TransitionFilter
from runstate.feed.history import RunHistoryPage
from runstate.feed.hub import Hub
from runstate.feed.reader import Page, Reader
from runstate.feed.retention import sweep_log
from runstate.feed.streams import follow, follow_run

__all__ = [
    "Hub",
    "Page",
    "Reader",
    "RunHistoryPage",
    "TagsWanted",
    "TransitionFilter",
    "follow",
    "follow_run",
    "sweep_log",
]
