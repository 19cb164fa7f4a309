"""Deletes expired rows, as the retention of their row classes says."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from runstate.core.batch.batcher import Batcher
from runstate.database.bulk import table_of
from runstate.database.queries.expiry import delete_expired, delete_in_batches
from runstate.database.queries.heartbeats import is_stale
from runstate.rows import Heartbeat

NO_SETTINGS: Final[Mapping[str, float]] = MappingProxyType({})
"""Without the setting that their retention names, rows are kept."""


async def run_once(batcher: Batcher, now: datetime, *, retention: Mapping[str, float] = NO_SETTINGS) -> int:
    """Delete expired rows, except log entries, and return their number; *retention* has values of settings by name."""
    database = batcher.database
    # Heartbeats have no retention: they are needed for as long as their run is monitored.
    return await delete_expired(database, now, retention) + await delete_in_batches(
        database, table_of(Heartbeat), is_stale()
    )
