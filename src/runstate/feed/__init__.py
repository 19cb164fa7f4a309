"""What has happened, told to whoever listens: the log's reader, cursors, the hub, wake-ups."""

from runstate.feed.history import Past
from runstate.feed.hub import Hub
from runstate.feed.reader import Page, Reader
from runstate.feed.retention import sweep_log
from runstate.feed.streams import follow, follow_run, pulse
from runstate.feed.wanted import TagsWanted, Wanted

__all__ = ["Hub", "Page", "Past", "Reader", "TagsWanted", "Wanted", "follow", "follow_run", "pulse", "sweep_log"]
