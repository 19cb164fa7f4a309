"""Delivers committed log entries to subscribers: readers, cursors, hubs, notifications between replicas."""

from runstate.feed.deletions import DELETIONS
from runstate.feed.feed import Feed
from runstate.feed.filter import TagFilter, TransitionFilter
from runstate.feed.history import RunHistoryPage
from runstate.feed.hub import Hub, HubSettings
from runstate.feed.log import EVERYTHING, TRANSITIONS, Log, LogFilter, all_logs
from runstate.feed.log_stream import LinePart, Wanted, follow_lines
from runstate.feed.reader import PAGE_SIZE, Page, Reader
from runstate.feed.retention import prune_log
from runstate.feed.run_stream import follow_run
from runstate.feed.slots import SLOTS, FreeSlots
from runstate.feed.streams import follow, read_log
from runstate.feed.work import WORK, WorkAvailable

__all__ = [
    "DELETIONS",
    "EVERYTHING",
    "PAGE_SIZE",
    "SLOTS",
    "TRANSITIONS",
    "WORK",
    "Feed",
    "FreeSlots",
    "Hub",
    "HubSettings",
    "LinePart",
    "Log",
    "LogFilter",
    "Page",
    "Reader",
    "RunHistoryPage",
    "TagFilter",
    "TransitionFilter",
    "Wanted",
    "WorkAvailable",
    "all_logs",
    "follow",
    "follow_lines",
    "follow_run",
    "prune_log",
    "read_log",
]
