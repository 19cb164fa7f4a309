"""Deletes expired log entries, as the retention of their row classes says."""

from collections.abc import Mapping
from datetime import datetime

from runstate.core.batch.batcher import Batcher
from runstate.feed.retention import prune_logs
from runstate.services.cleanup import NO_SETTINGS


async def run_once(batcher: Batcher, now: datetime, *, retention: Mapping[str, float] = NO_SETTINGS) -> int:
    """Delete expired log entries and return their number; *retention* has values of settings by name."""
    return await prune_logs(batcher.database, now, retention)
